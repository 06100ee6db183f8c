"""What scores are made of: the training points' side, the test points' side, and their products, block by block."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from explainer.attribution import ranks
from explainer.attribution.heads import Head
from explainer.attribution.rows import Rows
from models.files import replacing


class Term(NamedTuple):
    """One sum of the scores: score(t, i) = <f_i c_i', V_t>, over `rows`. coefficients(slice): c (b,C) of some."""

    rows: Rows
    coefficients: Callable


class Kept(NamedTuple):
    """Coefficients that are kept: values (n,C)."""

    values: torch.Tensor

    def __call__(self, rows):
        return self.values[rows]


class Residuals(NamedTuple):
    """w_i (p_i - y_i) of rows: P (n,C), their labels, head, and weights (n,) or None."""

    P: torch.Tensor
    labels: torch.Tensor
    head: Head
    weights: torch.Tensor | None

    def __call__(self, rows):
        plain = self.plain(rows)
        return plain if self.weights is None else plain * self.weights[rows, None].to(plain.dtype)

    def plain(self, rows):
        """Without the weights."""
        return self.P[rows] - self.head.targets(self.labels[rows]).to(self.P.dtype)


class Queries(NamedTuple):
    """The test points' side of the scores, one V for each term.

    dense: V (m,D,C) for each term, or, where every V_t is f_t a_t', the pairs (f (m,D), a (m,C)). constant (m,): added
    to every score of a test point.
    """

    dense: list
    constant: torch.Tensor

    def signed(self, sign):
        """The same of scores times sign, 1 or -1."""
        if sign > 0:
            return self
        dense = [(-side[0], side[1]) if isinstance(side, tuple) else -side for side in self.dense]
        return Queries(dense, -self.constant)


def score_blocks(terms, queries, constant=True, reuse=False):
    """(first row of all, scores (m,b)) over blocks of this rank's training points, in the precision of the rows.

    constant: add that of the queries. reuse: every block is written over the one before, which saves the system half
    of the time.
    """
    m, dtype = len(queries.constant), terms[0].rows.dtype
    sides = [tuple(x.to(dtype) for x in side) if isinstance(side, tuple) else side.to(dtype) for side in queries.dense]
    sides = [side if isinstance(side, tuple) else side.transpose(1, 2).reshape(m, -1) for side in sides]
    wide = max(0 if isinstance(side, tuple) else side.shape[1] for side in sides)  # of f_i c_i'
    streams, buffer = [term.rows.blocks(m + (wide if wide > terms[0].rows.D else 0)) for term in terms], None
    for parts in zip(*streams):
        total = None
        for (rows, F), term, side in zip(parts, terms, sides):
            c = term.coefficients(rows).to(dtype)
            if isinstance(side, tuple):
                scores = (side[0] @ F.T).mul_(side[1] @ c.T)
            else:
                if buffer is None and reuse:
                    buffer = torch.empty(m, len(F), dtype=dtype, device=F.device)
                fits = buffer is not None and total is None and buffer.shape[1] == len(F)
                scores = torch.mm(side, vectors(F, c).T, out=buffer if fits else None)
            total = scores if total is None else total + scores
        if constant:
            total = total + queries.constant[:, None].to(dtype)
        yield terms[0].rows.first + parts[0][0].start, total


def vectors(F, c):
    """f_i c_i' (b,CD) as rows, the classes one after the other."""
    return c * F if c.shape[1] == 1 else (c[:, :, None] * F[:, None, :]).flatten(1)


def save_blocks(path, blocks, shape):
    """Write blocks of rows as a .npy file of `shape` in float32, whole or not at all; rank 0 writes."""
    if ranks.rank() > 0:
        for _ in blocks:  # the others have their part in each
            pass
        return
    with replacing(path) as temporary:
        file, start = np.lib.format.open_memmap(temporary, "w+", np.float32, shape), 0
        for block in blocks:
            file[start : start + len(block)] = block
            start += len(block)
        file.flush()
