"""Products of activations with one another and with constants: entry by entry, of matrices, and by einsum.

Of a product of two activations what both relevant parts make is relevant, all the rest is not; a constant scales both
parts alike.
"""

import torch

from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.arithmetic import add
from explainer.decomposition.split import Split, UnsupportedOp


def product(function, x, y, w):
    """function, bilinear, of x and y with their parts; w: of the result."""
    if isinstance(x, Split) and isinstance(y, Split):
        return x.like(function(x.b, y.b), function(x.b, y.g) + function(x.g, y.total), w)
    if isinstance(x, Split):
        return x.like(function(x.b, y), function(x.g, y), w)
    return y.like(function(x, y.b), function(x, y.g), w)


@register_rule("mul")
def mul(rules, x, y):
    both = [v.w for v in (x, y) if isinstance(v, Split)]
    return product(torch.mul, x, y, max(both, key=lambda w: w.ndim))


@register_rule("matmul", "bmm", "mm")
def matmul(rules, x, y):
    """The share of an entry is the mean of those of its row of x, or of its column of y."""
    z = product(torch.matmul, x, y, None)
    source, dim = (x, -1) if isinstance(x, Split) else (y, -2 if y.ndim > 1 else -1)
    w = source.w.expand_as(source.b).mean(dim, keepdim=x.ndim > 1 and y.ndim > 1)
    if w.ndim and w.ndim < z.b.ndim and (x.ndim == 1 or y.ndim == 1):
        w = w.expand(z.b.shape)
    return z.like(z.b, z.g, w)


@register_rule("addmm", "baddbmm")
def addmm(rules, constant, x, y, beta=1, alpha=1, **kwargs):
    return _plus(rules, constant, matmul(rules, x, y), beta, alpha)


@register_rule("addcmul")
def addcmul(rules, start, x, y, value=1):
    return _plus(rules, start, mul(rules, x, y), 1, value)


@register_rule("lerp")
def lerp(rules, start, end, weight):
    if isinstance(weight, Split):
        raise UnsupportedOp(
            "lerp with a weight that is an activation has no rule: write start + weight * (end - start)"
        )
    return add(rules, start * (1 - weight), end * weight)


def _plus(rules, start, z, beta, alpha):
    z = z.like(alpha * z.b, alpha * z.g)
    return z if beta == 0 else add(rules, z, start * beta)


@register_rule("einsum")
def einsum(rules, equation, *operands):
    """One activation with constants is linear; two are a product; the share is the mean over what is summed."""
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = operands[0]
    places = [i for i, v in enumerate(operands) if isinstance(v, Split)]
    if not isinstance(equation, str) or len(places) > 2:
        raise UnsupportedOp(
            f"einsum of {len(places)} activations, or without an equation, has no rule: write it as products of two"
        )

    def with_parts(*parts):
        return torch.einsum(equation, *(dict(zip(places, parts)).get(i, v) for i, v in enumerate(operands)))

    source = operands[places[0]]
    ones = [torch.ones_like(v.b if isinstance(v, Split) else v) for v in operands]
    shares = [v.w.expand_as(v.b) if i == places[0] else one for i, (v, one) in enumerate(zip(operands, ones))]
    w = torch.einsum(equation, *shares) / torch.einsum(equation, *ones)
    if len(places) == 1:
        return source.like(with_parts(source.b), with_parts(source.g), w)
    return product(with_parts, source, operands[places[1]], w)
