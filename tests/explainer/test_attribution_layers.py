"""What a layer is given and gives is compared with what is explained; models are given back as they were."""

import dataclasses

import numpy as np
import pytest
import torch
from test_attribution_models import loader, scores
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from explainer.attribution import RPSLJE, InfluenceFunction, TracIn


def network(last=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    if last is not None:
        model[2] = last
    return model


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=g)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


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


def test_wrapped_and_compiled_models_are_the_modules_behind_them(data):
    expected = RPSLJE(network(), loader(data)).self_influence()
    compiled, parts, inside = torch.compile(network(), backend="eager"), network(), network()
    for k in (0, 2):
        parts[k] = torch.compile(parts[k], backend="eager")
    inside.compile(backend="eager")
    compiled(data[0]), parts(data[0]), inside(data[0])
    wrapped, model = nn.DataParallel(network()), network()
    for given, layer in (
        (compiled, -1),
        (parts, "2"),
        (parts, parts[2]),
        (inside, -1),
        (wrapped, -1),
        (model, model[2]),
    ):
        found = RPSLJE(given, loader(data), layer=layer).self_influence()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    plain = network().state_dict()
    checkpoints = [parts.state_dict(), {f"module.{name}": value for name, value in plain.items()}, plain]
    values = [scores(TracIn(parts, loader(data), checkpoints=[c]), loader(data)) for c in checkpoints]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_autocast_in_the_forward_is_explained_to_its_precision(data):
    class Auto(nn.Sequential):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    agrees(Auto(*network()), data, 2e-2)
    with pytest.raises(ValueError, match="gives what differs"):
        RPSLJE(Auto(*network(Cosine(5, 3))), loader(data))


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    loss: object = None


def test_outputs_and_batches_of_any_form_need_no_wrapper(data):
    class Takes(nn.Module):
        def __init__(self, gives):
            super().__init__()
            self.model, self.gives = network(), gives

        def forward(self, batch):
            return self.gives(self.model(batch["x"]))

    batches = [{"x": x, "y": y} for x, y in loader(data)]
    test = [{"x": data[0][:4]}]
    expected = RPSLJE(network(), loader(data)).top_k([data[0][:4]], 3)
    read = {"inputs_and_labels": lambda batch: ((batch,), batch.get("y"))}
    for gives, more in (
        (Output, {}),
        (lambda z: {"logits": z, "state": None}, {}),
        (lambda z: (None, z), {"logits": lambda output: output[1]}),
        (lambda z: {"out": {"z": z}}, {"logits": lambda output: output["out"]["z"]}),
    ):
        explainer = RPSLJE(Takes(gives), batches, **read, **more)
        np.testing.assert_array_equal(explainer.top_k(test, 3).indices, expected.indices)
    tracin = TracIn(Takes(Output), batches, checkpoints=[Takes(Output).state_dict()], **read)
    expected = TracIn(network(), loader(data)).top_k([data[0][:4]], 3)
    np.testing.assert_array_equal(tracin.top_k(test, 3).indices, expected.indices)
    for gives, more, said in (
        (lambda z: (z, None), read, "the model returns tuple: say where its logits are"),
        (lambda z: (z, 1), {**read, "logits": lambda output: output[1]}, "logits returned int: give a function"),
        (Output, {**read, "logits": lambda output: output["z"]}, "logits could not read the model's output, Output"),
        (Output, {}, "the loader gives no labels|cannot take a batch of the loader .*inputs_and_labels"),
        (Output, {"inputs_and_labels": lambda batch: batch["z"]}, "could not read a batch, dict"),
        (Output, {"inputs_and_labels": lambda batch: batch["x"]}, "inputs_and_labels returned Tensor: give a function"),
        (Output, {"inputs_and_labels": 3}, "inputs_and_labels is int: give a function"),
        (Output, {"logits": "logits"}, "logits is str: give a function"),
    ):
        with pytest.raises(ValueError, match=said):
            RPSLJE(Takes(gives), batches, **more)


def test_positions_are_rows_and_ignored_ones_are_left_out(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Tanh(), nn.Linear(4, 3))
    tokens = torch.randint(0, 9, (8, 5))
    labels = torch.where(torch.rand(8, 5) < 0.3, -100, tokens % 3)
    batches = [(tokens[:3], labels[:3]), (tokens[3:], labels[3:])]
    explainer = InfluenceFunction(model, batches, damping=0.1, cache=tmp_path / "cache")
    kept = labels.reshape(-1) != -100
    F = model[:2](tokens).detach().reshape(-1, 4)[kept]
    by_hand = InfluenceFunction.from_arrays(F, labels.reshape(-1)[kept], model[2].weight, model[2].bias, damping=0.1)
    points = torch.arange(8).repeat_interleave(5)[kept]
    for found in (explainer, InfluenceFunction.from_cache(tmp_path / "cache", damping=0.1)):
        assert found.groups.tolist() == points.tolist()
        assert found.rows.total == int(kept.sum())
        np.testing.assert_allclose(found.labels, by_hand.labels)
    again = InfluenceFunction(model, batches, damping=0.1, cache=tmp_path / "cache")
    assert again.groups.tolist() == points.tolist()
    together = explainer.features.together([tokens[:2], tokens[2:4]])
    assert (
        together.features.shape == (20, 4) and together.groups.tolist() == torch.arange(4).repeat_interleave(5).tolist()
    )
    turned = nn.Sequential(*model, Turned())
    np.testing.assert_allclose(InfluenceFunction(turned, batches, damping=0.1).labels, by_hand.labels)
    for wrong, said in (
        (labels[:, 0], r"several rows for each point, and labels are \(8,\): give a label for each row, \(8, 5\)"),
        (torch.full_like(labels, -100), "every label is -100"),
    ):
        with pytest.raises(ValueError, match=said):
            InfluenceFunction(model, [(tokens, wrong)], damping=0.1)


class Turned(nn.Module):
    """The logits with their classes second, as torch's losses take them."""

    def forward(self, z):
        return z.movedim(-1, 1)
