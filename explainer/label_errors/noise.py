"""Logistic regression that does not trust its labels, every point judged by a head that was fitted without it.

Letters: F (n,D) features, standardized, with a constant 1; y (n,) given labels, 0 ... C-1; C classes; T (C,C) the
noise: T[c,k] is the probability that a point of class c carries the label k; pi (n,C) the probability of each class by
the features alone; q (n,C) the probability that the class is c, by the features and the given label.

The model is y ~ T[c,.], c ~ pi(f), fitted by expectation maximization (Raykar et al., 2010; Bootkrajang and Kaban,
2012):

    E   q_i(c) = pi_i(c) T[c, y_i] / sum over c' of the same
    M   T[c,k] = sum of q_i(c) over the points i with label k, over its sum over all points, with two priors: a weak one
                 of little noise, and one of equal noise of all classes, EQUAL n/C points of each class, since classes
                 that overlap look like noise of one of them
        head   = the minimum of the mean cross-entropy of pi against q, plus ridge/2n |Theta|^2

Two things are new. First, in the E step pi_i comes from the head without point i, in closed form,

    z_-i = z_i + h_i (p_i - q_i) / (1 - h_i p_i (1 - p_i)),        h_i = f_i' (n H)^-1 f_i,

the leverage-corrected logit of `explainer.attribution.expansion.Expansion.leave_one_out`. Otherwise a point of high
leverage vouches for its own label, and the more so in every round. Second, the labels of the nearest points, without
the point itself, are features beside the others (`votes`), so that classes that no hyperplane divides are not taken for
noise. Classes beyond two are one head each against the rest, pi their normalized probabilities (Zadrozny and Elkan,
2002), so that a round is C factorizations of (D,D).
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import one_hot, softplus
from tqdm import tqdm

from config import UserError
from explainer.attribution.checks import number

ROUNDS = 12
RIDGES = 10.0, 100.0  # of the sum of the losses, on standardized features; all are fitted, and averaged
VOTES = 10, 30  # of how many nearest points the labels are features
VOTERS = 20000  # among at most so many points, drawn by seed, the nearest are looked for
STEPS, TOLERANCE = 25, 1e-6  # of a head's fit, on its parameters
NOISE = 0.1  # of every class, before the first round,
PRIOR = 10.0  # and so many points of each class that speak for it in every round
EQUAL = 0.3  # of the points of a class: so many speak for noise that is the same in all classes, as much as there is
LEAST = 1e-3  # of the information, so that features that say nothing still order the points
LARGEST_LEVERAGE = 0.999  # of h p (1 - p): beyond it a point is a direction of its own


class Judgement(NamedTuple):
    """q: the probability (n,C) of each class by features and given label; pi: by the features alone; noise: T (C,C)."""

    q: Tensor
    pi: Tensor
    noise: Tensor


def judged(F, y, C, ridge=1.0, rounds=ROUNDS):
    """A `Judgement` of the labels y (n,), 0 ... C-1, of points with features F (n,d), in float64.

    F need not be standardized; constant columns have no part. ridge: of the sum of the losses, on standardized
    features.
    """
    number("ridge", ridge, above=0)
    number("rounds", rounds, least=1, whole=True)
    F, y = standardized(F), torch.as_tensor(y).long()
    K = 1 if C == 2 else C  # heads: one for class 1 of two, else one a class
    given = one_hot(y, C).double()
    prior = torch.full((C, C), NOISE / (C - 1), dtype=torch.float64).fill_diagonal_(1 - NOISE)
    T = prior
    q, theta = given, F.new_zeros(F.shape[1], K)
    for _ in range(rounds):
        theta, z = _round(F, q[:, 1:] if K == 1 else q, theta, ridge)
        pi = _classes(z)
        q = pi * T[:, y].T
        q = q / q.sum(1, keepdim=True)
        T = _noise(q.T @ given, prior)
    return Judgement(q, pi, T)


def doubted(sets, y, C, ridges=RIDGES, rounds=ROUNDS, counts=VOTES, own=None):
    """How improbable the given labels y (n,) are, (n,), and the probabilities (n,C) of the classes without the points.

    Means over the sets of features of the same points, each (n,d), and over the ridges: of -log q_i(y_i), weighted by
    how much a set says of the labels (`information`); and of pi, weighted by that and by how much it doubts, the mean
    of its -log q_i(y_i) over the points: features that have learned every label by heart propose none. counts: of the
    votes, none where the features are made of the labels. own (n,C): the network's own probabilities, the mean over its
    training; their -log of the given label, scaled to the same mean, is half of the score.
    """
    y = torch.as_tensor(y).long()
    total, score = 0.0, torch.zeros(len(y), dtype=torch.float64)
    probability = torch.zeros(len(y), C, dtype=torch.float64)
    for F in tqdm(sets, "moments", disable=None if len(sets) > 1 else True, leave=False):
        F = torch.cat([torch.as_tensor(F).double(), votes(F, y, C, counts)], 1)
        judgements = [judged(F, y, C, ridge, rounds) for ridge in ridges]
        weight = sum(information(found, y) for found in judgements) / len(ridges)
        total += weight * len(ridges)
        for found in judgements:
            doubt = -_of(found.q, y).log()
            score += weight * doubt
            probability += weight * doubt.mean().clamp_min(1e-12) * found.pi
    score /= total
    if own is not None:
        contradicted = -_of(torch.as_tensor(own).double(), y).log()
        score = (score + contradicted * score.mean() / contradicted.mean().clamp_min(1e-300)) / 2
    return score.numpy(), (probability / probability.sum(1, keepdim=True)).numpy()


def information(found, y):
    """How much of the given labels y (n,) a `Judgement` predicts, each without the point, as a share of their entropy.

    1 - (mean of -log sum over c of pi_i(c) T[c, y_i]) / H(y), and LEAST where that is less: near 0 early in a training,
    before the features say anything, and near 1 where they have learned every label by heart, which doubts none.
    """
    given = _of(found.pi @ found.noise, y).log().mean()
    shares = torch.bincount(y, minlength=found.pi.shape[1]) / len(y)
    return max(float(1 + given / torch.special.entr(shares).sum().clamp_min(1e-12)), LEAST)


def _of(P, y):
    """The probabilities (n,) of the labels y (n,) in P (n,C)."""
    return P.gather(1, y[:, None])[:, 0].clamp_min(1e-300)


def votes(F, y, C, counts=VOTES):
    """The labels that the nearest points carry, as features (n, len(counts) (C-1)): shares of the classes 1 ... C-1.

    By Euclidean distance of the standardized features F (n,d), the point itself left out, the k-th nearest weighted
    1/k. Wrong labels among them blur a vote, but none of them is the point's own.
    """
    y, F = torch.as_tensor(y).long(), standardized(F).numpy()
    n = len(y)
    voters = np.arange(n) if n <= VOTERS else np.sort(np.random.RandomState(0).choice(n, VOTERS, replace=False))
    most = min(max(counts, default=0), len(voters) - 1)
    if not most:
        return torch.zeros(n, 0, dtype=torch.float64)
    near = voters[NearestNeighbors(n_neighbors=most + 1).fit(F[voters]).kneighbors(F, return_distance=False)]
    itself = np.argsort(near == np.arange(n)[:, None], axis=1, kind="stable")  # moves it to the end
    labels = one_hot(y[np.take_along_axis(near, itself, 1)[:, :most]], C)[:, :, 1:].double()  # (n,most,C-1)
    weight = 1 / torch.arange(1, most + 1, dtype=torch.float64)
    shares = [torch.einsum("nkc,k->nc", labels[:, :k], weight[:k] / weight[:k].sum()) for k in counts]
    return torch.cat(shares, 1)


def standardized(F):
    """F (n,d) with mean 0 and standard deviation 1, without constant columns, and a constant 1: (n,D), float64."""
    F = torch.as_tensor(F).double()
    if not torch.isfinite(F).all():
        row = int((~torch.isfinite(F)).any(1).nonzero()[0, 0])
        raise UserError(f"the features of row {row} are not finite: mend or leave out that point")
    F = F - F.mean(0)
    scale = F.square().mean(0).sqrt()
    kept = scale > 1e-9 * scale.max().clamp_min(1e-300)
    return torch.cat([F[:, kept] / scale[kept], F.new_ones(len(F), 1)], 1)


def _noise(counts, prior):
    """T (C,C) from how many points of each class carry each label, (C,C), and the priors."""
    C = len(counts)
    level = 1 - float(counts.diagonal().sum() / counts.sum())
    equal = torch.full_like(counts, level / (C - 1)).fill_diagonal_(1 - level)
    T = counts + PRIOR * prior + EQUAL * float(counts.sum()) / C * equal
    return T / T.sum(1, keepdim=True)


def _round(F, targets, theta, ridge):
    """Fit the heads theta (D,K) to targets (n,K); returns them and every point's logits without it, (n,K)."""
    theta, z = theta.clone(), torch.empty_like(targets)
    for k in range(targets.shape[1]):
        t = targets[:, k]
        theta[:, k], logits = _minimum(F, t, theta[:, k], ridge)
        p = logits.sigmoid()
        h = torch.linalg.solve_triangular(_factor(F, p, ridge), F.T, upper=False).square().sum(0)
        z[:, k] = logits + h * (p - t) / (1 - (h * p * (1 - p)).clamp_max(LARGEST_LEVERAGE))
    return theta, z


