"""Options of operations, values of sorts, several inputs, outputs of other kinds: as models written without them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from explainer.decomposition import cd, gradient_times_input, occlusion
from models.CDEP.penalty import cdep_penalty, rrr_penalty


class Through(nn.Module):
    """A layer, a function of its output, and a layer."""

    def __init__(self, function, width):
        super().__init__()
        self.fc, self.out, self.function = nn.Linear(6, 8), nn.Linear(width, 3), function

    def forward(self, x):
        h = self.function(self.fc(x))
        return self.out(h.reshape(len(h), -1))


def exact(scores):
    assert (scores.rel + scores.irrel - scores.logits[:, None]).abs().max() < 1e-5
    assert not scores.irrel[:, -2].any() and not scores.rel[:, -1].any()


MASKS = torch.cat([torch.eye(6), torch.ones(1, 6), torch.zeros(1, 6)])


@pytest.mark.parametrize(
    ("function", "width"),
    [
        (lambda h: h.topk(3, 1).values, 3),
        (lambda h: h.sort(1, descending=True)[0], 8),
        (lambda h: h.kthvalue(2, 1).values, 1),
        (lambda h: h.median(1, keepdim=True).values, 1),
        (lambda h: h.max(1).values, 1),
        (lambda h: torch.aminmax(h, dim=1).max, 1),
        (lambda h: h.gather(1, h.argsort(1)[:, :2]), 2),
        (lambda h: h + torch.arange(16.0).reshape(2, 8).max(1).values.sum() + h.amax(1, keepdim=True), 8),
        (lambda h: F.threshold(h, 0.1, 0.3), 8),
        (lambda h: torch.sub(h, torch.ones(8), alpha=2), 8),
        (lambda h: h.sum(1, keepdim=True, dtype=torch.float32), 1),
        (lambda h: F.pad(h[:, None], (2, 1), mode="circular"), 11),
        (lambda h: F.pad(h, (2, 1), value=1.5), 11),
        (lambda h: F.avg_pool1d(h[:, None], 3, 2, 1, ceil_mode=True, count_include_pad=False), 5),
        (lambda h: F.leaky_relu(h, 0.3), 8),
        (lambda h: torch.cat([h, torch.ones(len(h), 2)], 1), 10),
        (lambda h: h.scatter(1, torch.zeros(len(h), 1, dtype=torch.long), 2.0), 8),
    ],
)
def test_options_and_values_of_sorts(function, width):
    torch.manual_seed(0)
    model, x = Through(function, width), torch.randn(4, 6)
    exact(cd(model, x, MASKS))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda h: F.dropout(h, 0.5), "dropout .*evaluation mode"),
        (lambda h: h - h.mean(), "over all dimensions mixes the rows of a batch"),
        (lambda h: h.to(torch.int32).float(), "an activation as torch.int32 has no rule"),
        (lambda h: h - h.median(), "median over all dimensions mixes the rows of a batch"),
    ],
)
def test_what_has_no_rule_is_named(function, said):
    with pytest.raises(ValueError, match=said):
        cd(Through(function, 8), torch.randn(4, 6), MASKS)


class Padded(nn.Module):
    """The mean over padded steps, of an LSTM."""

    def __init__(self, padding):
        super().__init__()
        self.lstm, self.fc, self.padding = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3), padding

    def forward(self, x, lengths=(5, 3)):
        lengths = torch.tensor(lengths).repeat_interleave(len(x) // 2)
        packed = self.lstm(pack_padded_sequence(x, lengths, True, False))[0]
        h = pad_packed_sequence(packed, True, padding_value=self.padding, total_length=6)[0]
        return self.fc(h).relu().mean(1)[:, :3]


def test_padding_of_packed_sequences():
    torch.manual_seed(0)
    masks = torch.tensor([[[1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]]).float()[..., None].expand(1, 3, 5, 2)
    exact(cd(Padded(-5.0), torch.randn(2, 5, 2), masks))


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


class Several(nn.Module):
    """Two inputs and a mask of integers; the output is of some kind."""

    def __init__(self, kind):
        super().__init__()
        self.fc, self.other, self.kind = nn.Linear(6, 3), nn.Linear(2, 3), kind

    def forward(self, x, extra=None, *, attention_mask=None):
        h = self.fc(x * attention_mask).relu() + self.other(extra)
        return self.kind(h)


KINDS = [
    (lambda h: Output(h, h), None),
    (lambda h: {"logits": h, "hidden": h}, None),
    (lambda h: (h * 2, h), lambda output: output[1]),
]


@pytest.mark.parametrize(("kind", "logits"), KINDS)
def test_several_inputs_and_other_outputs(kind, logits):
    torch.manual_seed(0)
    model, x, extra = Several(kind), torch.randn(4, 6), torch.randn(4, 2)
    kept = torch.randint(2, (4, 6))
    more = {"kwargs": {"attention_mask": kept}, "logits": logits}
    scores = cd(model, (x, extra), MASKS, max_batch=3, **more)
    exact(scores)
    by_name = cd(model, (x,), MASKS, kwargs={"extra": extra, "attention_mask": kept}, logits=logits)
    torch.testing.assert_close(by_name, scores)
    for i in range(4):
        alone = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
        alone[0].weight.data, alone[0].bias.data = model.fc.weight.data * kept[i], model.fc.bias.data
        assert torch.allclose(scores.logits[i], alone(x[i]) + model.other(extra[i]), atol=1e-5)
    fallen = occlusion(model, (x, extra), MASKS, **more)
    torch.testing.assert_close(fallen[:, -1], torch.zeros(4, 3))
    times = gradient_times_input(model, (x, extra), 1, **more)
    assert times.shape == x.shape and not times[kept == 0].any()
    assert cdep_penalty(model, (x, extra), MASKS[0], **more) > 0
    assert rrr_penalty(model, x, None, MASKS[0], kwargs={"extra": extra, **more["kwargs"]}, logits=logits) >= 0


def test_the_first_step_of_a_training_is_checked():
    class Drifting(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(())

    with pytest.raises(ValueError, match="differs from the model's output"):
        cdep_penalty(Drifting(6, 3), torch.randn(4, 6), MASKS[0])
    model, seen = Drifting(6, 3), []
    for _ in range(7):
        try:
            cdep_penalty(model, torch.randn(4, 6), MASKS[0], check=3)
            seen.append(False)
        except ValueError:
            seen.append(True)
    assert seen == [True, False, False, True, False, False, True]


def test_compiled_scripted_and_quantized_models():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 6)
    torch.testing.assert_close(cd(torch.compile(model), x, MASKS), cd(model, x, MASKS))
    with pytest.raises(ValueError, match="of TorchScript: give the torch.nn.Module behind it"):
        cd(torch.jit.trace(model, x), x, MASKS)


class Merging(nn.Linear):
    """Adapters that are part of the weight in evaluation mode alone."""

    def __init__(self):
        super().__init__(6, 3)
        self.A, self.B, self.merged = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(3, 2)), False

    def train(self, mode=True):
        if mode == self.merged:
            self.weight.data += (self.B @ self.A) * (-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return super().forward(x) + (0 if self.merged else x @ self.A.T @ self.B.T)


def test_modules_whose_train_does_more_than_set_a_flag():
    torch.manual_seed(0)
    model, x = nn.Sequential(Merging(), nn.ReLU()), torch.randn(4, 6)
    weight = model[0].weight.detach().clone()
    plain = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    plain[0].weight.data, plain[0].bias.data = weight + (model[0].B @ model[0].A).detach(), model[0].bias.data
    with torch.no_grad():
        torch.testing.assert_close(cd(model, x, MASKS), cd(plain, x, MASKS))
    assert model.training and model[0].training and not model[0].merged and torch.equal(model[0].weight, weight)
    with pytest.raises(ValueError, match=r"the train\(\) of 0 \(Merging\) does more than set a flag"):
        cdep_penalty(model, x, MASKS[0])
    assert model[0].training and not model[0].merged and torch.equal(model[0].weight, weight)
    torch.testing.assert_close(cd(model.eval(), x, MASKS), cd(plain, x, MASKS))


class Layout(nn.Module):
    """A function of a linear layer's output, and a linear layer behind it."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = nn.Linear(6, 6), nn.Linear(6, 3), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def _patches(h):
    return h.flatten(0, 1).max(1, keepdim=True).values.reshape(len(h), 5, 1).mean(1)


