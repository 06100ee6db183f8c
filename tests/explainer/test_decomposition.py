"""Contextual decomposition: both parts sum to the output of every network, and end points are exact."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from explainer.decomposition import cd, cd_layers
from models.CNN.CNN import ResNet20

MASKS = 50


class Reused(nn.Module):
    """Declared out of order, one ReLU in place for all, functions, operators, an overlapping maximum, views."""

    def __init__(self):
        super().__init__()
        self.fc, self.second = nn.Linear(32, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.first = nn.ReLU(inplace=True), nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x):
        x = self.pool(self.relu(self.first(x)))
        y = self.relu(self.second(x))
        y = y + x
        y += 0.1
        x = F.max_pool2d(torch.relu(y), 4)
        return self.fc(x.view(x.size(0), -1) * 0.5 + 1)


class ByData(Reused):
    """Its path cannot be traced."""

    def forward(self, x):
        return super().forward(x) if len(x) and x.shape[0] > 0 else None


class TextCNN(nn.Module):
    """Convolutions over steps, and a maximum over time."""

    def __init__(self):
        super().__init__()
        self.wide, self.fc = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(12, 2)

    def forward(self, x):
        x = self.wide(x.transpose(1, 2)).tanh()
        return self.fc(torch.cat([x.amax(2), x.max(dim=2)[0].clamp(-0.5, 0.5)], 1))


class Gates(nn.Module):
    """Products of activations, chunks, sums over dimensions, and functions with f(0) other than 0."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(9, 12), nn.Linear(6, 3)

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        y = a * torch.sigmoid(b) + F.softplus(a - b) / 2 - a.mean(1, keepdim=True)
        return self.last(torch.stack([y, 1 - y.square() + 2**y], 2).sum(2).reshape(len(x), 6))


def small(*more):
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), *more, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(72, 10),
    )  # fmt: skip


def mlp():
    return nn.Sequential(
        nn.Linear(9, 20), nn.BatchNorm1d(20), nn.Sigmoid(), nn.Linear(20, 20), nn.Tanh(), nn.LayerNorm(20), nn.GELU(),
        nn.Dropout(), nn.Linear(20, 4),
    )  # fmt: skip


NETWORKS = {
    "small CNN": (small, (1, 20, 20), MASKS),
    "with BatchNorm": (lambda: small(nn.BatchNorm2d(6)), (1, 20, 20), MASKS),
    "with GroupNorm": (lambda: small(nn.GroupNorm(2, 6)), (1, 20, 20), MASKS),
    "MLP": (mlp, (9,), MASKS),
    "reused, functional": (Reused, (3, 16, 16), MASKS),
    "untraceable": (ByData, (3, 16, 16), MASKS),
    "text CNN": (TextCNN, (11, 4), MASKS),
    "gates": (Gates, (9,), MASKS),
    "ResNet-20": (ResNet20, (3, 32, 32), MASKS),
    "resnet18": (torchvision.models.resnet18, (3, 32, 32), MASKS),
    "densenet121": (torchvision.models.densenet121, (3, 32, 32), MASKS),
    "googlenet": (lambda: torchvision.models.googlenet(init_weights=False), (3, 32, 32), MASKS),
}


def network(name, dtype, N=1):
    """The network with random running statistics, inputs with an exact zero in each, and masks: all, none, random."""
    torch.manual_seed(0)
    make, shape, Q = NETWORKS[name]
    model = make().to(dtype)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, 0, 0.2)
    x = torch.randn(N, *shape, dtype=dtype)
    x[..., : shape[-1] // 2] *= torch.rand(x[..., : shape[-1] // 2].shape) > 0.3
    masks = torch.rand(Q, *(shape[1:] if len(shape) > 1 else shape)) > torch.rand(Q, *[1] * max(1, len(shape) - 1))
    masks[0], masks[1] = True, False
    return model, x, masks


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_sum_to_the_output_and_end_points_are_exact(name):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model, x, masks = network(name, dtype)
        with torch.no_grad():
            scores = cd(model, x, masks)
            expected = model.eval()(x)
        scale = max(1.0, float(expected.abs().max()))
        assert scores.rel.shape == scores.irrel.shape == (1, len(masks), expected.shape[1])
        torch.testing.assert_close(scores.logits, expected)
        difference = scores.rel + scores.irrel - expected[:, None]
        assert difference.abs().max() <= tolerance * scale
        assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any()
        assert scores.rel[:, 2:].any() and scores.irrel[:, 2:].any()


def test_float32_is_near_float64_on_resnet20():
    model, x, masks = network("ResNet-20", torch.float64)
    with torch.no_grad():
        precise, quick = cd(model, x, masks), cd(model.float(), x.float(), masks)
    assert (precise.rel - quick.rel).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["reused, functional", "untraceable", "MLP", "text CNN"])
