"""Orders of loaders, contents of caches, and kinds of inputs: taken as they are, or refused in one line."""

import dataclasses

import numpy as np
import pytest
import torch
from test_attribution_models import Network, loader
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from explainer.attribution import RPSLJE, TracIn, collect
from explainer.attribution.cache import Collected
from explainer.attribution.digests import fingerprint, hashed


class Reversed(Sampler):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return iter(range(len(self.data) - 1, -1, -1))


class Swapped(Reversed):
    """All in order but for the last two."""

    def __iter__(self):
        return iter([*range(len(self.data) - 2), len(self.data) - 1, len(self.data) - 2])


ORDERS = {
    "distributed": (lambda d: {"sampler": DistributedSampler(d, 1, 0)}, "the loader shuffles"),
    "weighted": (lambda d: {"sampler": WeightedRandomSampler([1.0] * 50, 50)}, "the loader shuffles"),
    "subset": (lambda d: {"sampler": SubsetRandomSampler(range(50))}, "the loader shuffles"),
    "batches": (lambda d: {"batch_sampler": BatchSampler(RandomSampler(d), 7, False)}, "the loader shuffles"),
    "reversed": (lambda d: {"sampler": Reversed(d)}, "sampler gives point 49 in place 0"),
    "swapped": (lambda d: {"sampler": Swapped(d)}, "sampler gives point 49 in place 48"),
    "share": (lambda d: {"sampler": DistributedSampler(d, 2, 0, shuffle=False)}, "gives point 2 in place 1"),
    "part": (lambda d: {"sampler": list(range(40))}, "sampler gives 40 of 50 points"),
    "own batches": (lambda d: {"batch_sampler": [[0, 1], [3, 2]]}, "gives point 3 in place 2"),
    "dropped": (lambda d: {"batch_size": 16, "drop_last": True}, "the loader drops 2 of 50 points: give it drop_last"),
    "alone": (lambda d: {"sampler": Reversed(d), "batch_size": None}, "gives point 49 in place 0"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_orders_other_than_the_data_sets_are_refused_for_training_and_test_points(order, data):
    points, (options, said) = TensorDataset(*data), ORDERS[order]
    explainer = RPSLJE(Network(), loader(data))
    state = torch.get_rng_state()
    for call in (lambda given: RPSLJE(Network(), given), lambda given: explainer.top_k(given, 3)):
        with pytest.raises(ValueError, match=said):
            call(DataLoader(points, **options(points)))
    assert torch.equal(state, torch.get_rng_state())


def test_samplers_of_ones_own_that_keep_the_order_are_taken(data):
    expected, points = RPSLJE(Network(), loader(data)).self_influence(), TensorDataset(*data)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    for options in (
        {"batch_sampler": [list(range(k, k + 10)) for k in range(0, 50, 10)]},
        {"sampler": range(50), "batch_size": 9},
        {"batch_sampler": BatchSampler(SequentialSampler(points), 10, True)},
        {"batch_size": 10, "drop_last": True, "generator": generator},
        {"sampler": DistributedSampler(points, 1, 0, shuffle=False), "batch_size": 9},
    ):
        found = RPSLJE(Network(), DataLoader(points, **options)).self_influence()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(before, generator.get_state())


class Stream(IterableDataset):
    """Points one after the other, the last three in another order from the second pass on."""

    def __init__(self, data, moves=True):
        self.data, self.moves, self.passes = data, moves, 0

    def __iter__(self):
        order = list(range(50))
        if self.passes and self.moves:
            order[-3:] = order[-1], order[-2], order[-3]
        self.passes += 1
        return ((self.data[0][i], self.data[1][i]) for i in order)


class Augmenting(Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 50

    def __getitem__(self, i):
        return self.data[0][i] * (-1 if torch.rand(()) < 0.5 else 1), self.data[1][i]


def test_what_moves_from_pass_to_pass_is_seen_to_the_last_batch(data):
    explainer, expected = RPSLJE(Network(), loader(data)), RPSLJE(Network(), loader(data)).self_influence()
    for call in (lambda given: RPSLJE(Network(), given), lambda given: explainer.top_k(given, 3)):
        with pytest.raises(ValueError, match="two passes of the loader disagree: it shuffles or augments"):
            call(DataLoader(Stream(data), 4))
    with pytest.raises(ValueError, match="two passes of the loader disagree"):
        RPSLJE(Network(), DataLoader(Augmenting(data), 1))
    still = DataLoader(Stream(data, moves=False), 4)
    np.testing.assert_allclose(RPSLJE(Network(), still).self_influence(), expected, rtol=1e-3, atol=1e-6)
    once = (batch for batch in loader(data))
    assert explainer.top_k(once, 3).values.shape == (50, 3), "test points may be read once"

    class Random(Network):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x))

    with pytest.raises(ValueError, match="the model gives other features for the same batch"):
        RPSLJE(Random(), loader(data))


@dataclasses.dataclass
class Graph:
    """A batch whose repr tells nothing of its numbers."""

    x: torch.Tensor
    edges: torch.Tensor
    y: torch.Tensor

    def __repr__(self):
        return f"Graph(x={list(self.x.shape)})"


class Keyed:
    """The same with keys, in the manner of graph libraries, and the default repr."""

    def __init__(self, x, edges, y):
        self._store = [("x", x), ("edges", edges), ("y", y)]

    def keys(self):
        return [name for name, _ in self._store]

    def __getitem__(self, name):
        return dict(self._store)[name]

    def __getattr__(self, name):
        if name.startswith("_") or name not in dict(self._store):
            raise AttributeError(name)
        return dict(self._store)[name]


class OnGraphs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(6, 3)

    def forward(self, graph):
        return self.fc((graph.edges @ graph.x).mul_(0.5).tanh())


@pytest.mark.parametrize("kind", [Graph, Keyed])
@pytest.mark.parametrize("sparse", ["to_sparse", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_objects_are_kept_in_a_cache_by_what_they_hold(kind, sparse, data, tmp_path):
    def batch(x):
        return kind(x, getattr(torch.eye(50), sparse)(), data[1])

    options = {"inputs_and_labels": lambda graph: (graph, graph.y), "cache": tmp_path / "cache"}
    first = RPSLJE(OnGraphs(), [batch(data[0])], **options).self_influence()
    expected = RPSLJE.from_arrays((data[0] / 2).tanh(), data[1], OnGraphs().fc.weight, OnGraphs().fc.bias)
    np.testing.assert_allclose(first, expected.self_influence(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(RPSLJE(OnGraphs(), [batch(data[0].clone())], **options).self_influence(), first)
    other = data[0].clone()
    other[-1, -1] += 1e-5
    with pytest.raises(ValueError, match="was made with another loader"):
        RPSLJE(OnGraphs(), [batch(other)], **options)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested:UserWarning", "ignore:Sparse CSR:UserWarning")
def test_hashes_are_of_contents():
    x = torch.arange(6.0)
    alike = [
        ({"a": 1, "b": x}, {"b": x.clone(), "a": 1}),
        ({1, "a", 3}, {3, 1, "a"}),
        (x.reshape(2, 3).T, x.reshape(2, 3).T.contiguous()),
        (torch.eye(3).to_sparse(), torch.eye(3).to_sparse().coalesce()),
        (np.array(["a", None], object), np.array(["a", None], object)),
        (Graph(x, x, x), Graph(x.clone(), x, x)),
    ]
    for one, other in alike:
        assert hashed(one) == hashed(other)
    values = [x, x.double(), x.bfloat16(), x.reshape(2, 3), x.numpy(), x.tolist(), x != 0, x.to(torch.complex64)]
    values += [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), torch.eye(3), torch.nested.nested_tensor([x, x])]
    values += [Graph(x, x, x), Keyed(x, x, x), "a", b"a", 1, 1.0, True, None, ("a", "b"), ("ab",), ["ab"], {"a": "b"}]
    values += [
        x.to(torch.complex64).mul(1j).conj(),
        torch.zeros(0),
        torch.zeros(0, 2),
        np.float32(1),
        [[1], [2]],
        [[1, 2]],
    ]
    assert len({hashed(value) for value in values}) == len(values)
    for value in (object(), lambda: 0, iter([1]), nn.Linear(1, 1), Graph(x, x, lambda: 0)):
        with pytest.raises(ValueError, match="whose content cannot be hashed: leave cache out"):
            hashed(value)


def test_the_fingerprint_sees_every_bit():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1).bfloat16())
    before = fingerprint(model)
    assert before == fingerprint(model)
    for tensor in (*model.parameters(), *model.buffers()):
        kept = tensor.detach().clone()
        for k in range(tensor.numel()):
            tensor.data.view(-1)[k] += 1
            assert fingerprint(model) != before
            tensor.data.copy_(kept)
    with torch.no_grad():
        model[0].weight[[0, 1]] = model[0].weight[[1, 0]]
    assert fingerprint(model) != before


def test_what_cannot_be_hashed_is_refused_for_a_cache_alone(data, tmp_path):
    class Handle:
        def __init__(self, x):
            self.x, self.opened = x, lambda: None

    options = {"inputs_and_labels": lambda batch: (batch[0].x, batch[1])}
    batches = [(Handle(data[0]), data[1])]
    read = {"inputs_and_labels": lambda batch: ((batch[0],), batch[1])}

    class OnHandles(Network):
        def forward(self, handle):
            return super().forward(handle.x)

    expected = RPSLJE(Network(), loader(data)).self_influence()
    for model, given in ((Network(), options), (OnHandles(), read)):
        np.testing.assert_allclose(RPSLJE(model, batches, **given).self_influence(), expected, rtol=1e-3, atol=1e-6)
    RPSLJE(Network(), batches, **options, cache=tmp_path / "tensors")
    with pytest.raises(ValueError, match="a batch holds function, whose content cannot be hashed"):
        RPSLJE(OnHandles(), batches, **read, cache=tmp_path / "new" / "cache")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_caches_of_every_precision(dtype, data, tmp_path):
    model, batches = Network().to(dtype), [(data[0].to(dtype), data[1])]
    first = RPSLJE(model, batches, cache=tmp_path / "cache")
    again = RPSLJE(model, batches, cache=tmp_path / "cache")
    np.testing.assert_allclose(again.self_influence(), first.self_influence())
    np.testing.assert_allclose(RPSLJE.from_cache(tmp_path / "cache").self_influence(), first.self_influence())


def test_a_fill_that_fails_leaves_nothing_and_takes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr("explainer.attribution.cache.SHARD", 40)
    bad = [(data[0][:20], data[1][:20]), (data[0][20:, :2], data[1][20:])]
    with pytest.raises(ValueError, match="cannot take a batch"):
        RPSLJE(Network(), bad, cache=tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="cannot take a batch"):
        RPSLJE(Network(), bad, cache=tmp_path)
    monkeypatch.setattr(collect.Features, "_settings", lambda *_: {}["absent"])
    with pytest.raises(KeyError):
        RPSLJE(Network(), loader(data), cache=tmp_path)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["mine.txt"]
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(ValueError, match="labels.npy holds files of others: give the cache a folder of its own"):
        RPSLJE(Network(), loader(data), cache=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["labels.npy", "mine.txt"]
    Collected(tmp_path / "c").dropped()
    assert not (tmp_path / "c").exists()


def test_a_cache_is_not_refilled_by_another_model_with_checkpoints(data):
    model = Network()
    with pytest.raises(ValueError, match="a checkpoint is of another model"):
        TracIn(model, loader(data), checkpoints=[{**model.state_dict(), "fc.weight": torch.zeros(4, 8)}])
    with pytest.raises(ValueError, match="a checkpoint is of another model"):
        TracIn(model, loader(data), checkpoints=[{**model.state_dict(), "more": torch.zeros(4, 8)}])
    assert fingerprint(model) == fingerprint(Network())
