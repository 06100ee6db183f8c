"""Work in place through views, and constants that a forward writes to: as a model written without them."""

import copy
import io
import threading

import pytest
import torch
from torch import nn

from explainer.decomposition import cd, occlusion
from models.CDEP.penalty import cdep_penalty


class Middle(nn.Module):
    """A convolution, a function of its output, and a linear layer."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.fc, self.function = nn.Conv2d(2, 4, 3), nn.Linear(64, 3), function

    def forward(self, x):
        h = self.function(self.conv(x))
        return self.fc(h.reshape(len(h), -1))


def inplace(work):
    def function(h):
        work(h)
        return h

    return function


def first_relu(h):
    return torch.cat([h[:, :2].relu(), h[:, 2:]], 1)


def first_zero(h):
    return torch.cat([0 * h[:, :1], h[:, 1:]], 1)


def written(h):
    out = torch.zeros(len(h), 5, 4, 4)
    out[:, 1:] = h
    return out[:, 1:]


def copied(h):
    out = torch.zeros(len(h), 4, 4, 4)
    out[:, 0].copy_(h[:, 0])
    out.narrow(1, 1, 3).add_(h[:, 1:])
    return out


def by_alias(h):
    out = torch.zeros(len(h), 4, 4, 4)
    out.detach()[:, 0] = h[:, 0]
    kept = out.data
    kept[:, 1:].copy_(h[:, 1:])
    return out


def divided(h):
    h /= 0.25
    return h


def other_data(h):
    h.data = h.data * 2
    return h


def added_to(h):
    out = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4).repeat(len(h), 1, 1, 1)
    out += h
    return out


def scaling(h):
    out = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4).repeat(len(h), 1, 1, 1)
    out *= h
    return out


def kept_view(h):
    view = h[:, :2]
    h.relu_()
    return torch.cat([view, h[:, 2:]], 1)


def by_out(h):
    out = h.new_zeros(h.shape)
    torch.mul(h, 2.0, out=out)
    return out


def seen_otherwise(h):
    h.unsqueeze_(1)
    h[:, 0, 0] = 0
    return h.squeeze_(1)


CASES = {
    "slice": (inplace(lambda h: h[:, :2].relu_()), first_relu),
    "view": (inplace(lambda h: h.view(-1).mul_(2)), lambda h: h * 2),
    "transposed": (inplace(lambda h: h.transpose(1, 2).add_(1)), lambda h: h + 1),
    "view of a view": (inplace(lambda h: h.permute(0, 2, 3, 1)[..., :2].relu_()), first_relu),
    "index": (inplace(lambda h: h[:, 0].fill_(0)), first_zero),
    "assignment": (inplace(lambda h: h.__setitem__((slice(None), 0), 0.0)), first_zero),
    "masked_fill": (inplace(lambda h: h[:, :1].masked_fill_(torch.ones(4, 4) > 0, 0.0)), first_zero),
    "narrow": (inplace(lambda h: h.narrow(1, 0, 2).clamp_(min=0)), first_relu),
    "select": (inplace(lambda h: h.select(1, 0).zero_()), first_zero),
    "detach": (inplace(lambda h: h.detach().mul_(2)), lambda h: h * 2),
    "data": (inplace(lambda h: h.data[:, 0].zero_()), first_zero),
    "inplace=True": (inplace(lambda h: nn.functional.relu(h[:, :2], inplace=True)), first_relu),
    "kept view": (kept_view, lambda h: h.relu()),
    "shape": (seen_otherwise, first_zero),
    "written": (written, lambda h: h * 1),
    "copied": (copied, lambda h: h * 1),
    "alias": (by_alias, lambda h: h * 1),
    "divided": (divided, lambda h: h * 4),
    "T": (lambda h: (h.T * torch.arange(4.0)[:, None, None]).T, lambda h: h * torch.arange(4.0)[:, None]),
    "other data": (other_data, lambda h: h * 2),
    "constant += activation": (added_to, lambda h: torch.linspace(-1, 1, 64).reshape(4, 4, 4) + h),
    "constant *= activation": (scaling, lambda h: torch.linspace(-1, 1, 64).reshape(4, 4, 4) * h),
}
UNRECORDED = "detach", "data", "alias", "other data"  # torch records no gradient
WITHOUT_GRADIENTS = {
    "split": (inplace(lambda h: h.split(2, 1)[0].relu_()), first_relu),
    "chunk": (inplace(lambda h: h.chunk(2, 1)[0].relu_()), first_relu),
    "unbind": (inplace(lambda h: h.unbind(1)[0].zero_()), first_zero),
    "out": (by_out, lambda h: h * 2),
}


@pytest.fixture
def problem():
    torch.manual_seed(0)
    return torch.randn(3, 2, 6, 6), torch.stack([torch.rand(6, 6).round(), torch.ones(6, 6), torch.zeros(6, 6)])


@pytest.mark.parametrize("name", [*CASES, *WITHOUT_GRADIENTS])
def test_a_base_changes_with_its_view(name, problem):
    function, plain = {**CASES, **WITHOUT_GRADIENTS}[name]
    x, masks = problem
    model = Middle(function)
    for gradients in (False, True) if name in CASES else (False,):
        with torch.set_grad_enabled(gradients):
            model.function = function
            found = cd(model, x, masks)
            model.function = plain
            expected = cd(model, x, masks)
        torch.testing.assert_close(found.rel, expected.rel)
        assert (found.rel + found.irrel - found.logits[:, None]).abs().max() < 1e-5
        assert not found.irrel[:, 1].any() and not found.rel[:, 2].any()


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNRECORDED])
def test_penalties_have_the_same_gradients(name, problem):
    x, masks = problem
    model, gradients = Middle(CASES[name][0]), []
    for function in CASES[name]:
        model.function = function
        value = cdep_penalty(model, x, masks[0])
        gradients.append((value, *torch.autograd.grad(value, [model.conv.weight, model.fc.weight])))
    torch.testing.assert_close(*gradients)


class Storing(nn.Module):
    """A forward that stores what it computes, and uses what it stored."""

    def __init__(self):
        super().__init__()
        self.fc, self.out, self.seen, self.cache, self.first = nn.Linear(4, 5), nn.Linear(5, 2), [], {}, None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, scale=2.0, gate=None, *rest, train=True, **more):
        h = self.fc(x).relu()
        self.features = h
        self.seen.append(h)
        self.cache["h"] = h
        self.first = h if self.first is None else self.first
        self.calls += 1
        h = h * 0.1 if gate is None else h * gate
        return self.out(self.first + h * scale if train else h)


def test_nothing_of_a_call_remains_and_arguments_have_their_defaults():
    torch.manual_seed(0)
    model, x = Storing(), torch.randn(3, 4)
    before = {name: v.clone() for name, v in model.state_dict().items()}
    scores = cd(model, x, torch.eye(4))
    cdep_penalty(model, x, torch.eye(4)[0]).backward()
    assert (model.seen, model.cache, model.first) == ([], {}, None) and not hasattr(model, "features")
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    torch.save(copy.deepcopy(model), io.BytesIO())
    plain = nn.Sequential(model.fc, nn.ReLU(), nn.Linear(5, 2))
    plain[2].weight.data, plain[2].bias.data = model.out.weight.data * 1.2, model.out.bias.data
    torch.testing.assert_close(scores.rel, cd(plain, x, torch.eye(4)).rel)
    model.out.bias.data += 1
    torch.testing.assert_close(cd(model, x, torch.eye(4)).logits, scores.logits + 1)


def test_threads_do_not_mix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = [torch.randn(5, 6) for _ in range(4)]
    expected, found = [cd(model, x, torch.eye(6)).rel for x in inputs], [None] * 4

    def work(i):
        for _ in range(5):
            found[i] = cd(model, inputs[i], torch.eye(6)).rel

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(found, expected)


class Normalizing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x -= 0.5
        x /= 0.25
        return self.fc(x)


def test_inputs_are_left_as_they_are():
    torch.manual_seed(0)
    model, x = Normalizing(), torch.randn(3, 4)
    before = x.clone()
    found = occlusion(model, x, torch.eye(4))
    torch.testing.assert_close(found, 4 * x[:, :, None] * model.fc.weight.T[None])
    assert torch.equal(x, before)