def test_masks_in_one_batch_are_masks_one_by_one(name):
    model, x, masks = network(name, torch.float64, N=3)
    with torch.no_grad():
        together = cd(model, x, masks[:6])
        for n in range(3):
            for q in range(6):
                alone = cd(model, x[n : n + 1], masks[q : q + 1], max_batch=1)
                torch.testing.assert_close(alone.rel[0, 0], together.rel[n, q], rtol=1e-10, atol=1e-12)


def test_the_rule_of_relu_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    W, c, v = torch.tensor([[1.0, -2.0], [3.0, 1.0]]), torch.tensor([0.5, -1.0]), torch.tensor([[2.0, 1.0]])
    with torch.no_grad():
        model[0].weight.copy_(W), model[0].bias.copy_(c), model[2].weight.copy_(v)
    x = torch.tensor([[1.0, 1.0]]).double()
    b, g = W[:, 0].double(), W[:, 1].double()  # of the first input, and of the second
    share = b.abs() / (b.abs() + g.abs())
    b, g = b + share * c, g + (1 - share) * c
    expected = v.double() @ b.clamp(0)
    rel = cd(model, x, torch.tensor([[1, 0]])).rel
    torch.testing.assert_close(rel[0, 0], expected)
    mean = v.double() @ ((b.clamp(0) + (b + g).clamp(0) - g.clamp(0)) / 2)
    torch.testing.assert_close(cd(model, x, torch.tensor([[1, 0]]), relu="shapley").rel[0, 0], mean)


def test_half_of_a_dead_constant_goes_to_each_part_by_the_official_rule():
    model, x = nn.Linear(3, 2).double(), torch.zeros(1, 3).double()
    masks = torch.tensor([[1, 1, 1], [1, 1, 0]])
    torch.testing.assert_close(cd(model, x, masks, zero_rule="half").rel[0], (model.bias / 2).expand(2, 2))
    shares = torch.tensor([[1.0], [2 / 3]]).double()
    torch.testing.assert_close(cd(model, x, masks).rel[0], shares * model.bias)


def test_soft_masks_and_masks_with_channels():
    model, x, masks = network("reused, functional", torch.float64, N=2)
    by_position = cd(model, x, masks[2:5])
    with_channels = cd(model, x, masks[2:5, None].expand(2, 3, 3, 16, 16))
    torch.testing.assert_close(by_position.rel, with_channels.rel)
    soft = cd(model, x, torch.full((1, 16, 16), 0.25))
    torch.testing.assert_close(soft.rel + soft.irrel, model(x)[:, None])


@pytest.mark.parametrize("detach_share", [False, True])
def test_gradients(detach_share):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, masks = torch.randn(2, 4).double(), torch.tensor([[1.0, 0, 1, 0]])
    weight = model[0].weight

    def score(w):
        own = {f"model.{name}": p for name, p in model.named_parameters()} | {"model.0.weight": w}
        return torch.func.functional_call(Wrapped(model, masks, detach_share), own, (x,))

    if not detach_share:
        assert torch.autograd.gradcheck(score, (weight.detach().clone().requires_grad_(),))
    (gradient,) = torch.autograd.grad(cd(model, x, masks, detach_share=detach_share).rel.sum(), weight)
    assert gradient.abs().sum() > 0


