"""What can be asked: candidates, means over test points, sums by point, ties; and explainers as objects."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from config import UserError
from explainer import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TracIn, rps_lje
from explainer.attribution.cache import Points
from explainer.attribution.problem import _place
from explainer.attribution.topk import largest

METHODS = [RPSLJE, InfluenceFunction, GroupInfluence, RPSL2, TracIn]
N, D, C = 60, 4, 3


@pytest.fixture
def arrays():
    g = torch.Generator().manual_seed(0)
    F, y = torch.randn(N, D, generator=g, dtype=torch.float64), torch.randint(C, (N,), generator=g)
    return F, y, torch.randn(C, D, generator=g).double(), torch.randn(C, generator=g).double()


@pytest.fixture
def network():
    torch.manual_seed(0)
    X = torch.randn(60, 4)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    return model, DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), 20), [X[:3]]


def scores(explainer, *args, **kwargs):
    return np.concatenate(list(explainer.influence(*args, **kwargs)))


@pytest.mark.parametrize("method", METHODS)
def test_candidates_that_are_the_training_points(method, arrays):
    F, y, *head = arrays
    explainer, T = method.from_arrays(F, y, *head), F[:5] + 0.1
    found = scores(explainer, T, candidates=(F[10:30], y[10:30]))
    np.testing.assert_allclose(found, scores(explainer, T)[:, 10:30], atol=1e-12)
    best = explainer.top_k(T, k=4, candidates=(F[10:30], y[10:30]))
    np.testing.assert_array_equal(best.indices, np.argsort(-found, 1, kind="stable")[:, :4])
    np.testing.assert_allclose(best.values, np.take_along_axis(found, best.indices, 1))


def test_a_candidate_says_what_adding_it_does(arrays):
    from explainer.attribution.fitting import fit_head

    F, y, W, b = arrays
    start = InfluenceFunction.from_arrays(F, y, W, b, decay=0.1)
    fitted = fit_head(start.rows, start.head.targets(y), start.head, 0.1, 1e-12)
    explainer = InfluenceFunction.from_arrays(F, y, fitted.weight[:-1].T, fitted.weight[-1], decay=0.1)
    g = torch.Generator().manual_seed(3)
    new, labels, T = torch.randn(25, D, generator=g).double(), torch.randint(C, (25,), generator=g), F[:3]
    found = scores(explainer, (T, y[:3]), target="label", candidates=(new, labels))
    rows = torch.cat([T, torch.ones(3, 1)], 1)
    changes = []
    for f, label in zip(new, labels):
        more = InfluenceFunction.from_arrays(torch.cat([F, f[None]]), torch.cat([y, label[None]]), W, b)
        refit = fit_head(more.rows, more.head.targets(more.labels), fitted, 0.1 * N / (N + 1), 1e-12)
        loss = [nn.functional.cross_entropy(h.logits(rows), y[:3], reduction="none") for h in (fitted, refit)]
        changes.append((loss[1] - loss[0]).numpy())
    assert np.corrcoef(found.ravel(), -np.stack(changes, 1).ravel())[0, 1] > 0.97


def test_candidates_from_a_loader(network):
    model, loader, test = network
    explainer = RPSLJE(model, loader)
    found = scores(explainer, test, candidates=loader)
    np.testing.assert_allclose(found, scores(explainer, test), atol=1e-6)
    with pytest.raises(UserError, match="candidates have no labels"):
        explainer.influence(test, candidates=test)
    with pytest.raises(UserError, match="k is 7"):
        explainer.top_k(test, k=7, candidates=[(torch.randn(6, 4), torch.ones(6).long())])


@pytest.mark.parametrize("limit", [2**28, 3000])
@pytest.mark.parametrize("method", METHODS)
def test_a_mean_over_test_points(method, arrays, limit):
    F, y, *head = arrays
    explainer = method.from_arrays(F, y, *head, memory_limit=limit)
    T = (F[:9] + 0.1, y[:9])
    expected = scores(explainer, T, target="label").mean(0, keepdims=True)
    np.testing.assert_allclose(scores(explainer, T, target="label", mean=True), expected, atol=1e-12)
    best = explainer.top_k(T, k=5, target="label", mean=True)
    np.testing.assert_array_equal(best.indices, np.argsort(-expected, 1, kind="stable")[:, :5])
    assert best.classes.tolist() == [-1]
    assert explainer.top_k(T, k=1, target=2, mean=True).classes.tolist() == [2]


@pytest.mark.parametrize("limit", [2**28, 3000])
@pytest.mark.parametrize("method", METHODS)
def test_sums_by_point(method, arrays, limit):
    F, y, *head = arrays
    groups = torch.arange(N) // 4  # 15 points of four positions
    explainer = method.__new__(method)
    more = {"more": ()} if method is TracIn else {}
    explainer._begin(Points(F, y, *head, groups), memory_limit=limit, **more)
    single = scores(explainer, F[:6])
    assert single.shape == (6, N)
    found = scores(explainer, F[:6], per="point")
    np.testing.assert_allclose(found, single.reshape(6, 15, 4).sum(2), atol=1e-12)
    best = explainer.top_k(F[:6], k=3, per="point")
    np.testing.assert_array_equal(best.indices, np.argsort(-found, 1, kind="stable")[:, :3])
    out = explainer.influence(F[:6], per="point", mean=True)
    np.testing.assert_allclose(np.concatenate(list(out)), found.mean(0, keepdims=True), atol=1e-12)


def test_tokens_of_a_model_are_summed_by_sentence():
    torch.manual_seed(0)
    X, y = torch.randn(12, 5, 4), torch.randint(3, (12, 5))
    y[:, 4] = -100  # no label, no row
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    explainer = InfluenceFunction(model, DataLoader(TensorDataset(X, y), 5), decay=0.1)
    test = DataLoader(TensorDataset(X[:2] + 0.1, y[:2]), 2)
    rows = scores(explainer, test, target="label")
    assert rows.shape == (8, 48)
    with torch.no_grad():
        F = model[:-1](X)[:, :4].reshape(48, 6)
    flat = InfluenceFunction.from_arrays(
        F, y[:, :4].reshape(-1), model[-1].weight.detach(), model[-1].bias.detach(), decay=0.1
    )
    with torch.no_grad():
        T = model[:-1](X[:2] + 0.1)[:, :4].reshape(8, 6)
    np.testing.assert_allclose(rows, scores(flat, (T, y[:2, :4].reshape(-1)), target="label"), atol=1e-5)
    found = scores(explainer, test, target="label", per="point")
    np.testing.assert_allclose(found, rows.reshape(2, 4, 12, 4).sum((1, 3)), atol=1e-5)


def test_ties_are_by_index_whatever_k_and_the_limit():
    g = torch.Generator().manual_seed(0)
    F, y = torch.randn(3, 5, generator=g).repeat(40, 1), torch.tensor([0, 1, 1]).repeat(40)
    W, T = torch.randn(2, 5, generator=g), torch.randn(6, 5, generator=g)
    for method in METHODS:
        for limit in (2**28, 2000, 300):
            explainer = method.from_arrays(F, y, W, memory_limit=limit, **_damping(method))
            for order in ("ascending", "descending"):
                for k in (1, 4, 41, 120):
                    for row in explainer.top_k(T, k=k, order=order).indices:
                        for run in (row[:40], row[40:80], row[80:]):
                            expected = list(range(run[0] % 3, 120, 3))[: len(run)] if len(run) else []
                            assert run.tolist() == expected, (method, k, limit)


def _damping(method):
    return {"damping": 0.1} if method in (RPSLJE, InfluenceFunction, GroupInfluence) else {}


def test_largest_is_a_stable_sort():
    g = torch.Generator().manual_seed(0)
    for levels in (1, 2, 5, 1000):
        S = torch.randint(levels, (40, 30), generator=g).float()
        whole = np.argsort(-S.numpy(), 1, kind="stable")
        for k in (1, 3, 29, 30, 50):
            values, columns = largest(S, k)
            np.testing.assert_array_equal(columns, whole[:, :k])
            np.testing.assert_array_equal(values, np.take_along_axis(S.numpy(), whole[:, :k], 1))


@pytest.mark.parametrize("method", METHODS)
def test_an_explainer_can_be_copied_and_pickled(method, network):
    model, loader, test = network
    more = {"checkpoints": [copy.deepcopy(model.state_dict())] * 2} if method is TracIn else {}
    explainer = method(model, loader, **more)
    for other in (copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))):
        np.testing.assert_array_equal(scores(other, test), scores(explainer, test))
        np.testing.assert_array_equal(other.self_influence(), explainer.self_influence())


def test_arrays_with_negative_strides(arrays):
    F, y, W, b = (a.numpy() for a in arrays)
    back = (F[::-1], y[::-1], W[:, ::-1][:, ::-1], b[::-1][::-1])
    for method in METHODS:
        plain, other = method.from_arrays(F, y, W, b), method.from_arrays(*back)
        expected = scores(plain, (F[:5], y[:5]), target="label")[::-1, ::-1]
        found = scores(other, (F[:5][::-1], y[:5][::-1]), target="label")
        np.testing.assert_allclose(found, expected, atol=1e-10)
        np.testing.assert_allclose(scores(plain, F[:4], target=y[:4][::-1])[:, 0].shape, 4)
    group = GroupInfluence.from_arrays(F, y, W, b, damping=0.1)
    np.testing.assert_allclose(group.effect(np.arange(5)[::-1], F[:3]), group.effect(np.arange(5), F[:3]))
    np.testing.assert_allclose(
        TracIn.from_arrays([F, F], y, [W, W], learning_rates=np.array([1.0, 2.0])[::-1]).rates, [2.0, 1.0]
    )
    W_f = RPSLJE.from_arrays(F, y, W, b, sample_weight=np.arange(1, N + 1)[::-1]).sample_weight
    assert W_f[0] == N


def test_a_step_to_the_anchor_that_is_too_long_says_so():
    g = torch.Generator().manual_seed(0)
    F = 1000 + torch.randn(80, 3, generator=g)
    y, theta = (F[:, 0] > 1000).long(), torch.zeros(1, 3)
    with pytest.raises(
        UserError, match="the step to the anchor is too long: lr 0.01 moves the logits by up to .* below"
    ):
        RPSLJE.from_arrays(F, y, theta)
    assert RPSLJE.from_arrays(F, y, theta, lr=1e-9).n == 80
    with pytest.raises(UserError, match="the step to the anchor is too long"):
        rps_lje(F, y, theta[0], 0.01)


def test_arrays_are_worked_on_where_they_are(arrays):
    assert _place(torch.empty(3, 2, device="meta")) == torch.device("meta")
    assert _place(np.empty((3, 2))) == "cpu" and _place("features.npy") == "cpu"
    with pytest.raises(UserError, match="device is meta"):
        RPSLJE.from_arrays(torch.empty(N, D, device="meta"), *arrays[1:])


class Tags(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 6), nn.Linear(6, 3)

    def forward(self, ids):
        return self.out(self.embed(ids).tanh())


@pytest.mark.parametrize("method", [RPSLJE, InfluenceFunction, RPSL2, TracIn])
def test_points_without_a_labelled_position_are_counted_wherever_they_stand(method, tmp_path):
    torch.manual_seed(0)
    model, ids, labels = Tags(), torch.randint(10, (12, 5)), torch.randint(3, (12, 5))
    labels[[0, 5, 11]] = -100
    labels[:, 4] = -100
    loader = DataLoader(TensorDataset(ids, labels), 4)
    explainer = method(model, loader)
    rows, groups = scores(explainer, loader, target="label"), explainer.groups.numpy()
    expected = np.zeros((12, 12))
    np.add.at(expected, (groups[:, None], groups[None]), rows)
    explainers = [explainer]
    if method is RPSLJE:
        explainers += [method(model, loader, cache=tmp_path), pickle.loads(pickle.dumps(explainer))]
    for made in explainers:
        found = scores(made, loader, target="label", per="point")
        np.testing.assert_allclose(found, expected, atol=1e-5)
        found = scores(made, loader, target="label", per="point", mean=True)
        np.testing.assert_allclose(found, expected.mean(0, keepdims=True), atol=1e-5)
        best = made.top_k(loader, k=12, target="label", per="point")
        np.testing.assert_allclose(best.values, -np.sort(-expected, 1), atol=1e-5)
        assert best.classes[[0, 5, 11]].tolist() == [-1, -1, -1]
    shifted = DataLoader(TensorDataset(ids[6:], labels[6:]), 4)
    found = scores(explainer, loader, target="label", per="point", candidates=shifted)
    if method is not RPSL2:
        np.testing.assert_allclose(found, expected[:, 6:], atol=1e-5)
    assert found.shape == (12, 6)


def test_a_cache_without_the_count_of_its_points_is_read(tmp_path):
    torch.manual_seed(0)
    model, loader = Tags(), DataLoader(TensorDataset(torch.randint(10, (6, 5)), torch.randint(3, (6, 5))), 4)
    expected = scores(RPSLJE(model, loader, cache=tmp_path), loader, per="point")
    (tmp_path / "count.npy").unlink()
    np.testing.assert_array_equal(scores(RPSLJE(model, loader, cache=tmp_path), loader, per="point"), expected)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32, np.uint16, np.int8, np.bool_])
def test_labels_of_test_points_and_candidates_are_of_any_type(kind, arrays):
    F, y, W, b = arrays
    y = y % 2
    explainer = InfluenceFunction.from_arrays(F, y, W[:1], b[:1])
    given = y.to(kind) if isinstance(kind, torch.dtype) else y.numpy().astype(kind)
    expected = scores(explainer, F[:5], target=y[:5])
    found = scores(explainer, (F[:5], given[:5, None]), target="label", candidates=(F, given))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(scores(explainer, F[:5], target=given[:5]), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int8, np.int32])
def test_indices_of_a_group_are_of_any_whole_type(kind, arrays):
    F, y, W, b = arrays
    explainer = GroupInfluence.from_arrays(F, y, W, b)
    expected = explainer.effect([1, 2, 40], F[:3])
    np.testing.assert_array_equal(explainer.effect(np.array([1, 2, 40], dtype=kind), F[:3]), expected)
