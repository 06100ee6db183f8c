"""Sorted values: top k, order statistics and places, as the whole activation has them."""

import torch

from explainer.decomposition.fixed import Fixed
from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.pooling import ORDERS
from explainer.decomposition.split import UnsupportedOp


def _checked(name, dim):
    if dim is None:
        raise UnsupportedOp(f"{name} over all dimensions mixes the rows of a batch: give it the others")
    return dim


def _picked(x, dim, index, kept):
    """The parts at an index along a dimension, which stays, or not."""
    y = x.each(lambda part: part.gather(dim, index if kept else index.unsqueeze(dim)))
    return y if kept else y.each(lambda part: part.squeeze(dim))


def _ordered(name):
    function = getattr(torch, name)

    def rule(rules, x, *args, **kwargs):
        place = 1 if name in ("topk", "kthvalue") else 0
        dim = kwargs.get("dim", args[place] if len(args) > place else None if "median" in name else -1)
        _checked(name, dim)
        keepdim = kwargs.get("keepdim", args[place + 1] if len(args) > place + 1 else False)
        kept = name in ("topk", "sort") or keepdim
        shape = list(x.shape)
        shape[dim : dim + 1 or None] = [None] * kept
        index = rules.pick(lambda: function(x.total, *args, **kwargs).indices, shape)
        return getattr(torch.return_types, name)((_picked(x, dim, index, kept), Fixed(index, rules, name)))

    return rule


def _place(name):
    function = getattr(torch, name)
    return lambda rules, x, *args, **kwargs: Fixed(function(x.total, *args, **kwargs), rules, name)


for _name in ORDERS:
    register_rule(_name)(_ordered(_name))
for _name in ("argsort", "argmax", "argmin"):
    register_rule(_name)(_place(_name))


@register_rule("aminmax")
def aminmax(rules, x, *, dim=None, keepdim=False):
    _checked("aminmax", dim)
    index = (function(x.total, dim, keepdim=keepdim) for function in (torch.argmin, torch.argmax))
    return torch.return_types.aminmax(tuple(_picked(x, dim, i, keepdim) for i in index))
