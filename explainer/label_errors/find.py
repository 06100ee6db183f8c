"""find_label_errors: the labels of a data set, most suspicious first, with what they should perhaps be, and why."""

from collections.abc import Iterable
from numbers import Real

import numpy as np
import pandas as pd
import torch

from config import UserError
from explainer.attribution.checks import number
from explainer.attribution.rows import MEMORY
from explainer.label_errors.columns import class_numbers, numbers, plain, standardized
from explainer.label_errors.duplicates import duplicates as copies_of
from explainer.label_errors.noise import RIDGES, ROUNDS, VOTES, blocks, doubted

COLUMNS = ["index", "given_label", "proposed_label", "loo_probability", "score", "rank", "supporting", "opposing"]
BLOCK = 256  # points whose distances are in memory at once, at most
WIDE = 512  # features that are standardized at once


def find_label_errors(
    features,
    labels,
    moments=(),
    *,
    probabilities=None,
    explained_by=None,
    neighbours=5,
    explained=1000,
    votes=VOTES,
    ridges=RIDGES,
    rounds=ROUNDS,
    duplicates=None,
    memory_limit=MEMORY,
):
    """The training points of any classifier in the order in which their labels should be checked: a DataFrame.

    features (n,d): what the classifier's last layer sees of its training points, or any other features that tell the
    classes apart by a linear head: an array, a tensor of any device and precision, lists, or a DataFrame, whose columns
    of texts become columns of 0 and 1. labels (n,): the given ones, of any kind that can be sorted. moments: features
    of the same points earlier in the training, each (n,d'), before it had memorized its errors: with a deep network
    they matter more than anything else. probabilities (k,n,C): the network's own at k moments of its training, classes
    in sorted order. explained_by (n,e): features for supporting and opposing points; None: `features`.
    votes: of how many nearest points the labels count; () where features are made of the labels, as leaves of trees.
    ridges: penalties, whose answers are averaged; one number is as good as a list of one.
    duplicates (n,): equal numbers for copies of a point, which count as one and do not vouch for one another; None:
    points whose features are the same at every moment, but for rounding, and none with votes=(), where features may be
    equal because the labels are. memory_limit: bytes that what is calculated of blocks of points may take, beside the
    features themselves in float64; the answer does not depend on it.

    One row for each point, the most suspicious first: index, from 0; given_label; proposed_label, the most probable by
    heads without the point, whatever the noise; loo_probability, that of the given label by these heads; score, larger
    is more suspicious (see `explainer.label_errors.scores.noise_model`); rank, from 1; supporting and opposing, lists
    of `neighbours` other points: the nearest ones whose proposed label is the given one, and those whose proposed label
    is another; of the `explained` most suspicious points, empty for the others. Points of equal scores are in the
    order of their index; rows in another order get the same scores.
    Nothing here knows which labels are wrong, and nothing is trained but linear heads.
    Raises UserError for features and labels that do not match, one class, and labels that are rather numbers.
    """
    names, y = class_numbers(labels, features)
    n, C = len(y), len(names)
    sets = [*_moments(moments), features]
    called = [*(f"moments[{k}]" for k in range(len(sets) - 1)), "features"]
    votes, ridges = _several("votes", votes, least=1, whole=True), _several("ridges", ridges, above=0)
    if not ridges:
        raise UserError("got no ridges: give one at least")
    for name, value, least in (("rounds", rounds, 1), ("neighbours", neighbours, 0), ("explained", explained, 0)):
        number(name, value, least=least, whole=True)
    number("memory_limit", memory_limit, above=0)
    for given, name in zip(sets, called):
        numbers(given, name, n)
    shown, name = (features, "features") if explained_by is None else (explained_by, "explained_by")
    shown = numbers(shown, name, n, keep=True)
    own = None if probabilities is None else _mean_probabilities(probabilities, n, C)
    ids = _copies(sets, duplicates, votes, n)
    more = {"duplicates": ids, "memory_limit": memory_limit, "read": lambda given: numbers(given, "features", n)}
    score, probability = doubted(sets, y, C, ridges, rounds, votes, own, **more)
    proposed = probability.argmax(1)
    order = np.argsort(-score, kind="stable")
    top = order[: explained if neighbours else 0]
    ids = np.arange(n) if ids is None else ids
    near = _neighbours(shown, proposed, top, y[top], neighbours, ids, memory_limit) if len(top) else ([], [])
    rest = [[] for _ in range(n - len(top))]
    table = {
        "index": order,
        "given_label": names[y[order]],
        "proposed_label": names[proposed[order]],
        "loo_probability": probability[order, y[order]],
        "score": score[order],
        "rank": np.arange(1, n + 1),
        "supporting": near[0] + rest,
        "opposing": near[1] + rest,
    }
    return pd.DataFrame(table, columns=COLUMNS)