def _minimum(F, t, theta, ridge):
    """Newton's method for one head (D,) and targets t (n,), from theta; returns it and its logits (n,)."""
    logits = F @ theta
    value = _value(logits, t, theta, ridge)
    for _ in range(STEPS):
        p = logits.sigmoid()
        gradient = F.T @ (p - t) + ridge * theta
        step = torch.cholesky_solve(gradient[:, None], _factor(F, p, ridge))[:, 0]
        size = 1.0
        while size > 1e-6:
            candidate = theta - size * step
            z = F @ candidate
            found = _value(z, t, candidate, ridge)
            if found <= value + 1e-12 * abs(value):
                break
            size /= 2
        theta, logits, value = candidate, z, found
        if size * step.abs().max() < TOLERANCE:
            break
    return theta, logits


def _value(z, t, theta, ridge):
    """The sum of the losses of logits z (n,) against targets t (n,), with the ridge."""
    return float((softplus(z) - t * z).sum() + ridge / 2 * theta.square().sum())


def _factor(F, p, ridge):
    """The Cholesky factor of n H, the Hessian of the sum of the losses with the ridge."""
    weighted = F * (p * (1 - p)).sqrt()[:, None]
    return torch.linalg.cholesky(weighted.T @ weighted + ridge * torch.eye(F.shape[1], dtype=F.dtype))


def _classes(z):
    """The probabilities (n,C) of the classes from the logits of their heads."""
    p = z.sigmoid()
    if z.shape[1] == 1:
        return torch.cat([1 - p, p], 1)
    p = p.clamp_min(1e-300)
    return p / p.sum(1, keepdim=True)
