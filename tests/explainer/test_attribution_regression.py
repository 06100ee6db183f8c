"""Regression heads: squared loss is quadratic, so that what the library says is what refits give."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from config import UserError
from explainer import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TracIn

N, D, DECAY = 60, 4, 0.05


def ridge(F, Y, decay, n=N, w=None):
    """Theta (D+1,C), the intercept last and without decay, of the minimum of 1/2n sum w |F Theta - Y|^2 + the decay."""
    F1 = np.concatenate([F, np.ones((len(F), 1))], 1)
    w = np.ones(len(F)) if w is None else w
    ridge = np.diag([n * decay] * F.shape[1] + [0.0])
    return np.linalg.solve(F1.T @ (w[:, None] * F1) + ridge, F1.T @ (w[:, None] * Y))


@pytest.fixture(params=[1, 2])
def given(request):
    rng = np.random.default_rng(request.param)
    F, T = rng.normal(size=(N, D)) + 1, rng.normal(size=(7, D))
    Y = F @ rng.normal(size=(D, request.param)) + rng.standard_t(3, size=(N, request.param))
    Theta = ridge(F, Y, DECAY)
    return F, Y, T, Theta


def made(method, F, Y, Theta, **options):
    options = {"head": "regression", "decay": DECAY, "decay_intercept": False, **options}
    return method.from_arrays(F, Y, Theta[:-1].T, Theta[-1], **options)


def test_leave_one_out_and_effects_are_those_of_refits(given):
    F, Y, T, Theta = given
    out = made(GroupInfluence, F, Y, Theta)
    found = out.leave_one_out().logits.reshape(N, -1)
    for i in range(0, N, 7):
        kept = np.arange(N) != i
        refit = ridge(F[kept], Y[kept], DECAY)
        np.testing.assert_allclose(found[i], F[i] @ refit[:-1] + refit[-1], rtol=1e-8)
        change = T @ (refit - Theta)[:-1] + (refit - Theta)[-1]
        np.testing.assert_allclose(out.effect([i], T, order="newton"), change, rtol=1e-6, atol=1e-9)


def test_scores_follow_a_hundred_refits():
    rng = np.random.default_rng(5)
    F, T = rng.normal(size=(400, D)), rng.normal(size=(5, D))
    Y = F @ rng.normal(size=(D, 1)) + rng.normal(size=(400, 1))
    Theta, goals = ridge(F, Y, DECAY, 400), rng.normal(size=(5, 1))
    refits = [ridge(F[np.arange(400) != i], Y[np.arange(400) != i], DECAY, 400) for i in range(100)]
    at = np.stack([T @ r[:-1] + r[-1] for r in refits], 1)[:, :, 0]  # (5,100)
    start = T @ Theta[:-1] + Theta[-1]
    shares = np.concatenate(list(made(RPSLJE, F, Y, Theta).influence(T)))[:, :100]
    loss = np.concatenate(list(made(InfluenceFunction, F, Y, Theta).influence((T, goals))))[:, :100]
    grown = ((at - goals) ** 2 - (start - goals) ** 2) / 2
    for t in range(5):
        assert np.corrcoef(-shares[t], at[t])[0, 1] > 0.999
        assert np.corrcoef(loss[t], grown[t])[0, 1] > 0.999


def test_the_expansion_is_exact_from_any_anchor(given):
    F, Y, T, Theta = given
    for lr in (0.01, 3.0):
        explainer = made(RPSLJE, F, Y, Theta, lr=lr)
        np.testing.assert_allclose(explainer.reproduced_logits(T), T @ Theta[:-1] + Theta[-1], atol=1e-9)
        for c in range(Y.shape[1]):  # the shares sum to the output
            shares = np.concatenate(list(explainer.influence(T, target=c)))
            np.testing.assert_allclose(shares.sum(1), T @ Theta[:-1, c] + Theta[-1, c], atol=1e-9)


def test_weights_of_points(given):
    F, Y, T, _ = given
    w = np.random.default_rng(0).integers(0, 4, N).astype(float)
    out = made(GroupInfluence, F, Y, ridge(F, Y, DECAY, w=w), sample_weight=w)
    np.testing.assert_allclose(out.gradient.numpy(), 0, atol=1e-10)
    found = out.leave_one_out().logits.reshape(N, -1)
    for i in range(0, N, 11):
        kept = np.arange(N) != i
        refit = ridge(F[kept], Y[kept], DECAY, w=w[kept])
        np.testing.assert_allclose(found[i], F[i] @ refit[:-1] + refit[-1], rtol=1e-8)


def test_rps_l2_and_tracin(given):
    F, Y, T, Theta = given
    l2 = made(RPSL2, F, Y, Theta, lmbd=0.01)
    F1, Z = np.concatenate([F, np.ones((N, 1))], 1), F @ Theta[:-1] + Theta[-1]
    fitted = np.linalg.solve(F1.T @ F1 + N * 0.02 * np.eye(D + 1), F1.T @ Z)
    np.testing.assert_allclose(l2.parameters.numpy(), fitted, rtol=1e-6)
    tracin = made(TracIn, F, Y, Theta, learning_rates=0.5)
    goals, T1 = np.zeros((7, Y.shape[1])), np.concatenate([T, np.ones((7, 1))], 1)
    expected = 0.5 * (T1 @ F1.T) * ((T1 @ Theta - goals) @ (Z - Y).T)
    np.testing.assert_allclose(np.concatenate(list(tracin.influence((T, goals)))), expected, rtol=1e-6)


def test_a_network_with_one_output():
    torch.manual_seed(0)
    X, net = torch.randn(50, 3), nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    y = X[:, 0] - X[:, 1].square()
    explainer = RPSLJE(net, DataLoader(TensorDataset(X, y), 20), head="regression", decay=1e-3)
    frame = explainer.top_k(DataLoader(TensorDataset(X[:4]), 4), k=3).to_frame()
    assert len(frame) == 12 and set(frame["class"]) == {0}
    with pytest.raises(UserError, match="head='regression'"):
        RPSLJE(net, DataLoader(TensorDataset(X, y), 20))


def test_what_a_regression_needs(given):
    F, Y, T, Theta = given
    with pytest.raises(UserError, match="needs labels of the test points"):
        made(InfluenceFunction, F, Y, Theta).influence(T)
    with pytest.raises(UserError, match="the label of row 3 is"):
        made(InfluenceFunction, F, np.where(np.arange(N)[:, None] == 3, np.nan, Y), Theta)
    with pytest.raises(UserError, match="class_weight of a regression head"):
        made(InfluenceFunction, F, Y, Theta, class_weight="balanced")
    with pytest.raises(UserError, match="labels have the shape"):
        made(InfluenceFunction, F, np.ones((N, 3)), Theta)
    if Y.shape[1] == 2:
        with pytest.raises(UserError, match="2 outputs: give target="):
            made(RPSLJE, F, Y, Theta).influence(T)
