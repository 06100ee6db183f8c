"""Maxima and their pooling: they pick the entry that the whole, unmasked activation has there."""

import functools

import torch
import torch.nn.functional as F

from explainer.decomposition.fixed import whole
from explainer.decomposition.registry import name_of, register_rule
from explainer.decomposition.rules.base import even
from explainer.decomposition.rules.held import where
from explainer.decomposition.split import UnsupportedOp

MAX_POOLS = {
    "max_pool1d": F.max_pool1d,
    "max_pool2d": F.max_pool2d,
    "max_pool3d": F.max_pool3d,
    "adaptive_max_pool1d": F.adaptive_max_pool1d,
    "adaptive_max_pool2d": F.adaptive_max_pool2d,
    "adaptive_max_pool3d": F.adaptive_max_pool3d,
}


ORDERS = "topk", "sort", "kthvalue", "median", "nanmedian", "mode"  # they give values and indices


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
        if name in (*ORDERS, "max", "min") and isinstance(result, tuple):
            self.found.append(result.indices)
        elif name in ("amax", "amin"):
            self.found.append(_place(name, args[0], *args[1:], **kwargs))
        elif name in ("max", "min", "maximum", "minimum") and _pair(args, kwargs):
            first, other = args[0], _other(args, kwargs)
            self.found.append(first >= other if name.startswith("max") else first <= other)
        return result


def _pair(args, kwargs):
    return isinstance(_other(args, kwargs), torch.Tensor)


def _other(args, kwargs):
    return args[1] if len(args) > 1 else kwargs.get("other")


def _last(x, dims):
    """The dimensions dims, put together as the last one."""
    dims = sorted(d % x.ndim for d in dims)
    return x.movedim(dims, list(range(x.ndim - len(dims), x.ndim))).flatten(x.ndim - len(dims))


def _place(name, x, dim=(), keepdim=False):
    """Where the maximum or minimum over dimensions is, among their entries; None over all of them."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return getattr(_last(x, dims), name.replace("a", "arg", 1))(-1) if dims else None


def _checked(name, dim):
    """The dimensions of a maximum. Raises UnsupportedOp for all of them, the rows of a batch among them."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    if not dims:
        raise UnsupportedOp(f"{name} over all dimensions mixes the rows of a batch: give it the others")
    return dims


def _max_pool(rules, x, *args, pool=None, spatial=2, **kwargs):
    def found():
        return pool(x.total, *args, **{**kwargs, "return_indices": True})[1]

    indices = rules.pick(found, (*x.shape[:-spatial], *[None] * spatial))

    def picked(part):
        return part.flatten(-spatial).gather(-1, indices.flatten(-spatial)).reshape(indices.shape)

    return x.like(picked(x.b), picked(x.g), even(x.w))


for _name, _pool in MAX_POOLS.items():
    register_rule(_name)(functools.partial(_max_pool, pool=_pool, spatial=int(_name[-2])))


def _extreme(name):
    def rule(rules, x, dim=(), keepdim=False):
        dims = _checked(name, dim)
        index = rules.pick(lambda: _place(name, x.total, dims), _last(x.b, dims).shape[:-1]).unsqueeze(-1)
        y = x.each(lambda part: _last(part, dims).gather(-1, index).squeeze(-1))
        for d in sorted(d % x.ndim for d in dims) if keepdim else ():
            y = y.unsqueeze(d)
        return y

    return rule


def _along(name):
    kind = getattr(torch.return_types, name)

    def rule(rules, x, dim=None, keepdim=False, other=None):
        other = dim if other is None and not isinstance(dim, int) else other
        if other is not None:
            return _larger(name)(rules, x, other)
        (dim,) = _checked(name, dim)
        shape = x.b.narrow(dim, 0, 1).shape if keepdim else x.b.select(dim, 0).shape
        indices = rules.pick(lambda: getattr(x.total, name)(dim, keepdim).indices, shape)
        index = indices if keepdim else indices.unsqueeze(dim)
        y = x.each(lambda part: part.gather(dim, index))
        return kind((y if keepdim else y.each(lambda part: part.squeeze(dim)), indices))

    return rule


for _name in ("max", "min"):
    register_rule(f"a{_name}")(_extreme(f"a{_name}"))
    register_rule(_name)(_along(_name))


def _larger(name):
    compare = torch.ge if name.startswith("max") else torch.le

    def rule(rules, x, other):
        pick = rules.pick(lambda: compare(whole(x), whole(other)), torch.broadcast_shapes(x.shape, other.shape))
        return where(rules, pick, x, other)

    return rule


for _name in ("maximum", "minimum"):
    register_rule(_name)(_larger(_name))
