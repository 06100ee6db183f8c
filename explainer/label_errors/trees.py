"""The margins of boosted trees without each training point, in closed form.

Letters: n points; trees t, each grown for one class; g, h the first and second derivatives of a point's loss in that
class's margin, at the margins before the tree's round; G, H their sums over the points of a leaf; eta the learning
rate, lambda the penalty on leaf values.

XGBoost gives a leaf the value v = -eta G / (H + lambda) (Chen and Guestrin, 2016, equation 5). Without point i the same
tree has in i's leaf

    v_-i = -eta (G - g_i) / (H - h_i + lambda),

and their sum over the trees, with the base margin, is the margin of i without its own label: exact for the trees as
they are and for the other points' derivatives. What stays of i is its part in where the trees split, which
cross-validation alone removes, at the price of k ensembles of fewer points each.

Copies of a point are left out with it: g_i and h_i are then the sums over its copies in the leaf.

eta and lambda are found from the leaves themselves, since G / v = -(H + lambda) / eta is a straight line in H. Where
the leaves do not lie on it, they are not of these points and labels, or of weighted or sampled ones. A tree without a
split has the value 0 where its H is below min_child_weight, as of a class of one or two points; such trees are left out
of the line, and stay 0 without a point.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from config import UserError
from explainer.attribution.checks import number
from explainer.attribution.pipelines import plain_rows
from explainer.attribution.rows import MEMORY
from explainer.attribution.xgboost_trees import XGBoostTrees, leaf_numbers
from explainer.label_errors import columns
from explainer.label_errors.duplicates import duplicates as copies_of

TOLERANCE = 1e-3  # of a leaf's value, against the largest: XGBoost sums in float32
PLANE = 1e-4  # sine of the angle between values and sums, below which the leaves determine no line
NOTHING = 1e-3  # a leaf's value that is rounding
CHECKED = 1000  # rows that the margin before the first tree is read off


class Leaves(NamedTuple):
    """A tree's leaves: values v, sums G and H, counts of points, (L,) each; root: whether it is one leaf."""

    v: np.ndarray
    G: np.ndarray
    H: np.ndarray
    counts: np.ndarray
    root: bool


def left_out_margins(model, X, y, *, duplicates=None, weights=None, memory_limit=MEMORY):
    """The margin of every training point without its own label: (n,1) for two classes, else (n,C).

    model: of XGBoost, binary:logistic or multi:softprob, trained on rows X and labels y (n,), 0 ... C-1, with the given
    weights (n,), or equal ones. duplicates (n,): equal numbers for copies of a point, which are left out together;
    None: rows of X that are the same but for rounding (`explainer.label_errors.duplicates`). memory_limit: bytes that
    the leaves of some rounds may take; the answer does not depend on it. Raises UserError for another model, other
    points, and row sampling.
    """
    number("memory_limit", memory_limit, above=0)
    if not hasattr(model, "get_booster") and not hasattr(model, "save_raw"):
        raise UserError(f"got a {type(model).__name__}: give a model of XGBoost")
    trees, X = XGBoostTrees(model), plain_rows(X)
    walk = _Walk(trees, X, y, weights, memory_limit)
    ids = table_duplicates(X) if duplicates is None else _numbered(duplicates, walk.n)
    found = [walk.leaves(*parts) for parts in walk.trees()]
    eta, ridge, least = _line(found, trees.config["gradient_booster"].get("tree_train_param", {}), walk.end.shape[1])
    without = walk.base()
    for (t, leaf, g, h), tree in zip(walk.trees(), found):
        g, h = (_sum_of_copies(ids, leaf, part) for part in (g, h))
        G, H = tree.G[leaf] - g, tree.H[leaf] - h
        value = -eta * G / np.maximum(H + ridge, 1e-12)
        nothing = H <= 1e-9 * tree.H[leaf]  # in the leaf but the copies
        if tree.root:
            nothing |= (tree.v[0] == 0 and tree.H[0] <= least) | (H < least)
        without[:, walk.classes[t]] += np.where(nothing, 0.0, value)
    return without


