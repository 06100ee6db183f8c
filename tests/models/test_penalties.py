"""The penalties on explanations, against one image after the other and the definitions of the papers."""

import pytest
import torch
from torch import nn

from explainer.decomposition import cd
from models.CDEP.penalty import cdep_penalty, cdep_text_penalty, eg_penalty, rrr_penalty


class Words(nn.Module):
    """An LSTM over words."""

    def __init__(self, classes=2):
        super().__init__()
        self.embedding, self.lstm, self.fc = nn.Embedding(9, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, classes)

    def forward(self, ids, lengths=None):
        return self.fc(self.lstm(self.embedding(ids))[1][0][-1])


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3)
    ).double()
    mask = torch.zeros(6, 6)
    mask[:3, :3] = 1
    return model.train(), torch.randn(5, 2, 6, 6).double(), torch.tensor([0, 1, 2, 0, 1]), mask


@pytest.mark.parametrize("mode", ["softmax", "l1", "logirrel"])
@pytest.mark.parametrize("target", [0.0, 0.3])
def test_cdep_is_the_mean_over_images_and_logits_summed_over_masks(problem, mode, target):
    model, x, y, mask = problem
    masks = torch.stack([mask, 1 - mask])
    found, by_label = (cdep_penalty(model, x, masks, mode=mode, target=target, classes=c) for c in ("all", y))
    assert model.training
    expected = torch.zeros(2, 5, 3).double()
    for q in range(2):
        for n in range(5):
            scores = cd(model, x[n : n + 1], masks[q : q + 1])
            for k in range(3):
                b, g = scores.rel[0, 0, k], scores.irrel[0, 0, k]
                share = {"softmax": b.exp() / (b.exp() + g.exp()), "l1": b.abs(), "logirrel": (1 + (b - g).exp()).log()}
                expected[q, n, k] = (share[mode] - target).abs()
    torch.testing.assert_close(found, expected.mean((1, 2)).sum())
    torch.testing.assert_close(by_label, expected[:, torch.arange(5), y].mean(1).sum())


def test_masks_of_each_image_and_one_for_all(problem):
    model, x, _, mask = problem
    shared = cdep_penalty(model, x, mask)
    torch.testing.assert_close(cdep_penalty(model, x, mask[None, None].expand(5, 1, 6, 6)), shared)
    torch.testing.assert_close(cdep_penalty(model, x, mask[None, None].expand(5, 1, 6, 6), max_batch=2), shared)


@pytest.mark.parametrize("mode", ["softmax", "l1", "logirrel"])
def test_images_with_an_empty_mask_have_no_part(problem, mode):
    model, x, _, mask = problem
    masks = mask[None, None].repeat(5, 1, 1, 1)
    masks[3:] = 0
    torch.testing.assert_close(cdep_penalty(model, x, masks, mode=mode), cdep_penalty(model, x[:3], mask, mode=mode))
    assert cdep_penalty(model, x, 0 * masks, mode=mode) == 0


@pytest.mark.parametrize(
    "penalty", [rrr_penalty, lambda *a: eg_penalty(*a[:3], a[3], a[1], 2), lambda m, x, y, k: cdep_penalty(m, x, k)]
)
def test_the_model_does_not_notice(problem, penalty):
    model, x, y, mask = problem
    before = {name: value.clone() for name, value in model.state_dict().items()}
    penalty(model, x, y, mask).backward()
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("mode", ["softmax", "l1", "logirrel"])
def test_gradients_of_cdep(mode):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double(), torch.randn(2, 4).double()

    def penalty(weight):
        own = {f"model.{name}": p for name, p in model.named_parameters()} | {"model.0.weight": weight}
        return torch.func.functional_call(Penalized(model, mode), own, (x,))

    assert torch.autograd.gradcheck(penalty, (model[0].weight.detach().clone().requires_grad_(),))


class Penalized(nn.Module):
    """A penalty as a module."""

    def __init__(self, model, mode):
        super().__init__()
        self.model, self.mode = model, mode

    def forward(self, x):
        return cdep_penalty(self.model, x, torch.tensor([1.0, 0, 1, 0]), mode=self.mode)


def test_gradients_are_finite_on_images_full_of_zeros(problem):
    model, x, y, mask = problem
    zeros = torch.zeros_like(x)
    model.eval()
    penalties = [cdep_penalty(model, zeros, mask, mode=mode) for mode in ("softmax", "l1", "logirrel")]
    penalties += [rrr_penalty(model, zeros, y, mask), eg_penalty(model, zeros, y, mask, x, 3)]
    sum(penalties).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_one_logit_is_that_of_class_1_and_its_negative_of_class_0():
    torch.manual_seed(0)
    model, x, mask = nn.Linear(4, 1).double(), torch.randn(3, 4).double(), torch.tensor([1.0, 0, 0, 1])
    ones, zeros = (cdep_penalty(model, x, mask, classes=torch.full((3,), c)) for c in (1, 0))
    torch.testing.assert_close(ones + zeros, torch.tensor(1.0).double())
    scores = cd(model, x, mask[None])
    expected = (torch.sigmoid(scores.rel - scores.irrel) - 0.3).abs().mean()
    torch.testing.assert_close(cdep_penalty(model, x, mask, classes=torch.ones(3), target=0.3), expected)


