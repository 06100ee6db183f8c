"""Attention: out = A V with the weights A = softmax(Q Kᵀ / sqrt(d) + mask) held at those of the whole activation.

The values are in two parts, which the weights sum alike: b' = A V_b, g' = A V_g. Queries and keys act through A alone,
so that what they say is part of no score, as in LRP for transformers (Ali et al., 2022). R rows, L queries, S keys,
H heads. `nn.MultiheadAttention`, `F.multi_head_attention_forward` and `F.scaled_dot_product_attention` are here;
an attention written out is a softmax (`rules.held`) and a product with a constant.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from explainer.decomposition.fixed import Fixed, whole
from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.base import even
from explainer.decomposition.rules.linear import linear
from explainer.decomposition.split import Split, UnsupportedOp


@register_rule("scaled_dot_product_attention")
def scaled_dot_product_attention(
    rules, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    if dropout_p:
        raise UnsupportedOp(
            f"scaled_dot_product_attention has dropout_p={dropout_p:g} in evaluation mode, which draws anew at every "
            "call: give it 0 there"
        )
    q, k, mask = whole(query), whole(key), whole(attn_mask)
    if q.ndim < 3:
        raise UnsupportedOp(f"scaled_dot_product_attention over {tuple(q.shape)} mixes the rows of a batch: no rule")

    def attend(part):
        return F.scaled_dot_product_attention(q, k, part, mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)

    if not isinstance(value, Split):
        return Fixed(attend(value), rules, "softmax of an attention over constants")
    b, g = attend(value.b), attend(value.g)
    w = value.w.expand_as(value.b).mean((-2, -1), keepdim=True)  # of all keys
    if enable_gqa:
        w = w.repeat_interleave(b.shape[-3] // w.shape[-3], -3)
    return value.like(b, g, w)


@register_rule(nn.MultiheadAttention)
def multihead_attention(
    rules,
    module,
    query,
    key,
    value,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    average_attn_weights=True,
    is_causal=False,
):
    projections = (module.in_proj_weight, module.in_proj_bias, module.bias_k, module.bias_v, module.add_zero_attn)
    separate = {}
    if not module._qkv_same_embed_dim:
        separate = {f"{name}_proj_weight": getattr(module, f"{name}_proj_weight") for name in "qkv"}
    turned = module.batch_first and query.ndim == 3
    y, weights = multi_head_attention_forward(
        rules,
        *(v.transpose(0, 1) if turned else v for v in (query, key, value)),
        module.embed_dim,
        module.num_heads,
        *projections,
        module.dropout,
        module.out_proj.weight,
        module.out_proj.bias,
        training=module.training,
        key_padding_mask=key_padding_mask,
        need_weights=need_weights,
        attn_mask=attn_mask,
        use_separate_proj_weight=bool(separate),
        average_attn_weights=average_attn_weights,
        is_causal=is_causal,
        **separate,
    )
    return (y.transpose(0, 1) if turned else y), weights


@register_rule("multi_head_attention_forward")
def multi_head_attention_forward(
    rules,
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
):
    """Queries (L,R,E), keys and values (S,R,E): ((L,R,E), the weights (R,L,S) or (R,H,L,S), or None)."""
    if query.ndim != 3 or static_k is not None or static_v is not None or (training and dropout_p):
        raise UnsupportedOp(
            f"attention over {tuple(query.shape)}, with static keys or with dropout in evaluation mode, has no rule: "
            "give it a batch, (rows, steps, width), and training=False"
        )
    matrices = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight.chunk(3)
    constants = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    if is_causal and key_padding_mask is None and not need_weights:  # else the mask says it
        attn_mask = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device).triu(1)
    q, k = (F.linear(whole(x).transpose(0, 1), W, c) for x, W, c in zip((query, key), matrices, constants))
    v = _linear(rules, value.transpose(0, 1), matrices[2], constants[2])
    mask = _mask(whole(attn_mask), whole(key_padding_mask), q, num_heads)
    if bias_k is not None:
        k, v, mask = _one_more(rules, k, v, mask, bias_k, bias_v)
    if add_zero_attn:
        k, v, mask = _one_more(rules, k, v, mask, torch.zeros_like(k[:1, :1]), torch.zeros_like(k[:1, :1]))
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (R,H,·,d)
    if need_weights:
        scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        b, g = (weights @ part for part in _pair(v))
        weights = Fixed(weights.mean(1) if average_attn_weights else weights, rules, "softmax of an attention")
    else:
        weights = None
        b, g = (F.scaled_dot_product_attention(q, k, part, mask) for part in _pair(v))
    return _projected(rules, v, b, g, out_proj_weight, out_proj_bias), weights


def _linear(rules, x, weight, bias):
    return linear(rules, x, weight, bias) if isinstance(x, Split) else F.linear(x, weight, bias)


def _pair(v):
    """The parts of the values; of constants, themselves and nothing."""
    return (v.b, v.g) if isinstance(v, Split) else (v, v[..., :0])


def _mask(attn_mask, padding, q, H):
    """Both masks, (L,S) or (R H,L,S) and (R,S), as one that is added to the scores (R,H,L,S), or None."""
    mask = _added(attn_mask, q)
    if mask is not None:
        mask = mask.unflatten(0, (-1, H)) if mask.ndim == 3 else mask[None, None]
    padding = _added(padding, q)
    if padding is None:
        return mask
    padding = padding[:, None, None]
    return padding if mask is None else mask + padding


def _added(mask, q):
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(mask, -torch.inf)


def _one_more(rules, k, v, mask, key, value):
    """One more key and value (1,1,E) for every row, which no mask hides; a value is a constant, and shared out so."""
    R = len(k)
    k, value = torch.cat([k, key.expand(R, 1, -1)], 1), value.expand(R, 1, -1)
    if isinstance(v, Split):
        zero = torch.zeros_like(value)
        w = even(v.w.expand_as(v.b))
        own = rules.bias(v.like(zero, zero, w), value)
        parts = ((v.b, own.b), (v.g, own.g), (v.w.expand_as(v.b), w.expand_as(value)))
        v = v.like(*(torch.cat(pair, 1) for pair in parts))
    else:
        v = torch.cat([v, value], 1)
    return k, v, mask if mask is None else F.pad(mask, (0, 1))


def _projected(rules, v, b, g, weight, bias):
    """What the heads give, (R,H,L,d), put together and projected, as (L,R,E)."""
    b, g = (part.transpose(1, 2).flatten(2).transpose(0, 1) for part in (b, g))
    if not isinstance(v, Split):
        return Fixed(F.linear(b, weight, bias), rules, "softmax of an attention over constants")
    w = even(v.w.expand_as(v.b)).reshape(1, -1, 1)
    return linear(rules, v.like(b, g, w), weight, bias)