def leaf_features(booster, X, memory_limit=MEMORY):
    """The value of the leaf that each row of X reaches in each tree, (n,T) in float32, some rounds at once."""
    trees = XGBoostTrees(booster)
    data, T = trees.matrix(plain_rows(X)), len(trees.tables)
    found = np.empty((data.num_row(), T), np.float32)
    last = trees.rounds[1] or trees.booster.num_boosted_rounds()
    per = T // trees.booster.num_boosted_rounds()
    step = max(1, int(memory_limit / (12 * len(found) * per)))
    for start in range(0, last, step):
        leaves = leaf_numbers(trees.booster[start : min(start + step, last)], data, (0, 0))
        for k in range(leaves.shape[1]):
            found[:, start * per + k] = trees.tables[start * per + k][leaves[:, k]]
    return found[:, : last * per]


def table_duplicates(X):
    """Numbers (n,), equal for rows of a table X that are copies of one another; it may hold nan and texts."""
    if isinstance(X, pd.DataFrame):
        X = np.column_stack([_codes(X.iloc[:, j]) for j in range(X.shape[1])])
    return copies_of(columns.numbers(np.where(np.isinf(np.asarray(X, float)), np.nan, X), "the rows", missing=True))


def _codes(column):
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.astype(float).to_numpy(dtype=float, na_value=np.nan)
    codes = pd.factorize(column, sort=False)[0]
    return np.where(codes < 0, np.nan, codes)


def _numbered(duplicates, n):
    """Groups of copies as whole numbers from 0 (n,)."""
    ids = np.asarray(duplicates)
    if ids.shape != (n,):
        raise UserError(f"duplicates have the shape {ids.shape}: give one number for each of {n} points")
    return np.unique(ids, return_inverse=True)[1]


class _Walk:
    """The trees in their order, with the derivatives of every point at the margins before their round."""

    def __init__(self, trees, X, y, weights, memory_limit):
        self.model, self.data = trees, trees.matrix(X)
        self.n, self.limit = self.data.num_row(), memory_limit
        self.rounds = trees.rounds[1] or trees.booster.num_boosted_rounds()
        self.end = trees.margin(X).astype(float)
        C = self.end.shape[1]
        if len(trees.groups) != C * trees.booster.num_boosted_rounds():
            raise UserError("the trees of a round are several for a class (num_parallel_tree): give plain boosting")
        self.classes = trees.groups[: C * self.rounds]
        y = np.asarray(y)
        fits = y.shape == (self.n,) and y.dtype.kind in "biuf"
        if not fits or not ((y >= 0) & (y < max(2, C)) & (y == np.floor(y))).all():
            raise UserError(f"got labels {y.shape} of {y.dtype}: give {self.n} whole numbers from 0 to {max(2, C) - 1}")
        self.own = y.astype(int)[:, None] == np.arange(max(2, C))[None, -C:]  # of two classes that of class 1
        usual = trees.weights(y)
        self.weight = np.ones(self.n) if usual is None else usual
        if weights is not None:
            weights = np.asarray(weights, float)
            if weights.shape != (self.n,) or not (np.isfinite(weights).all() and weights.min() >= 0):
                raise UserError(f"weights {weights.shape}: give a number from 0 for each of {self.n} points")
            self.weight = self.weight * weights

    def base(self):
        """The margins (n,C) before the first tree."""
        some = np.linspace(0, self.n - 1, min(self.n, CHECKED)).astype(int)
        before = self.end[some].copy()
        for t, leaf in self._leaf_numbers():
            before[:, self.classes[t]] -= self.model.tables[t][leaf[some]]
        return np.tile(np.median(before, 0), (self.n, 1))

    def trees(self):
        """Of each tree t: t, the leaves (n,) that the points reach, and their derivatives g and h (n,)."""
        M = self.base()
        C = M.shape[1]
        for t, leaf in self._leaf_numbers():
            if t % C == 0:
                P = 1 / (1 + np.exp(-M)) if C == 1 else softmax(M, 1)
            c = self.classes[t]
            yield t, leaf, self.weight * (P[:, c] - self.own[:, c]), self.weight * P[:, c] * (1 - P[:, c])
            M[:, c] += self.model.tables[t][leaf]

    def leaves(self, t, leaf, g, h):
        """The `Leaves` of tree t."""
        L = len(self.model.tables[t])
        G, H, counts = (np.bincount(leaf, part, L) for part in (g, h, None))
        return Leaves(self.model.tables[t].astype(float), G, H, counts, L == 1)

    def _leaf_numbers(self):
        C = self.end.shape[1]
        step = max(1, int(self.limit / (12 * self.n * C)))  # float32 and int64
        for start in range(0, self.rounds, step):
            some = self.model.booster[start : min(start + step, self.rounds)]
            leaves = leaf_numbers(some, self.data, (0, 0))
            for k in range(leaves.shape[1]):
                yield start * C + k, leaves[:, k]


