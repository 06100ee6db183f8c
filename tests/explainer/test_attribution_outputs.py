"""Models, outputs, batches and positions of any form."""

import dataclasses

import numpy as np
import pytest
import torch
from test_attribution_layers import network
from test_attribution_models import loader, scores
from torch import nn

from explainer.attribution import RPSLJE, InfluenceFunction, TracIn


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
