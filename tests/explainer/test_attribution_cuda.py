"""On a GPU: arrays and models are worked on where they are, and give what they give on the CPU."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from explainer import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TracIn
from explainer.evaluation import Evaluation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
METHODS = [RPSLJE, InfluenceFunction, GroupInfluence, RPSL2, TracIn]
HEADS = {"binary": 1, "multiclass": 3, "multilabel": 2, "regression": 2}
N, D = 80, 5


def arrays(kind):
    g = torch.Generator().manual_seed(0)
    C = HEADS[kind]
    y = torch.randint(
        C if kind == "multiclass" else 2, (N, C) if kind in ("multilabel", "regression") else (N,), generator=g
    )
    y = y.double() if kind == "regression" else y
    return (
        torch.randn(N, D, generator=g).double(),
        y,
        torch.randn(C, D, generator=g).double(),
        torch.randn(C, generator=g),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", HEADS)
def test_arrays_are_worked_on_where_they_are(kind, method):
    here, w = arrays(kind), torch.arange(N) % 3
    there = [part.cuda() for part in here]
    one, other = (
        method.from_arrays(*here, head=kind, sample_weight=w),
        method.from_arrays(*there, head=kind, sample_weight=w.cuda()),
    )
    assert other.device.type == "cuda" and other.rows.device.type == "cuda"
    np.testing.assert_allclose(other.self_influence(), one.self_influence(), rtol=1e-7, atol=1e-12)
    for options in ({}, {"mean": True}, {"candidates": 1}):
        found = []
        for explainer, part in ((one, here), (other, there)):
            asked = {**options, "candidates": (part[0][:9], part[1][:9])} if "candidates" in options else options
            target = "label" if kind == "regression" and explainer.unit == "loss" else 1
            best = explainer.top_k((part[0][:7] + 0.1, part[1][:7]), k=4, target=target, **asked)
            found.append((best.values, best.indices, best.classes))
        np.testing.assert_array_equal(found[0][1], found[1][1])
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(found[0][2], found[1][2])


@pytest.mark.parametrize("kind", HEADS)
def test_leave_one_out_and_groups(kind):
    here = arrays(kind)
    one, other = (GroupInfluence.from_arrays(*part, head=kind, decay=0.1) for part in (here, [p.cuda() for p in here]))
    np.testing.assert_allclose(one.leave_one_out().logits, other.leave_one_out().logits, rtol=1e-7)
    found = other.effect([0, 5], here[0][:3].cuda())
    np.testing.assert_allclose(one.effect([0, 5], here[0][:3]), found, rtol=1e-6, atol=1e-12)


def test_models_and_mixed_places():
    torch.manual_seed(0)
    X = torch.randn(60, 4)
    loader = DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), 20)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    expected = RPSLJE(model, loader).top_k([X[:5]], k=3)
    found = RPSLJE(model.cuda(), loader).top_k([X[:5].cuda()], k=3)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-3, atol=1e-5)
    F, y, W, b = arrays("binary")
    mixed = InfluenceFunction.from_arrays(F.cuda(), y.numpy(), W, b)  # the features say where
    plain = InfluenceFunction.from_arrays(F, y, W, b)
    np.testing.assert_allclose(mixed.self_influence(), plain.self_influence(), rtol=1e-8)
    moved = InfluenceFunction.from_arrays(F, y, W.cuda(), b.cuda(), device="cuda")
    np.testing.assert_allclose(moved.self_influence(), plain.self_influence(), rtol=1e-8)


def test_ties_are_by_index():
    g = torch.Generator().manual_seed(0)
    F, y = torch.randn(3, 5, generator=g).repeat(40, 1), torch.tensor([0, 1, 1]).repeat(40)
    W, T = torch.randn(2, 5, generator=g), torch.randn(6, 5, generator=g)
    for limit in (2**28, 300):
        explainer = InfluenceFunction.from_arrays(F.cuda(), y, W, damping=0.1, memory_limit=limit)
        for row in explainer.top_k(T.cuda(), k=50).indices:
            for run in (row[:40], row[40:]):
                assert run.tolist() == list(range(run[0] % 3, 120, 3))[: len(run)]


def test_evaluation():
    F, y, _, _ = arrays("binary")
    one, other = Evaluation(F, y, F[:6], y[:6], 0.1), Evaluation(F.cuda(), y.cuda(), F[:6].cuda(), y[:6].cuda(), 0.1)
    for name in ("leave_out_correlation", "datamodeling_score"):
        values = [getattr(e, name)(e.explainer(InfluenceFunction), number=10) for e in (one, other)]
        assert abs(values[0] - values[1]) < 1e-6
    found = [e.mislabelled_found(InfluenceFunction) for e in (one, other)]
    np.testing.assert_allclose(*found)