def _sum_of_copies(ids, leaf, part):
    """Of every point (n,): the sum of `part` (n,) over its copies in its own leaf."""
    m, L = int(ids.max()) + 1, int(leaf.max()) + 1
    if m == len(ids):
        return part
    where = np.empty(m, leaf.dtype)
    where[ids] = leaf
    key = ids if (where[ids] == leaf).all() else np.unique(ids * L + leaf, return_inverse=True)[1]
    return np.bincount(key, part)[key]


def _line(trees, settings, C):
    """eta and lambda by least squares over the leaves, and an H up to which trees of one leaf are 0.

    Where the leaves say nothing of them, they are those of the model's own settings, halved for softmax, whose second
    derivatives XGBoost doubles. Raises UserError where the leaves have other values.
    """
    zeros = [tree.root and tree.v[0] == 0 and abs(tree.G[0]) > 1e-6 * tree.counts[0] for tree in trees]
    least = max((tree.H[0] for tree, zero in zip(trees, zeros) if zero), default=0.0)
    smallest = float(settings.get("min_child_weight", 0.0)) / min(C, 2)
    if all(tree.v[0] == 0 for tree in trees if tree.root and tree.H[0] < smallest):
        least = max(least, smallest)
    kept = [tree for tree in trees if not (tree.root and tree.v[0] == 0 and tree.H[0] <= least)]
    if not kept:
        return 0.0, 0.0, least
    v, G, H, counts = (np.concatenate([getattr(tree, name) for tree in kept]) for name in ("v", "G", "H", "counts"))
    v, G, H, root = v[counts > 0], G[counts > 0], H[counts > 0], np.sqrt(counts[counts > 0])
    # v (H + lambda) = -eta G: linear in lambda and eta
    both = np.column_stack([v, G]) * root[:, None]
    size = np.linalg.norm(both, axis=0)
    if np.abs(v).max() > NOTHING and np.linalg.svd(both / size, compute_uv=False)[-1] > PLANE:
        (ridge, eta), *_ = np.linalg.lstsq(both, -v * H * root, rcond=None)
    else:
        eta, ridge = (float(settings.get(name, usual)) / min(C, 2) for name, usual in (("eta", 0.3), ("lambda", 1.0)))
    worst = np.abs(-eta * G / np.maximum(H + ridge, 1e-12) - v).max() / max(np.abs(v).max(), NOTHING)
    if not worst <= TOLERANCE:
        raise UserError(
            f"the leaves' values differ by {worst:.1%} from those of these points and labels: give the training data, "
            "of plain boosting without sampled rows (subsample), weights, alpha or max_delta_step"
        )
    return eta, max(ridge, 0.0), least
