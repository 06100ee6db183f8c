"""Points that are there several times: copies of a row, or embeddings of the same image that differ by rounding.

A copy of a point carries its label, wrong or right, and would vouch for it. So copies count as one point, with the
shares of their labels: they are fitted once, and what is left out is all of them. Where the labels of copies differ,
one of them is wrong.

Equal rows of a table of a few coarse columns are no copies but different points of equal values. They are told by their
number: where the different rows are less than a tenth of all, nothing is taken for a copy. A data set that was
repeated as a whole is one of copies, however often.
"""

from typing import NamedTuple

import numpy as np
import torch

from explainer.label_errors.columns import standardized

COARSE = 10  # rows for each different one, from which on equal rows are no copies
SEVERAL = 30  # different rows, from which on a set may be one that was repeated as a whole
NEAR = 1e-4  # of a column's standard deviation, the root mean square over the columns: the same but for rounding
CHANCE = 0.01  # pairs of different points that are so near by chance, at most
SHORT = {torch.float16: 2**-9, torch.bfloat16: 2**-6}  # what two roundings may differ by
KEYS = 4  # directions that near points are looked for along


class Copies(NamedTuple):
    """Groups of copies, in an order that does not depend on the rows': first (m,), a row of each; of (n,), each row's
    group; shares (m,C) of the labels in each; sizes (m,), over how often the data are repeated as a whole."""

    first: np.ndarray
    of: np.ndarray
    shares: torch.Tensor
    sizes: torch.Tensor

    @classmethod
    def among(cls, y, C, features, ids=None):
        """Of points with labels y (n,), 0 ... C-1, and features (n,d); ids (n,): equal for copies; None: none."""
        order = _sorted_rows(features, y)
        ids = np.arange(len(y)) if ids is None else np.asarray(ids)
        _, first, of = np.unique(ids[order], return_index=True, return_inverse=True)
        place = np.empty(len(first), int)  # groups by their first row in the order
        place[np.argsort(first)] = np.arange(len(first))
        groups = np.empty(len(y), int)
        groups[order] = place[of]
        counts = np.bincount(groups * C + y, minlength=len(first) * C).reshape(-1, C).astype(float)
        sizes = counts.sum(1)
        often = np.gcd.reduce(sizes.astype(int))
        return cls(
            order[np.sort(first)], groups, torch.from_numpy(counts / sizes[:, None]), torch.from_numpy(sizes / often)
        )


def duplicates(*sets, dtype=None):
    """Numbers (n,), equal for points that are copies of one another in all sets of features together, each (n,d).

    Features may hold nan. dtype: the precision that they were rounded to, where it was a short one.
    """
    ids = np.zeros(len(sets[0]), int)
    for F in sets:
        same = _equal(F)
        ids = np.unique(ids * (same.max() + 1) + same, return_inverse=True)[1]
    _, first, ids = np.unique(ids, return_index=True, return_inverse=True)
    ids = _components(len(first), _near([np.asarray(F)[first] for F in sets], SHORT.get(dtype, NEAR)))[ids]
    sizes = np.bincount(ids)
    often = np.gcd.reduce(sizes) if len(sizes) >= SEVERAL else 1  # few equal cells of equal size are a design
    return ids if len(sizes) * COARSE >= len(ids) / often else np.arange(len(ids))


def _bytes(F):
    """The rows of F (n,d) as values that compare as their bytes do."""
    F = np.ascontiguousarray(np.asarray(F, dtype=float) + 0.0)  # of -0.0 and 0.0 one
    return F.view(np.dtype((np.void, F.shape[1] * 8))).ravel()


def _equal(F):
    """Numbers (n,) that are equal for equal rows."""
    return np.unique(_bytes(np.nan_to_num(F, nan=-np.pi * 1e300, posinf=None, neginf=None)), return_inverse=True)[1]


def _sorted_rows(F, y):
    """The order (n,) of the rows by their features and labels, whatever their places."""
    ranks = _equal(F)
    return np.lexsort((y, ranks))


def _near(sets, near):
    """Pairs (k,2) of different points, each set (m,d) of their features alike but for rounding."""
    m, keys, d = len(sets[0]), 0.0, 0
    for k, F in enumerate(sets):
        Z = _without_nan(F)
        directions = np.random.RandomState(k).normal(size=(Z.shape[1], KEYS))
        keys, d = keys + Z @ directions, d + Z.shape[1]
    if m < 2 or not d:
        return np.empty((0, 2), int)
    bound = np.sqrt(d) * min(near, (CHANCE / m**2) ** (1 / d))
    reach = 6 * bound  # of a key of normal weights, whose deviation is the distance
    order = np.argsort(keys[:, 0], kind="stable")
    keys, pairs = keys[order], [np.empty((0, 2), int)]
    for lag in range(1, m):
        close = np.flatnonzero(keys[lag:, 0] - keys[:-lag, 0] <= reach)
        if not len(close):
            break
        close = close[(np.abs(keys[close + lag, 1:] - keys[close, 1:]) <= reach).all(1)]
        pairs.append(np.column_stack([order[close], order[close + lag]]))
    pairs, left = np.concatenate(pairs), bound**2
    for F in sets:
        Z = _without_nan(F)
        left = left - np.square(Z[pairs[:, 0]] - Z[pairs[:, 1]]).sum(1)
    return pairs[left >= 0]


def _without_nan(F):
    """Standardized features (m,d), with columns that say where values are absent."""
    absent = np.isnan(F)
    if absent.any():
        F = np.column_stack([np.where(absent, 0, F), absent[:, absent.any(0)]])
    return standardized(F).numpy()[:, :-1]


def _components(m, pairs):
    """Numbers (m,) of the connected components of pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    return connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), (m, m)), directed=False)[1]
