"""What is written to some entries of an activation: index assignment, copies, fills, scatters and their like."""

import torch

from explainer.decomposition.fixed import whole
from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.base import joined
from explainer.decomposition.split import Split, UnsupportedOp


def _placed(rules, x, source, place):
    """place(x, source), linear in both together; what is constant in either is shared out."""
    some = x if isinstance(x, Split) else source
    like = {"dtype": some.dtype, "device": some.device}

    def part(value, name):
        return getattr(value, name) if isinstance(value, Split) else torch.zeros_like(torch.as_tensor(value, **like))

    b, g = (place(part(x, name), part(source, name)) for name in "bg")
    w = [v.w.expand_as(v.b) if isinstance(v, Split) else None for v in (x, source)]
    if w[1] is None:
        w = w[0]
    elif w[0] is not None:
        w = place(*w)
    else:
        w = some.w.mean().expand(b.shape) if some.w.ndim != b.ndim or len(some.w) != len(b) else some.w
    y = some.like(b, g, w)
    constants = [torch.zeros_like(v.b) if isinstance(v, Split) else torch.as_tensor(v, **like) for v in (x, source)]
    if all(isinstance(v, Split) for v in (x, source)) or not (constant := place(*constants)).any():
        return y
    return joined(rules, y, constant)


@register_rule("__setitem__")
def setitem(rules, x, index, value):
    def place(part, source):
        part = part.clone()
        part[index] = source
        return part

    return _placed(rules, x, value, place)


@register_rule("copy")
def copy(rules, x, source, non_blocking=False):
    return _placed(rules, x, source, lambda part, new: new.to(part.dtype).expand(part.shape))


@register_rule("fill")
def fill(rules, x, value):
    return copy(rules, x, value)


@register_rule("zero")
def zero(rules, x):
    return x.like(torch.zeros_like(x.b), torch.zeros_like(x.g))


def _source(function, place, name):
    """The rule of a function that puts a source, at `place` of its arguments or by its name, into x."""

    def rule(rules, x, *args, **kwargs):
        args, kwargs = [whole(v) if i != place else v for i, v in enumerate(args, 1)], dict(kwargs)
        source = kwargs.pop(name) if name in kwargs else args.pop(place - 1)

        def put(part, new):
            own = args[: place - 1] + [new] + args[place - 1 :] if len(args) >= place - 1 else None
            return function(part, *own, **kwargs) if own is not None else function(part, *args, **{name: new}, **kwargs)

        if function in (torch.scatter, torch.index_fill) and not isinstance(source, (Split, torch.Tensor)):
            source = torch.as_tensor(source, dtype=x.dtype, device=x.device)
        return _placed(rules, x, source, put)

    return rule


for _function, _place, _name in (
    (torch.index_copy, 3, "source"), (torch.index_put, 2, "values"), (torch.index_fill, 3, "value"),
    (torch.masked_scatter, 2, "source"), (torch.select_scatter, 1, "src"), (torch.slice_scatter, 1, "src"),
    (torch.diagonal_scatter, 1, "src"),
):  # fmt: skip
    register_rule(_function)(_source(_function, _place, _name))


@register_rule("scatter")
def scatter(rules, x, dim, index, src=None, value=None, reduce=None):
    if reduce is not None:
        raise UnsupportedOp(f"scatter with reduce={reduce!r} has no rule: use scatter_add, or scatter without it")
    source = value if src is None else src
    if not isinstance(source, (Split, torch.Tensor)):
        source = torch.full_like(index, source, dtype=x.dtype)
    return _placed(rules, x, source, lambda part, new: part.scatter(dim, index, new))


def _added(function):
    """Sums: an entry's share is that of x."""

    def rule(rules, x, dim, index, source=None, *, src=None, alpha=1):
        source = source if src is None else src
        more = {} if alpha == 1 else {"alpha": alpha}
        own = x if isinstance(x, Split) else source

        def put(part, new):
            return function(part, dim, index, new, **more)

        y = _placed(rules, x, source, put)
        w = own.w if isinstance(x, Split) else y.w
        return y.like(y.b, y.g, w)

    return rule


for _function in (torch.index_add, torch.scatter_add):
    register_rule(_function)(_added(_function))
