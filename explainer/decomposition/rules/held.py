"""Operations whose results are held at the whole activation's: softmax, norms, deviations, square roots, comparisons.

None of them has parts that sum to it. As factors, divisors, weights and conditions of activations they are constants
(`Fixed`): attention keeps its weights, x / sd its sd as LayerNorm does, where(x > 0, ...) the entries that it picks.
"""

import torch
import torch.nn.functional as F

from explainer.decomposition.fixed import Fixed, whole
from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.base import joined
from explainer.decomposition.split import Split, UnsupportedOp

SOFTMAXES = torch.softmax, F.softmin
SCALES = torch.sqrt, torch.rsqrt, torch.norm, torch.std, torch.var, torch.linalg.norm, torch.linalg.vector_norm
COMPARISONS = torch.gt, torch.lt, torch.ge, torch.le, torch.eq, torch.ne
CONDITIONS = torch.isnan, torch.isfinite, torch.isinf, torch.sign


def _held(function, name):
    def rule(rules, *args, **kwargs):
        args, kwargs = [whole(v) for v in args], {k: whole(v) for k, v in kwargs.items()}
        found = function(*args, **kwargs)
        if args[0].ndim and not found.ndim:
            raise UnsupportedOp(f"{name} over all dimensions mixes the rows of a batch: give it the others")
        return Fixed(found, rules, name)

    return rule


for _function in (*SOFTMAXES, *SCALES, *COMPARISONS, *CONDITIONS):
    register_rule(_function)(_held(_function, _function.__name__))


@register_rule("softmax")
def softmax(rules, x, dim=None, _stacklevel=3, dtype=None, **kwargs):
    if isinstance(_stacklevel, torch.dtype):  # torch.softmax(x, dim, dtype)
        dtype = _stacklevel
    return Fixed(F.softmax(whole(x), dim, dtype=dtype), rules, "softmax")


@register_rule("gumbel_softmax")
def gumbel_softmax(rules, x, *args, **kwargs):
    raise UnsupportedOp("gumbel_softmax draws anew at every call: give the model a softmax in its place")


@register_rule("log_softmax")
def log_softmax(rules, x, *args, **kwargs):
    raise UnsupportedOp(
        "the model applies log_softmax: contextual decomposition explains logits; give the model without its softmax"
    )


@register_rule("normalize")
def normalize(rules, x, p=2.0, dim=1, eps=1e-12, out=None):
    """x / max(norm, eps), the norm that of b + g."""
    norm = x.total.norm(p, dim, keepdim=True).clamp_min(eps)
    return x.like(x.b / norm, x.g / norm)


@register_rule("rms_norm")
def rms_norm(rules, x, normalized_shape, weight=None, eps=None):
    """x / sqrt(mean(x²) + eps), the mean that of b + g."""
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scale = (x.total.square().mean(dims, keepdim=True) + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return x.like(x.b * scale, x.g * scale)


@register_rule("where")
def where(rules, condition, x=None, y=None, *, input=None, other=None):
    """The parts of what the condition picks; what it picks of a constant is shared out as a constant."""
    x, y = (x if input is None else input), (y if other is None else other)
    if isinstance(condition, Split) and isinstance(x, torch.Tensor) and x.dtype == torch.bool:  # x.where(condition, y)
        condition, x = x, condition
    if isinstance(condition, Split) or not any(isinstance(v, Split) for v in (x, y)):
        raise UnsupportedOp("where with a condition that is an activation has no rule: compare it, as in x > 0")
    some = x if isinstance(x, Split) else y
    like = {"dtype": some.dtype, "device": some.device}
    zero = torch.zeros((), **like)
    parts = []
    for name in ("b", "g", "w"):
        own = [
            getattr(v, name) if isinstance(v, Split) else getattr(some, name) if name == "w" else zero for v in (x, y)
        ]
        parts.append(torch.where(condition, *own))
    shape = parts[0].shape
    z = some.like(parts[0], parts[1], parts[2].expand(shape))
    if isinstance(x, Split) and isinstance(y, Split):
        return z
    constant = torch.where(condition, *(zero if isinstance(v, Split) else torch.as_tensor(v, **like) for v in (x, y)))
    return joined(rules, z, constant.expand(shape))
