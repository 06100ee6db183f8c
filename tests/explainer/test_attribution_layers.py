"""What a layer is given and gives is compared with what is explained; models are given back as they were."""

import numpy as np
import pytest
import torch
from test_attribution_models import loader, scores
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from explainer.attribution import RPSLJE, TracIn


def network(last=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    if last is not None:
        model[2] = last
    return model


def agrees(model, data, tolerance=1e-5, **options):
    """The explainer's logits are the model's own, in evaluation mode."""
    found = RPSLJE(model, loader(data), **options).logits(loader(data))
    with torch.no_grad():
        expected = model.eval()(data[0]).double()
    np.testing.assert_allclose(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


class Cosine(nn.Linear):
    def forward(self, x):
        return 10 * functional.linear(functional.normalize(x), functional.normalize(self.weight))


class Scaled(nn.Linear):
    def forward(self, x):
        return 1.001 * super().forward(x)


class Late(nn.Linear):
    """Another layer for large batches alone; the first ones are as they should be."""

    def forward(self, x):
        return super().forward(x) + (len(x) == 2)


class Adapted(nn.Linear):
    """A linear layer with an adapter beside it that is not merged."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.down, self.up = nn.Parameter(torch.randn(2, sizes[0])), nn.Parameter(torch.randn(sizes[1], 2))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


class Wrapped(nn.Module):
    """The adapter as a module around the layer."""

    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(5, 3), nn.Linear(5, 2, bias=False), nn.Linear(2, 3, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("last", [Cosine, Scaled, Late, Adapted])
def test_a_layer_that_does_more_than_a_product_is_refused(last, data):
    with pytest.raises(
        ValueError, match=rf"layer 2, {last.__name__}, gives what differs from features .* by [\d.e-]+ "
    ):
        RPSLJE(network(last(5, 3)), loader(data))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_does_not_hide_a_scale(dtype, data):
    class Fifth(nn.Linear):
        def forward(self, x):
            return 1.2 * super().forward(x)

    data = (data[0].to(dtype), data[1])
    with pytest.raises(ValueError, match="gives what differs from features"):
        RPSLJE(network(Fifth(5, 3)).to(dtype), loader(data))
    agrees(network().to(dtype), data, {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-9))


def test_hooks_are_part_of_what_is_compared(data):
    agrees_with_hook = network()
    agrees_with_hook[2].register_forward_pre_hook(lambda module, given: (2 * given[0],))
    agrees(agrees_with_hook, data)
    for register in (
        lambda model: model[2].register_forward_hook(lambda module, given, output: 2 * output),
        lambda model: model[2].register_forward_hook(lambda module, given, output: output.add_(1)),
        lambda model: model.register_forward_hook(lambda module, given, output: output * 1.0001),
        lambda model: model[2].register_forward_hook(
            lambda module, given, output: output.masked_fill(output > 0, -np.inf)
        ),
    ):
        model = network()
        register(model)
        with pytest.raises(ValueError, match="differs from"):
            RPSLJE(model, loader(data))
        assert len(model[2]._forward_hooks) + len(model._forward_hooks) == 1 and not model[2]._forward_pre_hooks


def test_an_adapter_around_the_layer_is_refused_by_any_of_its_names(data):
    model = network(Wrapped())
    for layer, said in ((-1, "differs from that of layer 2.up"), ("2.base", "differs from that"), ("2", "not linear")):
        with pytest.raises(ValueError, match=said):
            RPSLJE(model, loader(data), layer=layer)


@pytest.mark.parametrize(
    "parametrize",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_parametrized_weights_are_those_of_evaluation_and_nothing_moves(parametrize, data):
    model = network()
    parametrize(model[2])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explainer = RPSLJE(model, loader(data))
    found = explainer.logits(loader(data))
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_allclose(found, model.eval()(data[0]).detach(), atol=1e-5)


def test_features_are_those_the_head_saw_whatever_is_done_to_them_later(data):
    class Normalizes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = network()[:2], nn.Linear(5, 3)
            self.space = torch.empty(16, 5)

        def forward(self, x):
            f = self.space[: len(x)].copy_(self.body(x))
            z = self.fc(f)
            f.div_(f.norm(dim=1, keepdim=True))
            return z

    agrees_in_batches, whole = Normalizes(), Normalizes()
    whole.load_state_dict(agrees_in_batches.state_dict())
    found = RPSLJE(agrees_in_batches, loader(data)).logits(loader(data))
    np.testing.assert_allclose(found, whole.fc(whole.body(data[0])).detach(), atol=1e-6)


class Merging(nn.Linear):
    """An adapter that is merged in evaluation mode, and would be merged twice if it were told so twice."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.down, self.up = nn.Parameter(torch.randn(2, sizes[0])), nn.Parameter(torch.randn(sizes[1], 2))
        self.merged = 0

    def train(self, mode=True):
        self.weight.data += (-1 if mode else 1) * self.up @ self.down
        self.merged += -1 if mode else 1
        return super().train(mode)

    def forward(self, x):
        return functional.linear(x, self.weight + (1 - self.merged) * self.up @ self.down, self.bias)


@pytest.mark.parametrize("frozen", [False, True])
def test_modules_with_a_train_of_their_own_are_switched_once_and_back(frozen, data):
    model = nn.Sequential(Merging(6, 5), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(5)), Merging(5, 3))
    expected = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval()
    for k, j in ((0, 0), (2, 2)):
        weight = model[k].weight + model[k].up @ model[k].down
        expected[j].load_state_dict({"weight": weight.detach(), "bias": model[k].bias.detach()})
    if frozen:
        model[0].eval(), model[1].eval(), model[1][0].train()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = [model[k].merged for k in (0, 2)]
    explainer = RPSLJE(model, loader(data))
    np.testing.assert_allclose(explainer.logits(loader(data)), expected(data[0]).detach(), atol=1e-5)
    with pytest.raises(ValueError, match="cannot take a batch"):
        RPSLJE(model, loader((data[0][:, :3], data[1])))
    assert [module.training for module in model.modules()] == modes and [model[k].merged for k in (0, 2)] == merged
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all("train" not in vars(module) for module in model.modules())


def test_counters_and_weights_that_a_forward_moves_are_put_back_or_refused(data):
    class Counting(nn.Module):
        def __init__(self, moves):
            super().__init__()
            self.body, self.fc, self.moves = network()[:2], nn.Linear(5, 3), moves
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            if self.moves is not None:
                getattr(self, self.moves)[0].weight.data.clamp_(-0.1, 0.1)
            return self.fc(self.body(x))

    class Growing(Counting):
        """What quantized training's observers do: a buffer that is resized where it is."""

        def forward(self, x):
            self.calls.resize_(3)
            return self.fc(self.body(x)) + 1

    growing = Growing(None)
    with pytest.raises(ValueError, match="differs from that of layer fc"):
        RPSLJE(growing, loader(data))
    assert growing.calls.shape == ()
    model = Counting(None)
    explainer = RPSLJE(model, loader(data))
    explainer.top_k(loader(data), 2)
    assert model.calls == 0
    with pytest.raises(ValueError, match="the model's forward changes its parameters"):
        RPSLJE(Counting("body"), [data])
    model.calls += 1
    with pytest.raises(ValueError, match="the model has changed since the explainer was made"):
        explainer.top_k(loader(data), 2)


@pytest.mark.parametrize("change", ["data", "load", "buffer"])
def test_a_model_that_was_trained_on_is_refused(change, data):
    model = nn.Sequential(network(), nn.BatchNorm1d(3), nn.Linear(3, 3)).eval()
    explainers = [method(model, loader(data)) for method in (RPSLJE, TracIn)]
    fixed = TracIn(model, loader(data), checkpoints=[model.state_dict()])
    before = scores(fixed, loader(data))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if change == "data":
        model[0][0].weight.data[0, 0] += 1e-6
    elif change == "load":
        model.load_state_dict({**state, "2.bias": state["2.bias"] + 1})
    else:
        model[1].running_mean.add_(1e-4)
    for explainer in explainers:
        with pytest.raises(ValueError, match="the model has changed since the explainer was made"):
            explainer.top_k(loader(data), 2)
    model.load_state_dict(state)
    explainers[0].top_k(loader(data), 2)
    np.testing.assert_allclose(scores(fixed, loader(data)), before)


def test_what_is_given_to_the_model_and_all_random_states_stay(data):
    class InPlace(nn.Sequential):
        def forward(self, x):
            torch.rand(1), np.random.rand()
            return super().forward(x.mul_(2))

    before, model = data[0].clone(), InPlace(*network())
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    explainer = RPSLJE(model, [data])
    expected = network()(2 * before).detach()
    np.testing.assert_allclose(explainer.logits([data]), expected, atol=1e-5)
    assert torch.equal(data[0], before)
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_models_without_numbers_and_layers_without_products_are_refused(data):
    shared = nn.Linear(6, 6)
    lazy, meta = network(nn.LazyLinear(3)), network().to("meta")
    scripted = torch.jit.script(network())
    for model, said in (
        (lazy, "2.weight of the model has no shape yet: run the model on a batch first"),
        (meta, "is on the meta device, which holds no numbers"),
        (scripted, "is a ScriptModule"),
        (nn.Sequential(shared, nn.ReLU(), shared), "layer 0 ran 2 times in one pass"),
        (nn.Sequential(nn.Conv1d(6, 3, 1)), "layer -1 does not exist: the linear layers are none"),
    ):
        with pytest.raises(ValueError, match=said):
            RPSLJE(model, loader(data))
    for layer, said in ((nn.Linear(5, 3), "is no part of the model"), (True, "layer is bool")):
        with pytest.raises(ValueError, match=said):
            RPSLJE(network(), loader(data), layer=layer)


def test_autocast_in_the_forward_is_explained_to_its_precision(data):
    class Auto(nn.Sequential):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    agrees(Auto(*network()), data, 2e-2)
    with pytest.raises(ValueError, match="gives what differs"):
        RPSLJE(Auto(*network(Cosine(5, 3))), loader(data))
