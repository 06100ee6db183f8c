"""Operations of contextual decomposition, one by one: sums, end points, gradients, and what an equal network gives."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from explainer.decomposition import UnsupportedOp, cd, cd_text

T, D = 4, 6


class Between(nn.Module):
    """An operation between two layers. function(h, m): of activations (R,T,D) and this module with its constants."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.first, self.last = function, nn.Linear(D, D), None
        self.square, self.rows, self.rms = (
            nn.Parameter(torch.randn(D, D)),
            nn.Parameter(torch.randn(T, D)),
            nn.RMSNorm(D),
        )
        nn.init.normal_(self.rms.weight)
        self.double()

    def forward(self, x):
        y = self.function(2 * self.first(x), self).flatten(1)
        weight = torch.linspace(-1, 2, 3 * y.shape[1]).reshape(3, -1).double().cos()
        return F.linear(y, weight, torch.ones(3).double())


def found(function, seed=0):
    torch.manual_seed(seed)
    model, x = Between(function), torch.randn(2, T, D).double()
    x[:, 1] = 0
    masks = (torch.rand(8, T, D) > torch.rand(8, 1, 1))[None].repeat(2, 1, 1, 1)
    masks[:, 0], masks[:, 1] = True, False
    return model, x, masks


GRID = torch.linspace(-1, 1, 12).reshape(1, 2, 3, 2).double()
OPERATIONS = {
    "einsum with a constant": lambda h, m: torch.einsum("btd,de->bte", h, m.square),
    "einsum, the constant first": lambda h, m: torch.einsum("de,...d->...e", m.square, h),
    "einsum of two": lambda h, m: torch.einsum("btd,bsd->bts", h, h.tanh()),
    "einsum in a list": lambda h, m: torch.einsum("btd,td->bt", [h, m.rows]),
    "addmm": lambda h, m: torch.addmm(m.rows[0], h[:, 0], m.square, beta=0.5, alpha=2),
    "addmm of activations": lambda h, m: torch.addmm(h[:, 1], h[:, 0], m.square),
    "baddbmm": lambda h, m: torch.baddbmm(m.rows[:, :T].expand(len(h), -1, -1), h, h.transpose(1, 2)),
    "bmm": lambda h, m: torch.bmm(h, h.mT),
    "a constant times it": lambda h, m: m.square[:, :T] @ h,
    "times a vector": lambda h, m: h @ m.square[0],
    "a vector times it": lambda h, m: m.rows[:, 0] @ h,
    "addcmul": lambda h, m: torch.addcmul(h, h, m.rows, value=2),
    "lerp": lambda h, m: torch.lerp(h, m.rows, 0.3),
    "where between activations": lambda h, m: torch.where(m.rows > 0, h, h * h),
    "where and a constant": lambda h, m: h.where(m.rows > 0, m.rows),
    "where by the activation": lambda h, m: torch.where(h > 0.1, h, m.rows),
    "filled by the activation": lambda h, m: h.masked_fill(h < 0, 3.0),
    "counted": lambda h, m: (h * (h > 0)).sum(1) / (h > 0).sum(1).clamp(min=1),
    "filled and weighed": lambda h, m: h * h.masked_fill(m.rows > m.rows.mean(0), -torch.inf).softmax(1),
    "RMSNorm": lambda h, m: m.rms(h),
    "normalize": lambda h, m: F.normalize(h, dim=-1),
    "over its norm": lambda h, m: h / torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp(min=1e-6),
    "amax": lambda h, m: h.amax(1),
    "amax over two": lambda h, m: h.amax((1, -1), keepdim=True),
    "amin over two": lambda h, m: h.amin((2, 1), keepdim=True),
    "max, its values": lambda h, m: h.max(dim=1).values,
    "min, its values": lambda h, m: h.min(1, keepdim=True)[0],
    "max, its places": lambda h, m: (h * h).gather(1, h.max(1, keepdim=True).indices),
    "maximum with a constant": lambda h, m: torch.maximum(h, m.rows),
    "minimum": lambda h, m: torch.minimum(h, h * h),
    "gelu": lambda h, m: F.gelu(h, approximate="tanh"),
    "silu, mish": lambda h, m: F.silu(h) + F.mish(h),
    "quick gelu": lambda h, m: h * torch.sigmoid(1.702 * h),
    "sine": lambda h, m: torch.sin(h) + torch.cos(h) + torch.erf(h),
    "clamp from below": lambda h, m: h.clamp(min=0.1),
    "clamp from above": lambda h, m: torch.clamp(h, max=0.1),
    "clamp between": lambda h, m: h.clamp_(0.1, 0.3),
    "clamp by tensors": lambda h, m: h.clamp(m.rows - 1, m.rows + 1),
    "threshold": lambda h, m: nn.Threshold(0.1, 20.0)(h),
    "cumsum": lambda h, m: h.cumsum(1) + m.rows,
    "roll": lambda h, m: torch.roll(h, (1, -2), (1, 2)),
    "flip": lambda h, m: h.flip(1, 2),
    "gather": lambda h, m: h.gather(1, torch.zeros(len(h), 2, D, dtype=torch.long)),
    "index_select": lambda h, m: h.index_select(1, torch.tensor([2, 0, 2])),
    "repeats": lambda h, m: h.repeat_interleave(2, 1).tile(1, 2, 1).repeat(1, 1, 2),
    "expand": lambda h, m: h[:, :1].expand(-1, 3, -1) + h[:, :1].expand_as(h)[:, :3],
    "windows": lambda h, m: h.unfold(1, 2, 1),
    "unfold and fold": lambda h, m: F.fold(F.unfold(h.unsqueeze(1), 2), (T, D), 2),
    "pixels": lambda h, m: F.pixel_unshuffle(F.pixel_shuffle(h.reshape(len(h), 4, 2, 3), 2), 2),
    "nearest": lambda h, m: nn.Upsample(scale_factor=2)(h),
    "bilinear": lambda h, m: F.interpolate(h[:, None], size=(3, 9), mode="bilinear", align_corners=True),
    "bicubic": lambda h, m: F.interpolate(h[:, None], scale_factor=2, mode="bicubic"),
    "sampled": lambda h, m: F.grid_sample(h[:, None], GRID.expand(len(h), -1, -1, -1), align_corners=False),
    "rearranged": lambda h, m: h.unflatten(1, (2, 2)).permute(0, 2, 1, 3).flatten(1, 2).view(len(h), 3, 8).mT,
    "lower triangle": lambda h, m: h.tril(),
    "a constant beside it": lambda h, m: torch.cat([m.rows.expand(len(h), -1, -1), h], 1) @ m.square,
    "nothing beside it": lambda h, m: torch.cat([h.new_zeros(0), h], 1) @ m.square,
    "a maximum of what is held": lambda h, m: h * h.softmax(1).max(1, keepdim=True)[0] + h.amax(1, keepdim=True),
    "constants stacked": lambda h, m: torch.stack([m.rows.expand(len(h), -1, -1), h], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_parts_sum_to_the_output_and_end_points_are_exact(name):
    model, x, masks = found(OPERATIONS[name])
    scores, expected = cd(model, x, masks, tol=1e-10), model(x)
    torch.testing.assert_close(scores.rel + scores.irrel, expected[:, None].expand_as(scores.rel))
    assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any()
    assert scores.rel[:, 2:].any() and scores.irrel[:, 2:].any()
    scores.rel.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


EQUAL = {
    "einsum": (OPERATIONS["einsum with a constant"], lambda h, m: h @ m.square),
    "einsum of two": (OPERATIONS["einsum of two"], lambda h, m: torch.stack(
        [torch.stack([(h[:, t] * h[:, s].tanh()).sum(-1) for s in range(T)], 1) for t in range(T)], 1
    )),
    "addmm": (OPERATIONS["addmm"], lambda h, m: F.linear(h[:, 0] * 2, m.square.T, m.rows[0] * 0.5)),
    "bmm": (OPERATIONS["bmm"], lambda h, m: torch.stack(
        [torch.stack([(h[:, t] * h[:, s]).sum(-1) for s in range(T)], 1) for t in range(T)], 1
    )),
    "where": (OPERATIONS["where between activations"], lambda h, m: h * (m.rows > 0) + h * h * (m.rows <= 0)),
    "where by the activation": (lambda h, m: torch.where(h > 0, h, 0 * h), lambda h, m: h * (h > 0)),
    "amax": (OPERATIONS["amax over two"], lambda h, m: F.max_pool2d(h[:, None], (T, D))),
    "amin": (OPERATIONS["amin over two"], lambda h, m: -((-h).flatten(1).max(1, keepdim=True)[0])),
    "RMSNorm": (
        OPERATIONS["RMSNorm"],
        lambda h, m: h * torch.rsqrt(h.square().mean(-1, keepdim=True) + torch.finfo(h.dtype).eps) * m.rms.weight,
    ),
    "LayerNorm written out": (
        lambda h, m: F.layer_norm(h, (D,)),
        lambda h, m: (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt(),
    ),
    "normalize": (OPERATIONS["normalize"], lambda h, m: h / h.norm(dim=-1, keepdim=True)),
    "clamp from below": (lambda h, m: h.clamp(min=0), lambda h, m: F.relu(h)),
    "maximum with a constant": (lambda h, m: torch.maximum(h, torch.zeros_like(m.rows)), lambda h, m: h * (h > 0)),
    "unfold": (lambda h, m: h.unfold(1, 2, 1), lambda h, m: torch.stack([h[:, :-1], h[:, 1:]], -1)),
    "cumsum": (lambda h, m: h.cumsum(1), lambda h, m: torch.ones(T, T).tril().double() @ h),
    "lerp": (OPERATIONS["lerp"], lambda h, m: h * 0.7 + m.rows * 0.3),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_an_operation_is_the_same_network_in_other_operations(name):
    one, other = EQUAL[name]
    model, x, masks = found(one)
    scores = cd(model, x, masks)
    model.function = other
    torch.testing.assert_close(model(x)[:, None].expand_as(scores.rel), scores.rel + scores.irrel)
    torch.testing.assert_close(scores.rel, cd(model, x, masks).rel)


REFUSED = {
    "no rule for prod": lambda h, m: h.prod(1),
    "std has a rule only where its result scales": lambda h, m: h.std(1),
    "var has a rule only": lambda h, m: h + h.var(1, keepdim=True),
    "norm has a rule only": lambda h, m: h.norm(dim=-1),
    "norm over all dimensions mixes the rows": lambda h, m: h / h.norm(2),
    "gt has a rule only": lambda h, m: (h > 0).double(),
    "roll without dims mixes the rows": lambda h, m: h.roll(1),
    "amax over all dimensions mixes the rows": lambda h, m: h * h.amax(),
    "a dropout of 0.5 in evaluation mode draws anew": lambda h, m: F.dropout(h, 0.5),
    "dropout of 0.3 in evaluation mode": lambda h, m: F.dropout(h.softmax(-1), 0.3, True) @ h.mT,
    "clamp between activations": lambda h, m: h.clamp(max=h * h),
    "grid_sample with parameters that depend": lambda h, m: F.grid_sample(h[:, None], h[:, None, :, :2]),
    "lerp with a weight that is an activation": lambda h, m: torch.lerp(m.rows, h, h),
    "einsum of 3 activations": lambda h, m: torch.einsum("btd,btd,btd->btd", h, h, h),
    "no rule for cumprod": lambda h, m: h.cumprod(1),
    "a division by an activation": lambda h, m: h / h.exp().sum(-1, keepdim=True),
    "depends on its activations": lambda h, m: h if (h > 0).any() else -h,
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_has_no_rule_is_refused_in_a_line_that_names_it(said):
    model, x, masks = found(REFUSED[said])
    with pytest.raises(UnsupportedOp, match=said) as refused:
        cd(model, x, masks, check=False)
    assert "\n" not in str(refused.value)


class Bag(nn.Module):
    """Bags of tokens, as rows or with offsets, and a layer."""

    def __init__(self, mode, flat=False, weighted=False, **options):
        super().__init__()
        self.bag, self.fc = nn.EmbeddingBag(20, D, mode=mode, **options), nn.Linear(D, 3)
        self.flat, self.weights = flat, nn.Parameter(torch.rand(7)) if weighted else None

    def forward(self, ids):
        weights = None if self.weights is None else self.weights.expand(len(ids), -1)
        if not self.flat:
            return self.fc(self.bag(ids, per_sample_weights=weights))
        offsets = torch.arange(len(ids) + self.bag.include_last_offset) * ids.shape[1]
        return self.fc(self.bag(ids.flatten(), offsets, None if weights is None else weights.flatten()))


class Summed(nn.Module):
    """The same by an embedding and a sum, mean or maximum."""

    def __init__(self, model):
        super().__init__()
        bag = model.bag
        self.embedding = nn.Embedding(20, D, _weight=bag.weight)
        self.kind, self.padding, self.weights, self.fc = bag.mode, bag.padding_idx, model.weights, model.fc

    def forward(self, ids):
        x = self.embedding(ids)
        kept = (ids != (-1 if self.padding is None else self.padding))[:, :, None].to(x.dtype)
        if self.kind == "max":
            return self.fc(x.masked_fill(kept == 0, -1e9).amax(1))
        x = x * kept if self.weights is None else x * kept * self.weights[:, None]
        return self.fc(x.sum(1) if self.kind == "sum" else x.sum(1) / kept.sum(1))


BAGS = [
    ("sum", {}),
    ("mean", {"padding_idx": 0}),
    ("max", {"padding_idx": 3}),
    ("sum", {"weighted": True, "padding_idx": 0}),
]


@pytest.mark.parametrize(
    ("mode", "options", "flat"),
    [(*bag, flat) for bag in BAGS for flat in (False, True)] + [("mean", {"include_last_offset": True}, True)],
)
def test_embedding_bag_is_an_embedding_and_a_reduction(mode, options, flat):
    torch.manual_seed(0)
    model, ids, masks = Bag(mode, flat, **options).double(), torch.randint(0, 20, (3, 7)), torch.rand(3, 8, 7) > 0.5
    masks[:, 0], masks[:, 1] = True, False
    scores = cd_text(model, ids, masks)
    torch.testing.assert_close(scores.rel + scores.irrel, model(ids)[:, None].expand_as(scores.rel))
    assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any()
    torch.testing.assert_close(scores.rel, cd_text(Summed(model), ids, masks).rel)


class StepsFirst(nn.Module):
    """Its tokens are turned round before they are embedded."""

    def __init__(self):
        super().__init__()
        self.embedding, self.net, self.fc = nn.Embedding(20, D), nn.GRU(D, 5), nn.Linear(5, 2)

    def forward(self, ids):
        return self.fc(self.net(self.embedding(ids.T))[1][0])


def test_as_many_masks_as_tokens_do_not_turn_the_masks():
    torch.manual_seed(0)
    model, ids, masks = StepsFirst().double(), torch.randint(0, 20, (1, 7)), torch.eye(7)
    expected = torch.cat([cd_text(model, ids, mask[None]).rel for mask in masks], 1)
    torch.testing.assert_close(cd_text(model, ids, masks).rel, expected)


def test_the_mean_of_an_attention_with_equal_keys_is_the_mean():
    model, x, masks = found(lambda h, m: F.scaled_dot_product_attention(torch.zeros_like(m.rows).expand_as(h), h, h))
    scores = cd(model, x, masks)
    model.function = lambda h, m: h.mean(1, keepdim=True).expand_as(h)
    torch.testing.assert_close(scores.rel, cd(model, x, masks).rel)
    assert math.isfinite(float(scores.rel.sum()))
