"""find_label_errors: the labels of a data set, most suspicious first, with what they should perhaps be, and why."""

import numpy as np
import pandas as pd
import torch

from config import UserError
from explainer.attribution.checks import array, number
from explainer.label_errors.noise import RIDGES, ROUNDS, VOTES, doubted, standardized

COLUMNS = ["index", "given_label", "proposed_label", "loo_probability", "score", "rank", "supporting", "opposing"]
BLOCK = 256  # points whose distances are in memory at once


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
):
    """The training points of any classifier in the order in which their labels should be checked: a DataFrame.

    features (n,d): what the classifier's last layer sees of its training points, or any other features that tell the
    classes apart by a linear head. labels (n,): the given ones, of any kind that can be sorted. moments: features of
    the same points earlier in the training, each (n,d'), before it had memorized its errors: with a deep network they
    matter more than anything else. probabilities (k,n,C): the network's own at k moments of its training, classes in
    sorted order. explained_by (n,e): features for supporting and opposing points; None: `features`.
    votes: of how many nearest points the labels count; () where features are made of the labels, as leaves of trees.

    One row for each point, the most suspicious first: index, from 0; given_label; proposed_label, the most probable by
    heads without the point, whatever the noise; loo_probability, that of the given label by these heads; score, larger
    is more suspicious (see `explainer.label_errors.scores.noise_model`); rank, from 1; supporting and opposing, lists
    of `neighbours` other points: the nearest ones whose proposed label is the given one, and those whose proposed label
    is another; of the `explained` most suspicious points, empty for the others.
    Nothing here knows which labels are wrong, and nothing is trained but linear heads.
    Raises UserError for features and labels that do not match, one class, and more classes than a tenth of the points.
    """
    names, y = _classes(labels)
    n, C = len(y), len(names)
    sets = [_features(F, f"moments[{k}]", n) for k, F in enumerate(moments)] + [_features(features, "features", n)]
    shown = sets[-1] if explained_by is None else _features(explained_by, "explained_by", n)
    number("neighbours", neighbours, least=0, whole=True)
    number("explained", explained, least=0, whole=True)
    for k in votes:
        number("votes", k, least=1, whole=True)
    own = None if probabilities is None else _mean_probabilities(probabilities, n, C)
    score, probability = doubted(sets, y, C, ridges, rounds, votes, own)
    proposed = probability.argmax(1)
    order = np.argsort(-score, kind="stable")
    top = order[: explained if neighbours else 0]
    supporting, opposing = _neighbours(shown, proposed, top, y[top], neighbours) if len(top) else ([], [])
    rest = [[] for _ in range(n - len(top))]
    table = {
        "index": order,
        "given_label": names[y[order]],
        "proposed_label": names[proposed[order]],
        "loo_probability": probability[order, y[order]],
        "score": score[order],
        "rank": np.arange(1, n + 1),
        "supporting": supporting + rest,
        "opposing": opposing + rest,
    }
    return pd.DataFrame(table, columns=COLUMNS)


def _features(given, name, n):
    """Features (n,d) in float64. Raises UserError for another shape, and for values that are not finite."""
    F = torch.as_tensor(np.array(array(given, name), dtype=float))
    if F.ndim != 2 or not F.numel():
        raise UserError(f"{name} have the shape {tuple(F.shape)}: give (n, d)")
    if len(F) != n:
        raise UserError(f"got {len(F)} rows of {name} and {n} labels: give as many of each")
    bad = ~torch.isfinite(F).all(1)
    if bad.any():
        raise UserError(f"row {int(bad.int().argmax())} of {name} is not finite: leave it out or fill it in")
    return F


def _mean_probabilities(given, n, C):
    """The mean (n,C) of probabilities over the moments."""
    P = np.asarray(array(given, "probabilities"), dtype=float)
    if P.ndim != 3 or P.shape[1:] != (n, C) or not len(P):
        raise UserError(f"probabilities have the shape {P.shape}: give ({n}, {C}) for each of some moments")
    if not (np.isfinite(P).all() and P.min() >= 0 and np.allclose(P.sum(2), 1, atol=1e-3)):
        raise UserError("probabilities do not sum to 1 over the classes: give softmax outputs, not logits")
    return P.mean(0)


def _classes(labels):
    """The names (C,) of the classes and the labels as 0 ... C-1 (n,)."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise UserError(f"labels have the shape {labels.shape}: give one for each point, (n,)")
    missing = pd.isna(labels)
    if missing.any():
        raise UserError(f"{missing.sum()} labels are missing, the first of row {int(missing.argmax())}: leave them out")
    try:
        names, y = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise UserError(f"labels of several kinds cannot be sorted ({error}): give numbers or texts") from error
    if len(names) < 2:
        raise UserError(f"every label is {names.tolist()[0] if len(names) else 'missing'}: give points of two classes")
    if len(names) > max(2, len(y) / 10):
        raise UserError(f"{len(names)} classes of {len(y)} points: give labels, no numbers that are all different")
    return names, y


def _neighbours(F, told, points, given, k):
    """Of each of `points` (m,): the k nearest others that are told to be of its given label (m,), and k of others.

    told (n,): the proposed labels. Distances are Euclidean, of standardized features. Influence functions and RPS-LJE
    would name the points with the largest residuals instead, which are other doubtful ones.
    """
    F = standardized(F)[:, :-1]
    supporting, opposing = [], []
    for start in range(0, len(points), BLOCK):
        part = slice(start, start + BLOCK)
        distances = torch.cdist(F[points[part]], F).numpy()
        for i, c, row in zip(points[part], given[part], distances):
            row[i] = np.inf
            for found, kept in ((supporting, told == c), (opposing, told != c)):
                values = np.where(kept, row, np.inf)
                best = np.argsort(values, kind="stable")[:k]
                found.append(best[np.isfinite(values[best])].tolist())
    return supporting, opposing
