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
2002), so that a round is C factorizations of (D,D). A class of fewer than FEW points, such as a mistyped name, has no
head: without the point nothing is left to learn it from, and its probability is the share that the others have.
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn import config_context
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import one_hot, softplus
from tqdm import tqdm

from config import UserError
from explainer.attribution.checks import number
from explainer.attribution.rows import MEMORY
from explainer.label_errors.columns import standardized
from explainer.label_errors.duplicates import Copies

ROUNDS = 12
RIDGES = 10.0, 100.0  # of the sum of the losses, on standardized features; all are fitted, and averaged
VOTES = 10, 30  # of how many nearest points the labels are features
VOTERS = 20000  # among at most so many points, drawn by seed, the nearest are looked for
STEPS, TOLERANCE = 25, 1e-6  # of a head's fit, on its parameters
NOISE = 0.1  # of every class, before the first round,
PRIOR = 10.0  # and so many points of each class that speak for it in every round
EQUAL = 0.3  # of the points of a class: so many speak for noise that is the same in all classes, as much as there is
LEAST = 1e-3  # of the information, so that features that say nothing still order the points
FEW = 3  # points that a class has a head from: of two there is one left without the point
NONE = 0.01  # points that a class is reckoned to have beside its others
LARGEST_LEVERAGE = 0.999  # of h p (1 - p): beyond it a point is a direction of its own


class Judgement(NamedTuple):
    """q: the probability (n,C) of each class by features and given label; pi: by the features alone; noise: T (C,C).

    doubt (n,C): -log of the probability that a label is right where it is the given one.
    """

    q: Tensor
    pi: Tensor
    noise: Tensor
    doubt: Tensor


def judged(F, y, C, ridge=1.0, rounds=ROUNDS):
    """A `Judgement` of the labels y (n,), 0 ... C-1, of points with features F (n,d), in float64.

    F need not be standardized; constant columns have no part. ridge: of the sum of the losses, on standardized
    features. Raises UserError for settings, features and labels that do not fit.
    """
    number("ridge", ridge, above=0)
    number("rounds", rounds, least=1, whole=True)
    number("C", C, least=2, whole=True)
    y = torch.as_tensor(y)
    if y.ndim != 1 or len(y) != len(F) or bool(((y < 0) | (y >= C) | (y != y.long())).any()):
        raise UserError(f"labels {tuple(y.shape)} of {len(F)} points: give one from 0 to {C - 1} for each")
    return _judged(standardized(F), one_hot(y.long(), C).double(), torch.ones(len(y)), ridge, rounds, MEMORY)


def _judged(F, shares, sizes, ridge, rounds, memory_limit):
    """A `Judgement` of n points from standardized features F (n,D).

    shares (n,C): of the labels of each one's copies. sizes (n,): how many these are.
    """
    C, members = shares.shape[1], shares.sum(0)
    many = members >= FEW
    heads = torch.tensor([1]) if C == 2 and many.all() else many.nonzero()[:, 0]  # of two classes class 1 has one
    prior = torch.full((C, C), NOISE / (C - 1), dtype=torch.float64).fill_diagonal_(1 - NOISE)
    T, q = prior, shares
    theta = F.new_zeros(F.shape[1], len(heads))
    few = (members - shares + NONE) / (len(F) - 1 + NONE) * ~many
    for _ in range(rounds):
        theta, z = _round(F, q[:, heads], theta, ridge, memory_limit)
        pi = few.clone()
        pi[:, many] = _classes(z, int(many.sum())) * (1 - few.sum(1, keepdim=True)).clamp_min(NONE)
        pi /= pi.sum(1, keepdim=True)
        q, pairs, doubt = _classes_of_copies(pi, T, shares, sizes)
        T = _noise(pairs, prior)
    return Judgement(q, pi, T, doubt)


def _classes_of_copies(pi, T, shares, sizes):
    """q (n,C), the sum of its pairs of class and label (C,C), and -log of the probability of each label (n,C).

    Points of equal features are either one thing, of one class, whose reports count as one, or different points, each
    of a class of its own: whichever makes the given labels more probable, over all points that are there several times.
    """
    several = sizes > 1
    given = (pi @ T).clamp_min(1e-300)
    counts = (shares * sizes[:, None])[several]
    one = (pi[several].clamp_min(1e-300).log() + counts @ T.log().T).logsumexp(1).sum()
    if not several.any() or one >= (counts * given[several].log()).sum():
        q = (pi.clamp_min(1e-300).log() + shares @ T.log().T).softmax(1)
        return q, q.T @ shares, -q.clamp_min(1e-300).log()
    q = pi * ((shares / given) @ T.T)
    return q, T * (pi.T @ (shares / given)), -(pi * T.diagonal() / given).clamp_min(1e-300).log()


