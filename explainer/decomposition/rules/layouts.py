"""Operations that only move entries, or choose some by their position: they act on both parts alike."""

import torch

from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.base import even, joined
from explainer.decomposition.split import Split, UnsupportedOp


def _moved(function):
    def rule(rules, x, *args, **kwargs):
        if not isinstance(x, Split):
            raise UnsupportedOp(f"{function.__name__}: an index that depends on the input has no rule")
        return x.each(lambda part: function(part, *args, **kwargs))

    return rule


for _name in (
    "permute transpose swapaxes swapdims movedim moveaxis squeeze unsqueeze gather index_select narrow flip fliplr "
    "tile repeat expand broadcast_to repeat_interleave take_along_dim select diagonal rot90"
).split():
    register_rule(_name)(_moved(getattr(torch.Tensor, _name, None) or getattr(torch, _name)))


def _like_another(method):
    def rule(rules, x, other):
        other = other.b if isinstance(other, Split) else other
        return x.each(lambda part: method(part, other)) if isinstance(x, Split) else method(x, other)

    return rule


for _name, _method in {"expand_as": "expand_as", "view_as": "reshape_as", "reshape_as": "reshape_as"}.items():
    register_rule(_name)(_like_another(getattr(torch.Tensor, _method)))


def _triangle(function):
    return lambda rules, x, diagonal=0: x.like(function(x.b, diagonal), function(x.g, diagonal))


@register_rule("roll")
def roll(rules, x, shifts, dims=None):
    if dims is None or dims == ():
        raise UnsupportedOp("roll without dims mixes the rows of a batch: give it dims")
    return x.each(lambda part: part.roll(shifts, dims))


@register_rule("unfold")
def unfold(rules, x, dimension, size, step):
    """Windows along a dimension; `F.unfold` is "im2col"."""
    return x.each(lambda part: part.unfold(dimension, size, step))


@register_rule("cumsum")
def cumsum(rules, x, dim, dtype=None):
    """The share of an entry is the mean up to it."""
    count = torch.ones_like(x.b).cumsum(dim)
    return x.like(x.b.cumsum(dim, dtype=dtype), x.g.cumsum(dim, dtype=dtype), x.w.expand_as(x.b).cumsum(dim) / count)


for _name in ("tril", "triu"):
    register_rule(_name)(_triangle(getattr(torch, _name)))


def _shaped(name):
    method = getattr(torch.Tensor, "reshape" if name == "view" else name)

    def rule(rules, x, *args, **kwargs):
        if any(isinstance(v, torch.dtype) for v in (*args, *kwargs.values())):
            raise UnsupportedOp(f"{name} with a dtype has no rule: it reads the bits as other numbers")
        b, g = method(x.b, *args, **kwargs), method(x.g, *args, **kwargs)
        if even(x.w) is x.w and b.ndim and len(b) == len(x.b):  # one value for each row, which stays a row
            return x.like(b, g, x.w.reshape(-1, *[1] * (b.ndim - 1)))
        return x.like(b, g, method(x.w.expand_as(x.b), *args, **kwargs))

    return rule


for _name in ("flatten", "reshape", "view", "unflatten", "ravel"):
    register_rule(_name)(_shaped(_name))


@register_rule("contiguous", "clone", "requires_grad_", "cpu", "cuda")
def same(rules, x, *args, **kwargs):
    return x.like(x.b, x.g)


@register_rule("detach")
def detach(rules, x):
    return x.like(x.b.detach(), x.g.detach())


@register_rule("to", "type_as")
def to(rules, x, *args, **kwargs):
    args = [value.b if isinstance(value, Split) else value for value in args]
    if not isinstance(x, Split):
        return x.to(*args, **kwargs)
    y = x.like(x.b.to(*args, **kwargs), x.g.to(*args, **kwargs))
    if not y.b.is_floating_point():
        raise UnsupportedOp(f"an activation as {y.dtype} has no rule: it rounds; leave it in floating point")
    return y


def _as(kind):
    return lambda rules, x: x.like(x.b.to(kind), x.g.to(kind))


for _name in ("float", "double", "half", "bfloat16"):
    register_rule(_name)(_as(getattr(torch, _name)))


def _constant(function):
    return lambda rules, x, *args, **kwargs: function(x.b, *args, **kwargs)


for _name in ("new_zeros", "new_ones", "new_full", "new_tensor"):  # they know of x its kind alone
    register_rule(_name)(_constant(getattr(torch.Tensor, _name)))
for _name in ("zeros_like", "ones_like", "full_like"):
    register_rule(_name)(_constant(getattr(torch, _name)))


@register_rule("__getitem__")
def getitem(rules, x, index):
    return x.each(lambda part: part[index])


@register_rule("masked_fill")
def masked_fill(rules, x, mask, value):
    """What is filled in is a constant; only 0 is nothing."""
    y = x.like(x.b.masked_fill(mask, 0.0), x.g.masked_fill(mask, 0.0))
    return y if value == 0 else joined(rules, y, torch.zeros_like(y.b).masked_fill(mask, value))


@register_rule("pad")
def pad(rules, x, pad, mode="constant", value=None):
    function, zero = torch.nn.functional.pad, 0.0 if mode == "constant" else None
    y = x.like(function(x.b, pad, mode, zero), function(x.g, pad, mode, zero), even(x.w))
    if mode != "constant" or not value:
        return y
    return rules.bias(y, function(torch.zeros_like(x.b[:1]), pad, mode, value))


def _pieces(method):
    def rule(rules, x, *args, **kwargs):
        parts = (method(part, *args, **kwargs) for part in (x.b, x.g, x.w.expand_as(x.b)))
        return tuple(x.like(b, g, w) for b, g, w in zip(*parts))

    return rule


for _name in ("chunk", "split", "split_with_sizes", "unbind", "tensor_split"):
    register_rule(_name)(_pieces(getattr(torch.Tensor, _name)))


@register_rule("_pack_padded_sequence")
def pack(rules, x, lengths, batch_first):
    packed = [torch._VF._pack_padded_sequence(part, lengths, batch_first) for part in (x.b, x.g, x.w.expand_as(x.b))]
    return x.like(*(data for data, _ in packed)), packed[0][1]


@register_rule("_pad_packed_sequence")
def unpack(rules, data, sizes, batch_first, padding, length):
    """Beyond a row's length there is the padding, a constant, with the mean share of the row."""
    parts = (data.b, data.g, data.w.expand_as(data.b), torch.ones_like(data.b))
    padded = [torch._VF._pad_packed_sequence(part, sizes, batch_first, 0.0, length) for part in parts]
    (b, lengths), (g, _), (w, _), (valid, _) = padded
    dims = tuple(d for d in range(b.ndim) if d != (0 if batch_first else 1))
    row = w.sum(dims, keepdim=True) / valid.sum(dims, keepdim=True)
    y = data.like(b, g, torch.where(valid > 0, w, row))
    return (y if padding == 0 else joined(rules, y, (1 - valid) * padding)), lengths
