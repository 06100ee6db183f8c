"""Sums, quotients, powers and reductions of activations with one another and with constants."""

import torch
import torch.nn.functional as F

from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.activations import shapley
from explainer.decomposition.rules.base import even, joined
from explainer.decomposition.split import Split, UnsupportedOp


def _constant(value, x):
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=x.b.dtype, device=x.b.device)


def _together(x, y):
    """The w of two Splits that are combined entry by entry."""
    return x.w if x.w.ndim >= y.w.ndim else y.w


def _plus(rules, x, constant, alpha=1):
    c = alpha * _constant(constant, x)
    return joined(rules, x, c) if c.ndim else rules.bias(x, c)


@register_rule("add")
def add(rules, x, y, alpha=1):
    if isinstance(x, Split) and isinstance(y, Split):
        return x.like(x.b + alpha * y.b, x.g + alpha * y.g, _together(x, y))
    if isinstance(x, Split):
        return _plus(rules, x, y, alpha)
    return _plus(rules, y.like(alpha * y.b, alpha * y.g), x)


@register_rule("sub")
def sub(rules, x, y, alpha=1):
    return add(rules, x, neg(rules, y) if isinstance(y, Split) else -_constant(y, x), alpha=alpha)


@register_rule("rsub")
def rsub(rules, x, y, alpha=1):
    return add(rules, y, neg(rules, x), alpha=alpha)


@register_rule("neg", "negative")
def neg(rules, x):
    return x.like(-x.b, -x.g)


@register_rule("div")
def div(rules, x, y, rounding_mode=None):
    if isinstance(y, Split):
        return reciprocal(rules, y)
    if rounding_mode is not None:
        raise UnsupportedOp(
            f"a division that rounds ({rounding_mode}) has no rule: give its module one by register_rule"
        )
    return x.like(x.b / y, x.g / y)


@register_rule("reciprocal", "__rdiv__", "__rtruediv__")
def reciprocal(rules, *args):
    raise UnsupportedOp("a division by an activation has no rule: give the module that divides one by register_rule")


@register_rule("pow")
def power(rules, x, exponent):
    return shapley(rules, x, lambda part: part.pow(exponent))


@register_rule("__rpow__")
def exponential(rules, x, base):
    return shapley(rules, x, lambda part: torch.pow(base, part))


@register_rule("square")
def square(rules, x):
    return shapley(rules, x, torch.square)


@register_rule("lp_pool1d", "lp_pool2d", "lp_pool3d")
def _lp_pool(rules, x, *args, **kwargs):
    function = {3: F.lp_pool1d, 4: F.lp_pool2d, 5: F.lp_pool3d}[x.b.ndim]
    return shapley(rules, x.like(x.b, x.g, even(x.w)), lambda part: function(part, *args, **kwargs))


@register_rule("cat", "concat", "concatenate")
def cat(rules, tensors, dim=0):
    return _joined(rules, torch.cat, tensors, dim)


@register_rule("stack")
def stack(rules, tensors, dim=0):
    return _joined(rules, torch.stack, tensors, dim)


def _joined(rules, function, tensors, dim):
    """A constant among them is shared out by the mean share of what it joins."""
    x = next(t for t in tensors if isinstance(t, Split))
    tensors = [t for t in tensors if isinstance(t, Split) or t.shape != (0,)]  # which torch.cat leaves out
    if not all(isinstance(t, Split) for t in tensors):
        w = x.w.expand_as(x.b)
        w = w.mean(dim, keepdim=True) if function is torch.cat else w
        zeros = [t if isinstance(t, Split) else x.like(torch.zeros_like(t), torch.zeros_like(t), w) for t in tensors]
        tensors = [t if isinstance(t, Split) else joined(rules, zero, t) for t, zero in zip(tensors, zeros)]
    b, g = (function([getattr(t, part) for t in tensors], dim) for part in "bg")
    same = [even(t.w) is t.w and t.w.shape == x.w.shape for t in tensors]
    if all(same) and dim not in (0, -b.ndim) and b.ndim == x.b.ndim:
        return x.like(b, g)
    return x.like(b, g, function([t.w.expand_as(t.b) for t in tensors], dim))


@register_rule("mean")
def mean(rules, x, dim=None, keepdim=False, dtype=None):
    return _reduced(x, lambda part, d, k: part.mean(d, k, dtype=dtype), dim, keepdim)


@register_rule("sum")
def total(rules, x, dim=None, keepdim=False, dtype=None):
    return _reduced(x, lambda part, d, k: part.sum(d, k, dtype=dtype), dim, keepdim)


def _reduced(x, function, dim, keepdim):
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    if x.ndim and len({d % x.ndim for d in dims}) in (0, x.ndim):
        raise UnsupportedOp("a sum or mean over all dimensions mixes the rows of a batch: give it the others")
    w = x.w.mean(dims, keepdim)
    return x.like(function(x.b, dims, keepdim), function(x.g, dims, keepdim), w)
