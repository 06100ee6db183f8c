"""The votes of the nearest points in the noise model."""

import numpy as np
import pytest
import torch
from test_label_errors import digits, found

from explainer.label_errors import noise
from explainer.label_errors.noise import doubted, votes


@pytest.mark.parametrize("classes", [(3, 8), (1, 4, 7)])
def test_votes_are_the_labels_of_the_nearest_points_without_the_point(classes):
    X, y, *_ = digits(classes)
    C, F = len(classes), (X - X.mean(0))[:, X.std(0) > 0] / X.std(0)[X.std(0) > 0]
    V = votes(X, y, C, (1, 7)).numpy()
    assert V.shape == (len(y), 2 * (C - 1))
    for i in range(0, len(y), 23):
        distances = np.square(F - F[i]).sum(1)
        distances[i] = np.inf
        near, weights = np.argsort(distances)[:7], 1 / np.arange(1, 8)
        for c in range(1, C):
            assert V[i, c - 1] == (y[near[0]] == c)
            assert V[i, C - 1 + c - 1] == pytest.approx(weights[y[near] == c].sum() / weights.sum())
    other = y.copy()
    other[5] = (other[5] + 1) % C
    np.testing.assert_array_equal(votes(X, other, C)[5], votes(X, y, C)[5])
    assert votes(X, y, C, ()).shape == (len(y), 0) and votes(X[:4], y[:4], C).shape == (4, 2 * (C - 1))
    twins = votes(np.repeat(X[:3], 40, 0), np.arange(120) % C, C, (10,))  # of 40 equal points, the others vote
    assert torch.isfinite(twins).all()


def test_few_points_may_vote_for_many(monkeypatch):
    X, y, *_ = digits()
    monkeypatch.setattr(noise, "VOTERS", 60)
    V = votes(X, y, 2, (5,)).numpy()
    voters = np.sort(np.random.RandomState(0).choice(len(y), 60, replace=False))
    F = (X - X.mean(0))[:, X.std(0) > 0] / X.std(0)[X.std(0) > 0]
    for i in (voters[0], voters[0] + 1, 11):
        others = voters[voters != i]
        near = others[np.argsort(np.square(F[others] - F[i]).sum(1))[:5]]
        weights = 1 / np.arange(1, 6)
        assert V[i, 0] == pytest.approx(weights @ y[near] / weights.sum())


def test_votes_tell_classes_apart_that_no_hyperplane_does():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(600, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    wrong = np.zeros(600, bool)
    wrong[generator.permutation(600)[:60]] = True
    given = np.where(wrong, 1 - y, y)
    with_votes, without = (doubted([X], given, 2, counts=counts)[0] for counts in ((10, 30), ()))
    assert found(with_votes, wrong) > 0.7 > 0.3 > found(without, wrong)