def test_text_is_averaged_over_the_sentences_that_have_the_word():
    torch.manual_seed(0)
    model, ids = Words().double(), torch.randint(0, 9, (4, 6))
    masks = torch.zeros(4, 1, 6)
    masks[1, 0, 2] = masks[3, 0, 4] = 1
    found = cdep_text_penalty(model, ids, masks, classes=torch.tensor([0, 1, 0, 0]))
    alone = [
        cdep_text_penalty(model, ids[n : n + 1], masks[n : n + 1], classes=torch.tensor([c]))
        for n, c in ((1, 1), (3, 0))
    ]
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2)
    found.backward()
    assert model.embedding.weight.grad is None and model.lstm.weight_ih_l0.grad.any()
    assert cdep_text_penalty(model, ids, torch.zeros(4, 1, 6)) == 0


def test_rrr_is_the_gradient_of_every_image_by_itself(problem):
    model, x, y, mask = problem
    model.eval()
    ross, official = [], torch.zeros(5, 6, 6).double()
    for n in range(5):
        image = x[n : n + 1].clone().requires_grad_()
        logs = model(image).log_softmax(1)
        (g,) = torch.autograd.grad(logs.sum(), image, retain_graph=True)
        ross.append((g[0] * mask).square().sum())
        (g,) = torch.autograd.grad(-logs[0, y[n]] / 5, image)
        official[n] = g[0].sum(0) * mask
    torch.testing.assert_close(rrr_penalty(model, x, y, mask), torch.stack(ross).mean())
    torch.testing.assert_close(rrr_penalty(model, x, y, mask.expand(5, 6, 6)), torch.stack(ross).mean())
    torch.testing.assert_close(rrr_penalty(model, x, y, mask, form="official"), official.square().sum())


def test_expected_gradients_are_those_of_every_image_by_itself(problem):
    model, x, y, mask = problem
    model.eval()
    references, n = torch.randn(7, 2, 6, 6).double(), 4
    found = eg_penalty(model, x, y, mask, references, n, generator=torch.Generator().manual_seed(3))
    generator, expected = torch.Generator().manual_seed(3), []
    picked = torch.randint(7, (n, 5), generator=generator)
    alpha = torch.rand(n, 5, 1, 1, 1, generator=generator, dtype=torch.float64)
    for i in range(5):
        attribution = torch.zeros_like(x[i])
        for k in range(n):
            reference = references[picked[k, i]]
            point = (reference + alpha[k, i] * (x[i] - reference))[None].requires_grad_()
            (g,) = torch.autograd.grad(model(point).softmax(1)[0, y[i]], point)
            attribution += g[0] * (x[i] - reference) / n
        expected.append((attribution * mask).abs().sum())
    torch.testing.assert_close(found, torch.stack(expected).mean())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, x, y, k: cdep_penalty(m, x, k, mode="l2"), "mode is 'l2': give one of softmax, l1, logirrel"),
        (lambda m, x, y, k: cdep_penalty(m, x, k[:4]), r"masks have the shape \(4, 6\)"),
        (
            lambda m, x, y, k: cdep_penalty(m, x, k, classes="some"),
            "classes is 'some': give one for each input, or 'all'",
        ),
        (lambda m, x, y, k: cdep_penalty(m, x, k, classes=y + 9), r"classes hold .* give whole numbers, 0 to 2"),
        (lambda m, x, y, k: cdep_penalty(m, x, "corners"), "masks: got a str; give a tensor"),
        (
            lambda m, x, y, k: rrr_penalty(m, x, y, torch.ones(2, 3)),
            r"the mask has the shape \(2, 3\): give \(6, 6\), or",
        ),
        (lambda m, x, y, k: rrr_penalty(m, x, y[:2], k, form="official"), "got 5 inputs and 2 classes"),
        (lambda m, x, y, k: rrr_penalty(m, x.long(), y, k), "x is torch.int64"),
        (lambda m, x, y, k: torch.no_grad()(rrr_penalty)(m, x, y, k), "gradients are off"),
        (lambda m, x, y, k: eg_penalty(m, x, y, k, x[:0], 2), "references are"),
        (lambda m, x, y, k: eg_penalty(m, x, y, k, x[:, :1], 2), "references are"),
        (lambda m, x, y, k: cdep_penalty(m, x, k, classes=y[:2]), "got 5 inputs and 2 classes"),
        (lambda m, x, y, k: rrr_penalty(m, x, y, k, form="other"), "form is 'other': give ross or official"),
        (lambda m, x, y, k: rrr_penalty(m, x, y, k * 2), "mask hold 0 to 2: give 0 to 1"),
        (lambda m, x, y, k: eg_penalty(m, x, y, k, x, 0), "n is 0: give a whole number from 1 up"),
    ],
)
def test_bad_input(problem, call, said):
    with pytest.raises(ValueError, match=said):
        call(*problem)