@pytest.mark.parametrize("N", [1, 2, 5])
@pytest.mark.parametrize(
    "function, plain",
    [
        (lambda h: (h.transpose(0, 1) * 1).amax(2, keepdim=True).expand(-1, -1, 6).mean(0), lambda h: h.amax(2, True)),
        (lambda h: h.transpose(0, 1).sort(2).values[..., :1].mean(0).expand(-1, 6), lambda h: h.amin(2, True)),
        (
            lambda h: torch.maximum(*h.transpose(0, 1)[:4].split(2)).mean(0),
            lambda h: torch.maximum(*h[:, :4].split(2, 1)),
        ),
        (lambda h: _patches(h).expand(-1, 6), lambda h: h.amax(2, True)),
        (
            lambda h: F.max_pool1d(h.flatten(0, 1)[:, None], 6)[:, 0].reshape(-1, 5).mean(1)[:, None].expand(-1, 6),
            lambda h: h.amax(2, True),
        ),
    ],
)
def test_maxima_where_the_rows_are_not_the_first_dimension(function, plain, N):
    """Five steps, and five masks: also where there are as many of one as of the other."""
    torch.manual_seed(1)
    x, masks = torch.randn(N, 5, 6), torch.cat([torch.rand(3, 6).round(), torch.ones(1, 6), torch.zeros(1, 6)])
    for max_batch in (256, 5):
        found = cd(Layout(function), x, masks, check=False, max_batch=max_batch)
        expected = cd(Layout(lambda h: plain(h).mean(1).expand(-1, 6)), x, masks)
        torch.testing.assert_close(found.rel, expected.rel)
        torch.testing.assert_close(found.rel + found.irrel, expected.logits[:, None].expand_as(found.rel))
        assert not found.irrel[:, 3].any() and not found.rel[:, 4].any()


MIXES = {
    "centred": lambda h: h - h.mean(0),
    "turned": lambda h: h.flip(0),
    "first added": lambda h: h + h[:1],
    "largest": lambda h: h - h.amax(0),
}


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("mixes", MIXES.values(), ids=MIXES)
def test_models_that_mix_the_rows_of_a_batch_are_refused(mixes, N):
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(mixes(self.fc(x)).tanh())

    torch.manual_seed(0)
    with torch.no_grad(), pytest.raises(ValueError, match="mixes the rows|sum to|flip"):
        cd(Mixing(), torch.randn(N, 6), MASKS)
