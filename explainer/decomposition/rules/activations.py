"""Activations: one argument, applied to every entry."""

import torch
import torch.nn.functional as F

from explainer.decomposition.registry import register_rule
from explainer.decomposition.split import Split, UnsupportedOp


def shapley(rules, x, f):
    """The mean over both orders of what each part adds: b' = (f(b) - f(0) + f(b+g) - f(g)) / 2; f(0) is shared out."""
    fb, fg, whole = f(x.b), f(x.g), f(x.total)
    if not f(torch.zeros_like(x.b[:1])).any():
        return x.like((fb + (whole - fg)) / 2, (fg + (whole - fb)) / 2)
    zero = f(torch.zeros_like(x.b))  # of the same shape: equal entries have equal results to the last bit
    y = x.like(((fb - zero) + (whole - fg)) / 2, ((fg - zero) + (whole - fb)) / 2)
    return rules.bias(y, zero)


def first(rules, x, f):
    """f(b) is relevant, what g changes is not: b' = f(b), g' = f(b+g) - f(b), for f(0) = 0; the order matters."""
    if rules.relu == "shapley":
        return shapley(rules, x, f)
    b, whole = f(x.b), f(x.total)
    return x.like(b, whole - b if torch.is_grad_enabled() else whole.sub_(b))


def _rule(form, function):
    def rule(rules, x, *args, **kwargs):
        kwargs.pop("inplace", None)
        return form(rules, x, lambda part: function(part, *args, **kwargs))

    return rule


LIKE_RELU = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish hardswish prelu softsign hardshrink softshrink"  # f(0) = 0
)
MEAN_OF_ORDERS = (
    *(torch.tanh, torch.sigmoid, torch.exp, torch.abs, F.softplus, F.hardsigmoid, F.logsigmoid, F.tanhshrink),
    *(torch.sin, torch.cos, torch.atan, torch.erf, torch.expm1, torch.sinh, torch.cosh, torch.asinh),
)
for _name in LIKE_RELU.split():
    register_rule(_name)(_rule(first, getattr(F, _name)))
for _function in MEAN_OF_ORDERS:
    register_rule(_function)(_rule(shapley, _function))


@register_rule("rrelu")
def rrelu(rules, x, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    if training:
        raise UnsupportedOp("rrelu has training=True in evaluation mode, which draws anew: give it self.training")
    return first(rules, x, lambda part: F.leaky_relu(part, (lower + upper) / 2))


@register_rule("hardtanh")
def hardtanh(rules, x, min_val=-1.0, max_val=1.0, inplace=False):
    return clamp(rules, x, min_val, max_val)


@register_rule("clamp", "clip")
def clamp(rules, x, min=None, max=None):
    """With numbers around 0 as ReLU; else, and between tensors, the mean over both orders."""
    if isinstance(min, Split) or isinstance(max, Split):
        raise UnsupportedOp("clamp between activations has no rule: write it with torch.maximum and torch.minimum")
    numbers = not isinstance(min, torch.Tensor) and not isinstance(max, torch.Tensor)
    keeps_zero = numbers and (min is None or min <= 0) and (max is None or max >= 0)
    return (first if keeps_zero else shapley)(rules, x, lambda part: part.clamp(min, max))


@register_rule("clamp_min")
def clamp_min(rules, x, min):
    return clamp(rules, x, min=min)


@register_rule("clamp_max")
def clamp_max(rules, x, max):
    return clamp(rules, x, max=max)


@register_rule("threshold", "_threshold")
def threshold(rules, x, threshold, value, inplace=False):
    if threshold == value and value <= 0:
        return clamp(rules, x, min=value)
    return shapley(rules, x, lambda part: F.threshold(part, threshold, value))


@register_rule("glu")
def glu(rules, x, dim=-1):
    """The gate is that of the whole activation, as an LSTM's output gate."""
    (b, _), (g, gate_b) = x.b.chunk(2, dim), (x.g.chunk(2, dim)[0], x.total.chunk(2, dim)[1])
    gate = gate_b.sigmoid()
    return x.like(b * gate, g * gate, x.w.expand_as(x.b).chunk(2, dim)[0])


@register_rule(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"
)
def dropout(rules, x, p=0.5, training=False, inplace=False, train=False):
    if (training or train) and p > 0:
        raise UnsupportedOp(f"a dropout of {p:g} in evaluation mode draws anew at every call: give it training=False")
    return x