def _moments(given):
    """The moments as a list."""
    if given is None:
        return []
    if not hasattr(given, "__len__") or isinstance(given, (str, bytes, dict, pd.DataFrame, pd.Series)):
        raise UserError(f"moments are a {type(given).__name__}: give a list of features (n, d)")
    if getattr(given, "ndim", 3) != 3:
        raise UserError(f"moments have the shape {tuple(given.shape)}: give a list of features (n, d), or (k, n, d)")
    return list(given)


def _several(name, given, **bounds):
    """Numbers as a tuple; one number is a tuple of itself."""
    if isinstance(given, (Real, str)) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        given = [] if given is None and name == "votes" else [given]
    found = tuple(value.item() if isinstance(value, (np.generic, torch.Tensor)) else value for value in given)
    for value in found:
        number(name, value, **bounds)
    return found


def _copies(sets, given, votes, n):
    """Numbers (n,) that are equal for copies of a point, or None where there are none."""
    if given is not None:
        ids = np.asarray(given)
        if ids.shape != (n,) or pd.isna(ids).any():
            raise UserError(f"duplicates have the shape {ids.shape}: give one number for each of {n} points")
        return np.unique(ids, return_inverse=True)[1]
    if not votes:
        return None
    return copies_of(*(numbers(F, "features", n) for F in sets), dtype=getattr(sets[-1], "dtype", None))


def _mean_probabilities(given, n, C):
    """The mean (n,C) of probabilities over the moments."""
    P = plain(given, "probabilities")
    if P.ndim != 3 or P.shape[1:] != (n, C) or not len(P):
        raise UserError(f"probabilities have the shape {P.shape}: give ({n}, {C}) for each of some moments")
    coarse = 2e-2 if str(getattr(given, "dtype", "")).endswith("float16") else 1e-3  # bfloat16 as well
    if not (np.isfinite(P).all() and P.min() >= 0 and np.allclose(P.sum(2), 1, atol=coarse)):
        raise UserError("probabilities do not sum to 1 over the classes: give softmax outputs, not logits")
    return P.mean(0)


def _neighbours(F, told, points, given, k, ids, memory_limit):
    """Of each of `points` (m,): the k nearest others that are told to be of its given label (m,), and k of others.

    told (n,): the proposed labels. ids (n,): equal for copies, of which the first is named, and none of the point's.
    Distances are Euclidean, of standardized features. Influence functions and RPS-LJE would name the points with the
    largest residuals instead, which are other doubtful ones.
    """
    once = np.zeros(len(ids), bool)
    once[np.unique(ids, return_index=True)[1]] = True
    supporting, opposing = [], []
    for part in blocks(len(points), 4 * len(F), min(memory_limit, BLOCK * 32 * len(F))):
        rows = zip(points[part], given[part], _distances(F, points[part], memory_limit))
        for i, c, row in rows:
            for found, kept in ((supporting, told == c), (opposing, told != c)):
                values = np.where(kept & once & (ids != ids[i]), row, np.inf)
                best = np.argsort(values, kind="stable")[:k]
                found.append(best[np.isfinite(values[best])].tolist())
    return supporting, opposing


def _distances(F, points, memory_limit):
    """The distances (m,n) of the standardized rows `points` (m,) of F (n,d) to all."""
    total = 0.0
    for columns in blocks(F.shape[1], 4 * len(F), min(memory_limit, WIDE * 32 * len(F))):
        Z = standardized(F[:, columns])[:, :-1]
        total = total + torch.cdist(Z[points], Z).square_() if Z.shape[1] else total
    return total.sqrt_().numpy() if isinstance(total, torch.Tensor) else np.zeros((len(points), len(F)))
