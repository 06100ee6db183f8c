"""Maxima and their pooling: they pick the entry that the whole, unmasked activation has there."""

import torch
import torch.nn.functional as F

from explainer.decomposition.registry import name_of, register_rule
from explainer.decomposition.rules.base import even
from explainer.decomposition.split import UnsupportedOp

MAX_POOLS = {
    "max_pool1d": F.max_pool1d,
    "max_pool2d": F.max_pool2d,
    "max_pool3d": F.max_pool3d,
    "adaptive_max_pool1d": F.adaptive_max_pool1d,
    "adaptive_max_pool2d": F.adaptive_max_pool2d,
    "adaptive_max_pool3d": F.adaptive_max_pool3d,
}


class Picks(torch.overrides.TorchFunctionMode):
    """Watches a plain forward, and notes in `found` what every maximum picks there."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, name_of(function)
        if name in MAX_POOLS:
            plain, indices = MAX_POOLS[name](*args, **{**kwargs, "return_indices": True})
            self.found.append(indices)
            return plain
        result = function(*args, **kwargs)
        if name == "max" and isinstance(result, tuple):
            self.found.append(result.indices)
        elif name == "amax":
            self.found.append(args[0].argmax(*_dim(*args[1:], **kwargs)))
        elif name in ("max", "maximum") and _pair(args, kwargs):
            self.found.append(args[0] >= _other(args, kwargs))
        return result


def _pair(args, kwargs):
    return isinstance(_other(args, kwargs), torch.Tensor)


def _other(args, kwargs):
    return args[1] if len(args) > 1 else kwargs.get("other")


def _dim(dim=None, keepdim=False):
    """The one dimension of a maximum, and whether it stays. Raises UnsupportedOp for several."""
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if not isinstance(dim, int):
        raise UnsupportedOp("amax over several dimensions has no rule: flatten them first")
    return dim, keepdim


def _max_pool(rules, x, *args, **kwargs):
    indices = rules.pick()
    spatial = indices.ndim - 2

    def picked(part):
        return part.flatten(-spatial).gather(-1, indices.flatten(-spatial)).reshape(indices.shape)

    return x.like(picked(x.b), picked(x.g), even(x.w))


for _name in MAX_POOLS:
    register_rule(_name)(_max_pool)


@register_rule("amax")
def amax(rules, x, dim=None, keepdim=False):
    return _along(rules, x, *_dim(dim, keepdim))[0]


@register_rule("max")
def maximum_along(rules, x, dim=None, keepdim=False, other=None):
    other = dim if other is None and not isinstance(dim, int) else other
    if other is not None:
        return maximum(rules, x, other)
    return _along(rules, x, *_dim(dim, keepdim))


def _along(rules, x, dim, keepdim):
    indices = rules.pick()
    index = indices if keepdim else indices.unsqueeze(dim)
    y = x.each(lambda part: part.gather(dim, index))
    return (y if keepdim else y.each(lambda part: part.squeeze(dim))), indices


@register_rule("maximum")
def maximum(rules, x, y):
    first = rules.pick()
    if not all(hasattr(part, "b") for part in (x, y)):
        raise UnsupportedOp("the maximum of an activation and a constant has no rule: add one by register_rule")
    return x.like(torch.where(first, x.b, y.b), torch.where(first, x.g, y.g))
