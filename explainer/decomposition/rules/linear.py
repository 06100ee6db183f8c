"""Linear maps: u = W b and v = W g, and a bias shared out in proportion to |u| and |v|."""

import torch
import torch.nn.functional as F
from torchvision.transforms import Normalize, v2

from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.base import even, mixed, plain, stacked
from explainer.decomposition.split import UnsupportedOp


def _only_activation(name, *parameters):
    if not plain(*parameters):
        raise UnsupportedOp(f"{name} with parameters that depend on the input has no rule: add one by register_rule")


@register_rule("linear")
def linear(rules, x, weight, bias=None):
    _only_activation("linear", weight, bias)
    b, g = stacked(x, lambda part: F.linear(part, weight))
    y = x.like(b, g, x.w if x.w.shape[-1] == 1 else x.w.mean(-1, keepdim=True))
    return y if bias is None else rules.bias(y, bias, True)


def _convolution(function):
    def rule(rules, x, weight, bias=None, *args, **kwargs):
        _only_activation(function.__name__, weight, bias)
        b, g = stacked(x, lambda part: function(part, weight, None, *args, **kwargs))
        y = x.like(b, g, even(x.w))
        return y if bias is None else rules.bias(y, bias.reshape(-1, *[1] * (b.ndim - 2)), True)

    return rule


for _function in (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d):
    register_rule(_function)(_convolution(_function))


@register_rule(Normalize, v2.Normalize)
def normalize(rules, module, x):
    """The first layer of many models: (x - mean) / std for each channel."""
    like = {"dtype": x.dtype, "device": x.device}
    mean, std = (torch.tensor(values, **like)[:, None, None] for values in (module.mean, module.std))
    return rules.bias(x.like(x.b / std, x.g / std), -mean / std, True)


@register_rule("batch_norm")
def batch_norm(rules, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """y = a x + c with the running statistics: a affine map for each channel."""
    if training or running_mean is None:
        raise UnsupportedOp("batch_norm without running statistics has no rule: it mixes the rows of a batch")
    shape = (-1, *[1] * (x.ndim - 2))
    a = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    c = (0 if bias is None else bias) - a * running_mean
    a = a.reshape(shape)
    return rules.bias(x.like(x.b * a, x.g * a), c.reshape(shape), True)


def _standardized(rules, x, dims, weight, bias, eps):
    """(x - mean) / sd, the statistics those of b + g, taken as constants: both parts centred and scaled alike."""
    sd = (x.total.var(dims, unbiased=False, keepdim=True) + eps).sqrt()
    b, g = ((part - part.mean(dims, keepdim=True)) / sd for part in (x.b, x.g))
    y = x.like(b if weight is None else b * weight, g if weight is None else g * weight)
    return y if bias is None else rules.bias(y, bias, True)


@register_rule("layer_norm")
def layer_norm(rules, x, normalized_shape, weight=None, bias=None, eps=1e-5):
    return _standardized(rules, x, tuple(range(-len(normalized_shape), 0)), weight, bias, eps)


@register_rule("group_norm")
def group_norm(rules, x, num_groups, weight=None, bias=None, eps=1e-5):
    grouped = x.like(*(part.unflatten(1, (num_groups, -1)) for part in (x.b, x.g)), even(x.w).unsqueeze(1))
    y = _standardized(rules, grouped, tuple(range(2, grouped.ndim)), None, None, eps)
    shape = (-1, *[1] * (x.ndim - 2))
    weight, bias = (None if p is None else p.reshape(shape) for p in (weight, bias))
    b, g = y.b.flatten(1, 2), y.g.flatten(1, 2)
    y = x.like(b if weight is None else b * weight, g if weight is None else g * weight, even(x.w))
    return y if bias is None else rules.bias(y, bias, True)


@register_rule("instance_norm")
def instance_norm(
    rules, x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    if not use_input_stats:
        return batch_norm(rules, x, running_mean, running_var, weight, bias, False, momentum, eps)
    return group_norm(rules, x, x.shape[1], weight, bias, eps)


def _mixes(function):
    def rule(rules, x, *args, **kwargs):
        return mixed(x, lambda part: function(part, *args, **kwargs))

    return rule


AVERAGES = F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d
for _function in (
    *AVERAGES, F.interpolate, F.pixel_shuffle, F.pixel_unshuffle, torch.channel_shuffle, F.unfold, F.fold
):  # fmt: skip
    register_rule(_function)(_mixes(_function))


@register_rule("grid_sample")
def grid_sample(rules, x, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    _only_activation("grid_sample", grid)
    return mixed(x, lambda part: F.grid_sample(part, torch.cat([grid, grid]), mode, padding_mode, align_corners))
