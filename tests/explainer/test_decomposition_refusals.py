"""What contextual decomposition refuses, in one line each, and how an operation is given a rule."""

import pytest
import torch
from torch import nn

from explainer.decomposition import Split, UnsupportedOp, cd, register_rule
from explainer.decomposition.registry import FUNCTIONS, MODULES


class Cube(nn.Module):
    def forward(self, x):
        return torch.special.expit(x)


def test_an_operation_without_a_rule_is_named_and_can_be_given_one():
    model, x, masks = nn.Sequential(nn.Linear(4, 2), Cube()).double(), torch.randn(1, 4).double(), torch.ones(1, 4)
    with pytest.raises(UnsupportedOp, match="no rule for special_expit: add one with @register_rule"):
        cd(model, x, masks)

    @register_rule(Cube)
    def rule(rules, module, x):
        b = torch.special.expit(x.b) - 0.5
        return rules.bias(x.like(b, torch.special.expit(x.total) - 0.5 - b), torch.tensor(0.5))

    try:
        scores = cd(model, x, masks)
        torch.testing.assert_close(scores.rel[0], model(x))
    finally:
        del MODULES[Cube]

    @register_rule("special_expit")
    def wrong(rules, x):
        return x.like(x.b, x.g)

    try:
        with pytest.raises(ValueError, match="differs from the model's output by .*: a rule does not sum"):
            cd(model, x, masks)
    finally:
        del FUNCTIONS["special_expit"]


class Apply(nn.Module):
    """A linear layer, and a function of its output."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 2), function

    def forward(self, x):
        return self.function(self.fc(x))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda z: z / (z * z + 1), "a division by an activation has no rule"),
        (lambda z: 1 / z, "a division by an activation has no rule"),
        (lambda z: torch.div(z, 2, rounding_mode="floor"), r"a division that rounds \(floor\) has no rule"),
        (lambda z: torch.einsum("nk,nk,nk->nk", z, z, z), "einsum of 3 activations, or without an equation, has no"),
        (lambda z: torch.prod(z, 1, keepdim=True), "no rule for prod"),
        (lambda z: z if (z == 0).any() else -z, "depends on its activations"),
        (lambda z: z * float(z.sum(1)[0]), "depends on its activations"),
        (lambda z: z * z.detach().numpy().mean(), "no rule for numpy"),
        (
            lambda z: torch.zeros(1, 2).masked_fill(torch.ones(1, 2) > 0, z[0, 0]),
            "rule for masked_fill does not cover",
        ),
    ],
)
def test_arguments_that_a_rule_does_not_cover_are_refused_in_a_line(function, said):
    with pytest.raises(UnsupportedOp, match=said) as refused:
        cd(Apply(function), torch.ones(1, 4), torch.ones(1, 4))
    assert "\n" not in str(refused.value)


class ByValue(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y if y[0, 0] > 0 else -y


@pytest.mark.parametrize(
    ("model", "x", "masks", "said"),
    [
        (nn.Sequential(nn.Linear(4, 2), nn.Softmax(1)), torch.zeros(1, 4), torch.ones(1, 4), "explains logits"),
        (ByValue(4, 2), torch.zeros(1, 4), torch.ones(1, 4), "depends on its activations"),
        (nn.Linear(4, 2), torch.zeros(1, 4), torch.ones(1, 5), r"masks have the shape \(1, 5\): give \(Q, 4\)"),
        (nn.Linear(4, 2), torch.zeros(1, 4), torch.full((1, 4), 1.5), "masks hold 1.5 to 1.5: give 0 to 1"),
        (nn.Linear(4, 2), torch.zeros(1, 4), torch.full((1, 4), torch.nan), "masks hold nan"),
        (nn.Linear(4, 2), torch.zeros(1, 4), torch.ones(0, 4), "masks are none"),
        (nn.Linear(4, 2), torch.zeros(0, 4), torch.ones(1, 4), r"the inputs are \(0, 4\): give a tensor with one row"),
        (nn.Linear(4, 2), [1, 2], torch.ones(1, 4), "the inputs are a list: give a tensor"),
        (nn.Linear(4, 2), torch.full((1, 4), torch.inf), torch.ones(1, 4), "the inputs hold nan or infinite"),
        (nn.Linear(4, 2), torch.zeros(1, 4), None, "masks are a NoneType: give a tensor"),
        (nn.Linear(4, 2), torch.zeros(1, 4), "all", "masks are a str: give a tensor"),
        (nn.Linear(4, 2), torch.zeros(1, 5), torch.ones(1, 5), r"forward fails on inputs \(1, 5\) torch.float32: mat1"),
        (nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4), "it must give logits"),
    ],
)
def test_bad_input(model, x, masks, said):
    with pytest.raises(ValueError, match=said):
        cd(model, x, masks)
    assert model.training and not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"relu": "lrp"}, "relu is 'lrp': give acd or shapley"),
        ({"zero_rule": "none"}, "zero_rule is 'none': give coverage or half"),
        ({"max_batch": 0}, "max_batch is 0: give a whole number from 1 up"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        cd(nn.Linear(4, 2), torch.zeros(1, 4), torch.ones(1, 4), **options)


def test_out_of_memory_says_what_lowers_it(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("explainer.decomposition.passes.run", full)
    with pytest.raises(ValueError, match=r"out of memory: use torch.no_grad\(\), a smaller max_batch"):
        cd(nn.Linear(4, 2), torch.zeros(1, 4), torch.ones(1, 4))


def test_splits_say_what_they_are():
    x = Split(torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 1), None)
    assert x.shape == (2, 3) and x.size(1) == 3 and len(x) == 2 and repr(x) == "Split(2, 3)"
    assert not hasattr(x, "nothing")