def doubted(
    sets, y, C, ridges=RIDGES, rounds=ROUNDS, counts=VOTES, own=None, duplicates=None, memory_limit=MEMORY, read=None
):
    """How improbable the given labels y (n,) are, (n,), and the probabilities (n,C) of the classes without the points.

    Means over the sets of features of the same points, each (n,d), and over the ridges: of -log q_i(y_i), weighted by
    how much a set says of the labels (`information`); and of pi, weighted by that and by how much it doubts, the mean
    of its -log q_i(y_i) over the points: features that have learned every label by heart propose none. counts: of the
    votes, none where the features are made of the labels. own (n,C): the network's own probabilities, the mean over its
    training; their -log of the given label, scaled to the same mean, is half of the score. duplicates (n,): equal
    numbers for copies of a point, which count as one; None: every point for itself. memory_limit: bytes that what is
    calculated of blocks of points may take. read(set) -> (n,d), where the sets are not that yet.
    """
    read = read or (lambda F: np.asarray(F, dtype=float))
    y = np.asarray(y)
    copies = Copies.among(y, C, read(sets[-1]), duplicates)
    shares, total = copies.shares, 0.0
    score, probability = torch.zeros_like(shares), torch.zeros_like(shares)
    for given in tqdm(sets, "moments", disable=None if len(sets) > 1 else True, leave=False):
        F = standardized(read(given)[copies.first])
        F = torch.cat([F[:, :-1], standardized(_votes(F[:, :-1], shares, counts, memory_limit))], 1)
        judgements = [_judged(F, shares, copies.sizes, ridge, rounds, memory_limit) for ridge in ridges]
        weight = sum(information(found, shares) for found in judgements) / len(ridges)
        total += weight * len(ridges)
        for found in judgements:
            score += weight * found.doubt
            probability += weight * _mean(found.doubt, shares).clamp_min(1e-12) * found.pi
    score = (score / total)[copies.of, y]
    if own is not None:
        weights = 1 / torch.from_numpy(np.bincount(copies.of))[copies.of].double()  # of a point among its copies
        own = torch.as_tensor(own).double()[torch.arange(len(y)), torch.as_tensor(y).long()]
        contradicted = -own.clamp_min(1e-300).log()
        mean = (contradicted @ weights).clamp_min(1e-300) / len(shares)
        score = (score + contradicted * ((score @ weights) / len(shares)) / mean) / 2
    probability = probability / probability.sum(1, keepdim=True)
    return score.numpy(), probability[copies.of].numpy()


def information(found, labels):
    """How much of the given labels a `Judgement` predicts, each without the point, as a share of their entropy.

    labels: y (n,), or the shares (n,C) of those of each point's copies. 1 - (mean of -log sum over c of
    pi_i(c) T[c, y_i]) / H(y), and LEAST where that is less: near 0 early in a training, before the features say
    anything, and near 1 where they have learned every label by heart, which doubts none.
    """
    shares = _shares(labels, found.pi.shape[1])
    given = _mean((found.pi @ found.noise).clamp_min(1e-300).log(), shares)
    entropy = torch.special.entr(shares.mean(0)).sum().clamp_min(1e-12)
    return max(float(1 + given / entropy), LEAST)


def _mean(of_class, shares):
    """The mean over the points of numbers (n,C) at their labels, given as shares (n,C)."""
    return (of_class * shares).sum(1).mean()


def _shares(labels, C):
    """Labels (n,) as (n,C) zeros and ones; shares as they are."""
    labels = torch.as_tensor(labels)
    return labels if labels.ndim == 2 else one_hot(labels.long(), C).double()


def votes(F, y, C, counts=VOTES, memory_limit=MEMORY):
    """The labels that the nearest points carry, as features (n, len(counts) (C-1)): shares of the classes 1 ... C-1.

    By Euclidean distance of the standardized features F (n,d), the point itself left out, the k-th nearest weighted
    1/k. Wrong labels among them blur a vote, but none of them is the point's own. y: labels (n,), or shares (n,C).
    """
    return _votes(standardized(F)[:, :-1], _shares(y, C), counts, memory_limit)