class Wrapped(nn.Module):
    """A model's relevant parts, as a module."""

    def __init__(self, model, masks, detach_share):
        super().__init__()
        self.model, self.masks, self.detach_share = model, masks, detach_share

    def forward(self, x):
        return cd(self.model, x, self.masks, detach_share=self.detach_share).rel


def test_gradients_are_finite_where_both_parts_are_zero():
    model, x, masks = network("with BatchNorm", torch.float64)
    cd(model, torch.zeros_like(x), masks[:3]).rel.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_model_is_left_as_it_was():
    for name in ("with BatchNorm", "untraceable"):
        model, x, masks = network(name, torch.float32)
        model.train()
        model[0].eval() if isinstance(model, nn.Sequential) else model.fc.eval()
        modes, state = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
        seed = torch.get_rng_state()
        cd(model, x, masks[:2])
        assert [m.training for m in model.modules()] == modes
        assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values()))
        assert all(p.grad is None for p in model.parameters()) and torch.equal(seed, torch.get_rng_state())
        assert not any("forward" in vars(module) for module in model.modules())


class Constants(nn.Module):
    """A constant in its forward, an attribute that it depends on, and a first step in place."""

    def __init__(self):
        super().__init__()
        self.fc, self.scale, self.shift = nn.Linear(3, 2), 1.0, nn.Parameter(torch.ones(2))

    def forward(self, x):
        x.sub_(1.0)
        return self.fc(x) * self.scale * torch.full((2,), 2.0) + self.shift


def test_neither_model_nor_inputs_keep_anything_of_it_and_changes_are_seen():
    torch.manual_seed(0)
    model, x, masks = Constants(), torch.randn(2, 3), torch.eye(3)
    before, own = x.clone(), set(vars(model))
    for name, value in (("scale", 1.0), ("scale", 3.0), ("shift", nn.Parameter(torch.tensor([5.0, 6.0])))):
        setattr(model, name, value)
        scores = cd(model, x, masks)
        torch.testing.assert_close(scores.rel + scores.irrel, model(x.clone())[:, None].expand(2, 3, 2))
        assert torch.equal(x, before) and set(vars(model)) == own


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_precision_is_that_of_the_model(kind):
    torch.manual_seed(0)
    model, x = nn.Sequential(ResNet20(), Double()).to(kind), torch.randn(1, 3, 32, 32).to(kind)
    assert cd(model, x, torch.ones(1, 32, 32)).logits.dtype == torch.float64


class Double(nn.Module):
    def forward(self, x):
        return x.double()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("name", NETWORKS)
def test_cuda_gives_what_the_cpu_gives(name):
    model, x, masks = network(name, torch.float64)
    precise = torch.backends.cudnn.allow_tf32
    with torch.no_grad():
        expected, found = cd(model, x, masks[:5]), cd(model.cuda(), x.cuda(), masks[:5])
        torch.testing.assert_close(found.rel.cpu(), expected.rel, rtol=1e-6, atol=1e-8)
        cd(model.float(), x.float().cuda(), masks[:5])  # its own check: without TF32
    assert torch.backends.cudnn.allow_tf32 == precise


def test_normalization_as_the_first_layer():
    normalize = torchvision.transforms.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    torch.manual_seed(0)
    model, x = nn.Sequential(normalize, nn.Conv2d(3, 2, 4), nn.Flatten()), torch.rand(2, 3, 4, 4)
    scores = cd(model, x, torch.rand(3, 4, 4) > 0.5)
    torch.testing.assert_close(scores.rel + scores.irrel, model(x)[:, None].expand(2, 3, 2))
    assert cd(model, x, torch.ones(1, 4, 4)).irrel.abs().max() == 0


def test_layers_are_named_in_order_and_sum_to_the_activations():
    model, x, masks = network("small CNN", torch.float64)
    nodes = cd_layers(model, x[0], masks[3])
    names = [name for name, _, _ in nodes]
    assert names == "conv2d relu max_pool2d conv2d relu avg_pool2d flatten linear".split()
    for (_, b, g), depth in zip(nodes, range(1, len(names) + 1)):
        torch.testing.assert_close(b + g, model[:depth](x)[0])
