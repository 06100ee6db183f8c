"""The noise model over several moments: how each counts, and the network's own probabilities beside it."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from test_label_errors import digits, fitted, found

from config import UserError
from explainer.label_errors import Moment, find_label_errors, judged, proposed, scored
from explainer.label_errors.noise import LEAST, RIDGES, doubted, information
from explainer.label_errors.scores import own_probabilities, probabilities


def memorized(y, seed=0):
    """Features that hold the labels and nothing else."""
    return np.column_stack([np.random.default_rng(seed).normal(size=(len(y), 40)), 20.0 * y])


def doubt(F, y):
    """What a set of features says of the labels, and how much, at every ridge."""
    for ridge in RIDGES:
        result = judged(F, y, 2, ridge)
        q, given = (P.numpy()[np.arange(len(y)), y] for P in (result.q, result.pi @ result.noise))
        p = y.mean()
        entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
        yield -np.log(q), max(1 + np.log(given).mean() / entropy, LEAST)


def test_moments_count_by_what_they_predict_of_the_labels():
    X, y, *_ = digits()
    noise = np.random.default_rng(1).normal(size=X.shape)
    score, _ = doubted([X, noise, memorized(y)], y, 2, counts=())
    parts = [pair for F in (X, noise, memorized(y)) for pair in doubt(F, y)]
    weights = np.array([weight for _, weight in parts]).reshape(3, -1).mean(1).repeat(len(RIDGES))
    expected = sum(weight * doubts for (doubts, _), weight in zip(parts, weights)) / weights.sum()
    np.testing.assert_allclose(score, expected, atol=1e-9)
    some, none, all_of_it = weights[:: len(RIDGES)]
    assert none < 0.1 < some < all_of_it


def test_information_is_a_share_of_the_entropy_and_never_nothing():
    X, y, *_ = digits((1, 4, 7))
    value = information(judged(X, y, 3), torch.as_tensor(y))
    assert 0.3 < value < 1
    shuffled = np.random.default_rng(0).permutation(y)
    assert LEAST <= information(judged(X, shuffled, 3), torch.as_tensor(shuffled)) < 0.1


def test_a_moment_that_says_nothing_spoils_little():
    X, y, wrong, _ = digits()
    noise = np.random.default_rng(1).normal(size=X.shape)
    alone, both = (found(doubted(sets, y, 2)[0], wrong) for sets in ([X], [noise, X]))
    assert both > alone - 0.1 and found(doubted([noise], y, 2)[0], wrong) < 0.6


def test_the_networks_own_probabilities_are_half_of_the_score():
    X, y, wrong, _ = digits()
    sets = [memorized(y, seed) for seed in (0, 1)]  # as of features that have memorized from the first epoch on
    p = expit(fitted(X, y, 2).weight @ X.T)[0]
    p = 0.5 + (p - 0.5) * np.linspace(0.1, 1, len(p))
    own = np.column_stack([1 - p, p])
    without, score = doubted(sets, y, 2)[0], doubted(sets, y, 2, own=own)[0]
    contradicted = -np.log(own[np.arange(len(y)), y])
    np.testing.assert_allclose(score, (without + contradicted * without.mean() / contradicted.mean()) / 2)
    shares = []
    for more in ({}, {"probabilities": np.stack([own, own])}):
        table = find_label_errors(sets[1], y, sets[:1], neighbours=0, **more)
        shares.append(wrong[table["index"][: wrong.sum()]].mean())
    assert shares[1] > shares[0] + 0.2


def test_heads_count_from_two_moments_on():
    X, y, *_ = digits()
    head = fitted(X, y, 2)
    before = Moment(X[:, :9], y, np.zeros((1, 9)))
    assert own_probabilities([head]) is None and own_probabilities([before, head]) is None
    other = head._replace(weight=head.weight / 3)
    own = own_probabilities([before, other, head])
    np.testing.assert_array_equal(own, [probabilities(other), probabilities(head)])
    score, _ = proposed([before, other, head])
    expected, _ = doubted([X[:, :9], X, X], y, 2, own=own.mean(0))
    np.testing.assert_array_equal(score, expected)
    np.testing.assert_array_equal(scored("noise", [head]), doubted([X], y, 2)[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda P: P[0], r"shape \(\d+, 2\): give \(\d+, 2\) for each"),
        (lambda P: P[:, :5], r"shape \(2, 5, 2\)"),
        (lambda P: P[:0], r"shape \(0, "),
        (lambda P: P * 3, "do not sum to 1"),
        (lambda P: np.where(P == P, np.nan, P), "do not sum to 1"),
    ],
)
def test_bad_probabilities(change, said):
    X, y, *_ = digits()
    with pytest.raises(UserError, match=said):
        find_label_errors(X, y, [X], probabilities=change(np.full((2, len(y), 2), 0.5)))