def _votes(F, shares, counts, memory_limit):
    """`votes` of standardized features (n,d)."""
    n, C = shares.shape
    voters = np.arange(n) if n <= VOTERS else np.sort(np.random.RandomState(0).choice(n, VOTERS, replace=False))
    most = min(max(counts, default=0), len(voters) - 1)
    if not most or not F.shape[1]:
        return torch.zeros(n, 0, dtype=torch.float64)
    F, found = F.numpy(), torch.empty(n, len(counts) * (C - 1), dtype=torch.float64)
    search = NearestNeighbors(n_neighbors=most + 1).fit(F[voters])
    weight = 1 / torch.arange(1, most + 1, dtype=torch.float64)
    for rows in blocks(n, (most + 1) * (C + 5), memory_limit):
        with config_context(working_memory=max(1, memory_limit // 2**20)):
            near = voters[search.kneighbors(F[rows], return_distance=False)]
        itself = np.argsort(near == np.arange(n)[rows, None], axis=1, kind="stable")  # moves it to the end
        labels = shares[np.take_along_axis(near, itself, 1)[:, :most]][:, :, 1:]  # (n,most,C-1)
        parts = [torch.einsum("nkc,k->nc", labels[:, :k], weight[:k] / weight[:k].sum()) for k in counts]
        found[rows] = torch.cat(parts, 1)
    return found


def blocks(n, width, memory_limit):
    """Slices of n rows that take, with `width` numbers of float64 each, at most memory_limit bytes; of one at least."""
    step = max(1, int(memory_limit / (8 * width)))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _noise(counts, prior):
    """T (C,C) from how many points of each class carry each label, (C,C), and the priors."""
    C = len(counts)
    level = 1 - float(counts.diagonal().sum() / counts.sum())
    equal = torch.full_like(counts, level / (C - 1)).fill_diagonal_(1 - level)
    T = counts + PRIOR * prior + EQUAL * float(counts.sum()) / C * equal
    return T / T.sum(1, keepdim=True)


def _round(F, targets, theta, ridge, memory_limit):
    """Fit the heads theta (D,K) to targets (n,K); returns them and every point's logits without it, (n,K)."""
    theta, z = theta.clone(), torch.empty_like(targets)
    for k in range(targets.shape[1]):
        t = targets[:, k]
        theta[:, k], logits = _minimum(F, t, theta[:, k], ridge, memory_limit)
        p = logits.sigmoid()
        L, h = _factor(F, p, ridge, memory_limit), torch.empty_like(p)
        for rows in blocks(*F.shape, memory_limit / 3):
            h[rows] = torch.linalg.solve_triangular(L, F[rows].T, upper=False).square().sum(0)
        z[:, k] = logits + h * (p - t) / (1 - (h * p * (1 - p)).clamp_max(LARGEST_LEVERAGE))
    return theta, z


def _minimum(F, t, theta, ridge, memory_limit):
    """Newton's method for one head (D,) and targets t (n,), from theta; returns it and its logits (n,)."""
    logits = F @ theta
    value = _value(logits, t, theta, ridge)
    for _ in range(STEPS):
        p = logits.sigmoid()
        gradient = F.T @ (p - t) + ridge * theta
        step = torch.cholesky_solve(gradient[:, None], _factor(F, p, ridge, memory_limit))[:, 0]
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


def _factor(F, p, ridge, memory_limit):
    """The Cholesky factor of n H, the Hessian of the sum of the losses with the ridge."""
    H = ridge * torch.eye(F.shape[1], dtype=F.dtype)
    for rows in blocks(*F.shape, memory_limit / 2):
        weighted = F[rows] * (p[rows] * (1 - p[rows])).sqrt()[:, None]
        H += weighted.T @ weighted
    L, failed = torch.linalg.cholesky_ex(H)
    if failed:
        raise UserError(f"the ridge {ridge:g} is too small for these features: give a larger one")
    return L


def _classes(z, C):
    """The probabilities (n,C) of the classes from the logits of their heads."""
    p = z.sigmoid()
    if z.shape[1] == 1 and C == 2:
        return torch.cat([1 - p, p], 1)
    p = p.clamp_min(1e-300)
    return p / p.sum(1, keepdim=True)
