"""Contextual decomposition of attention: weights held fixed, values split; sums, end points, and linear equals."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from explainer.decomposition import UnsupportedOp, cd, cd_layers

ROWS, STEPS, WIDTH = 2, 5, 8


def data(shape=(STEPS, WIDTH), Q=12, dtype=torch.float64):
    torch.manual_seed(1)
    x, masks = torch.randn(ROWS, *shape, dtype=dtype), torch.rand(1, Q, *shape) > torch.rand(1, Q, *[1] * len(shape))
    masks[:, 0], masks[:, 1] = True, False
    return x, masks.expand(ROWS, *masks.shape[1:])


def check_ends(scores, expected, tolerance=1e-10):
    whole = expected[:, None].expand_as(scores.rel)
    torch.testing.assert_close(scores.rel + scores.irrel, whole, rtol=tolerance, atol=tolerance)
    assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any()
    assert scores.rel[:, 2:].any() and scores.irrel[:, 2:].any()


class Pooled(nn.Module):
    """Logits of what a module makes of the tokens, forward: a function of module and tokens (R,T,d)."""

    def __init__(self, module, forward, width=WIDTH):
        super().__init__()
        self.module, self.function, self.fc = module, forward, nn.Linear(width, 3)

    def forward(self, x):
        return self.fc(self.function(self.module, x).mean(1))


def lively(model):
    """The model in double precision, without the zeros that constants begin as."""
    for p in model.parameters():
        nn.init.normal_(p, 0, 0.3) if p.ndim == 1 else None
    return model.double()


CAUSAL = torch.ones(STEPS, STEPS).triu(1).bool()
FLOATS = torch.linspace(-1, 1, STEPS * STEPS).reshape(STEPS, STEPS).double()
PADDING = torch.tensor([False, False, True, False, True])
SEQUENCES = {  # options of nn.MultiheadAttention, and of its call
    "plain": ({}, {}),
    "no weights": ({}, {"need_weights": False}),
    "weights of each head": ({}, {"average_attn_weights": False}),
    "no constants": ({"bias": False}, {"need_weights": False}),
    "more keys": ({"add_bias_kv": True, "add_zero_attn": True}, {"need_weights": False}),
    "more keys, masked": ({"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": CAUSAL}),
    "dropout": ({"dropout": 0.5}, {"attn_mask": FLOATS}),
    "causal": ({}, {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
    "padding": ({}, {"padding": True, "need_weights": False}),
    "padding and mask": ({}, {"padding": True, "attn_mask": FLOATS}),
    "mask of each head": ({}, {"heads": True, "need_weights": False}),
}


def attend(module, x, batch_first=True, padding=False, heads=False, **call):
    if padding:
        mask = PADDING.expand(len(x), -1)
        call["key_padding_mask"] = (
            mask if "attn_mask" not in call else torch.zeros_like(x[..., 0]).masked_fill(mask, -2)
        )
    if heads:
        call["attn_mask"] = torch.stack([FLOATS, -FLOATS]).repeat(len(x), 1, 1)
    x = x if batch_first else x.transpose(0, 1)
    y = module(x, x, x, **call)[0]
    return y if batch_first else y.transpose(0, 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", SEQUENCES)
def test_multihead_attention(name, batch_first):
    torch.manual_seed(0)
    options, call = SEQUENCES[name]
    module = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first, **options)
    model, (x, masks) = lively(Pooled(module, lambda m, x: attend(m, x, batch_first, **call))), data()
    scores = cd(model, x, masks)
    check_ends(scores, model.eval()(x))
    scores.rel.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


class Linearized(nn.Module):
    """Self-attention with weights (N,H,T,T) that are constants: a linear network, one for each input."""

    def __init__(self, attention, weights):
        super().__init__()
        self.attention, self.weights = attention, weights

    def forward(self, x):
        own = self.attention
        v = F.linear(x, own.in_proj_weight[2 * WIDTH :], own.in_proj_bias[2 * WIDTH :])
        heads = v.unflatten(-1, (own.num_heads, -1)).transpose(1, 2)
        return own.out_proj((self.weights @ heads).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_is_the_linear_network_with_its_weights(need_weights):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    model, (x, masks) = lively(Pooled(attention, lambda m, x: m(x, x, x, need_weights=need_weights)[0])), data()
    scores = cd(model, x, masks)
    for n in range(ROWS):
        one = x[n : n + 1]
        weights = attention(one, one, one, average_attn_weights=False)[1].detach()
        linear = Pooled(Linearized(attention, weights), lambda m, x: m(x))
        linear.fc = model.fc
        torch.testing.assert_close(scores.rel[n], cd(linear, one, masks[n : n + 1]).rel[0])


def by_hand(attention, x):
    """The same attention written out."""
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k, v = (part.reshape(len(x), STEPS, 2, -1).permute(0, 2, 1, 3) for part in (q, k, v))
    scores = (q @ k.transpose(-2, -1) / math.sqrt(WIDTH / 2)).masked_fill(CAUSAL, -torch.inf)
    y = F.dropout(scores.softmax(-1), 0.5, False) @ v
    return attention.out_proj(y.transpose(1, 2).reshape(len(x), STEPS, WIDTH))


def by_einsum(attention, x):
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (2, -1)) for part in (q, k, v))
    scores = torch.einsum("blhd,bshd->bhls", q, k) * (WIDTH / 2) ** -0.5 + torch.zeros(STEPS, STEPS).masked_fill(
        CAUSAL, -torch.inf
    )
    return attention.out_proj(torch.einsum("bhls,bshd->blhd", F.softmax(scores, dim=-1), v).flatten(2))


def by_function(attention, x):
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attention.out_proj(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("forward", [by_hand, by_einsum, by_function])
def test_an_attention_written_out_is_the_module(forward):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    model, (x, masks) = lively(Pooled(attention, lambda m, x: m(x, x, x, attn_mask=CAUSAL)[0])), data()
    expected = cd(model, x, masks)
    model.function = forward
    scores = cd(model, x, masks)
    check_ends(scores, model(x))
    torch.testing.assert_close(scores.rel, expected.rel)


def grouped(m, x):
    q, kv = x.unflatten(-1, (4, 2)).transpose(1, 2), x.unflatten(-1, (4, 2)).transpose(1, 2)[:, :2]
    return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True, scale=0.3).transpose(1, 2).flatten(2)


def repeated(m, x):
    q, kv = x.unflatten(-1, (4, 2)).transpose(1, 2), x.unflatten(-1, (4, 2)).transpose(1, 2)[:, :2]
    kv = kv.repeat_interleave(2, 1)
    return F.scaled_dot_product_attention(q, kv, kv, scale=0.3).transpose(1, 2).flatten(2)


def test_groups_of_heads_are_repeated_heads():
    torch.manual_seed(0)
    model, (x, masks) = lively(Pooled(nn.Identity(), grouped)), data()
    scores = cd(model, x, masks)
    check_ends(scores, model(x))
    model.function = repeated
    torch.testing.assert_close(scores.rel, cd(model, x, masks).rel)


class Crossed(nn.Module):
    """Queries that are constants, of the input, or both, over keys and values of other widths."""

    def __init__(self, queries):
        super().__init__()
        self.kind, self.queries, self.fc = queries, nn.Parameter(torch.randn(1, 3, 8)), nn.Linear(8, 2)
        self.keys, self.values = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 4)
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)

    def forward(self, x):
        queries = {"constants": self.queries.expand(len(x), -1, -1), "input": x, "both": x[:, :3] + self.queries}
        return self.fc(self.attention(queries[self.kind], self.keys(x), self.values(x))[0].mean(1))


@pytest.mark.parametrize("queries", ["constants", "input", "both"])
def test_cross_attention(queries):
    torch.manual_seed(0)
    model, (x, masks) = lively(Crossed(queries)), data()
    check_ends(cd(model, x, masks), model.eval()(x))


USES = {
    "at the end": lambda m, x: x.softmax(-1),
    "in a sum": lambda m, x: x + x.softmax(-1),
    "in a layer": lambda m, x: m(x.softmax(-1)),
    "beside it": lambda m, x: torch.cat([x, x.softmax(-1)], 1),
    "in its place": lambda m, x: torch.where(x.detach() > 0, x, x.softmax(-1)),
    "filled in": lambda m, x: x.masked_fill(CAUSAL[:, :1], x.softmax(-1).sum()),
    "over constants": lambda m, x: F.scaled_dot_product_attention(x, x, torch.ones(len(x), STEPS, WIDTH).double()),
    "its entropy": lambda m, x: -(x.softmax(-1) * x.softmax(-1).log()),
}


@pytest.mark.parametrize("name", USES)
def test_a_softmax_that_weighs_nothing_is_refused(name):
    model, (x, masks) = lively(Pooled(nn.Linear(WIDTH, WIDTH), USES[name])), data()
    with pytest.raises(UnsupportedOp, match="other than to weigh activations: .* without its softmax") as refused:
        cd(model, x, masks, check=False)
    assert "\n" not in str(refused.value)


REFUSED = {
    "draws anew": lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
    "over .* mixes the rows": lambda m, x: F.scaled_dot_product_attention(x[:, 0], x[:, 0], x[:, 0])[:, None],
    "gumbel_softmax draws anew": lambda m, x: F.gumbel_softmax(x) * x,
    "log_softmax": lambda m, x: F.log_softmax(x, -1),
    "depends on its activations": lambda m, x: x if x.softmax(-1).max() > 0.5 else -x,
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_refused(said):
    model, (x, masks) = lively(Pooled(nn.Identity(), REFUSED[said])), data()
    with pytest.raises(UnsupportedOp, match=said):
        cd(model, x, masks)


def test_the_layers_of_an_attention_are_listed():
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    model, (x, masks) = lively(Pooled(attention, lambda m, x: m(x, x, x)[0])), data()
    nodes = cd_layers(model, x[0], masks[0, 2])
    assert [b.shape for _, b, _ in nodes][-1] == (3,)
    torch.testing.assert_close(nodes[-1][1] + nodes[-1][2], model.eval()(x[:1])[0])
