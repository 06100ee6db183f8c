"""Equal scores in the order of their training points, where rounding would part them.

Two copies of a training point have one score, but a product over a block rounds a row by its place in the block. Where
neighbours in a list of the best are as close as that, the list is made again: its points, and all as close to its end,
are scored in float64 each by itself, and what is left of rounding is rounded away.
"""

import numpy as np
import torch

from explainer.attribution import ranks
from explainer.attribution.scores import Queries, score_blocks

CLOSE = 16  # times the precision of the rows: the share of the largest score of a list that rounding may part
DIGITS = 2.0**40  # of a float64 score that are kept
CHUNK = 2**22  # numbers in memory at once


def settled(explainer, question, queries, values, indices, k):
    """The best k of lists with one more, (m,k): (values, indices), equal ones by index.

    values (m,k+1 or n), indices: the best, without the constant of the queries, by products over blocks. A method's
    sign is in the queries.
    """
    tolerance = CLOSE * torch.finfo(values.dtype).eps * values.abs().amax(1)
    close = (values[:, :-1] - values[:, 1:] <= tolerance[:, None]).any(1).nonzero()[:, 0]
    last = values[close, min(k, values.shape[1]) - 1] - 2 * tolerance[close]
    values, indices = values[:, :k].clone(), indices[:, :k].clone()
    most = max(1, CHUNK // question.rows)
    for rows, floor in zip(close.split(most), last.split(most)):
        if len(rows):
            values[rows], indices[rows] = _again(explainer, question, _some(queries, rows), floor, k)
    return values, indices


def _some(queries, rows):
    dense = [tuple(x[rows] for x in side) if isinstance(side, tuple) else side[rows] for side in queries.dense]
    return Queries(dense, queries.constant[rows])


def _again(explainer, question, queries, floor, k):
    """The best k of every query, (b,k) values and indices, of all points whose score is at least its floor (b,)."""
    pairs = []
    for first, scores in score_blocks(question.terms, queries, constant=False):
        t, i = (scores >= floor[:, None]).nonzero(as_tuple=True)
        pairs.append(torch.stack([t, i + first], 1))
    pairs = torch.cat(pairs)
    found = _scores(explainer, question, queries, pairs)
    pairs, found = ranks.gathered(pairs), ranks.gathered(found)
    t, i = pairs.cpu().numpy().T
    found = found.cpu().numpy()
    order = np.lexsort((i, -found, t))
    starts = np.searchsorted(t[order], np.arange(len(floor)))
    chosen = torch.as_tensor(order[starts[:, None] + np.arange(k)], device=pairs.device)
    dtype = question.terms[0].rows.dtype
    return torch.as_tensor(found, device=pairs.device)[chosen].to(dtype), pairs[:, 1][chosen]


def _scores(explainer, question, queries, pairs):
    """The scores (p,) of pairs (p,2) of query and training point, both of this rank, rounded, float64."""
    first = question.terms[0].rows.first
    points, where = pairs[:, 1].unique(return_inverse=True)
    local = (points - first).tolist()
    features = [term.rows.take(local).double() for term in question.terms]
    coefficients = explainer._coefficients(features, question.labels[points])
    total = torch.zeros(len(pairs), dtype=torch.float64, device=pairs.device)
    for F, c, side in zip(features, coefficients, queries.dense):
        c = c if question.weights is None else c * question.weights[points, None]
        step = max(1, CHUNK // (F.shape[1] * c.shape[1]))
        for part in torch.arange(len(pairs), device=pairs.device).split(step):
            t, i = pairs[part, 0], where[part]
            if isinstance(side, tuple):
                total[part] += (side[0][t].double() * F[i]).sum(1) * (side[1][t].double() * c[i]).sum(1)
            else:
                total[part] += ((side[t].double() * c[i, None]).sum(2) * F[i]).sum(1)
    if question.terms[0].rows.dtype == torch.float32:
        return total.float().double()
    mantissa, exponent = torch.frexp(total)
    return torch.ldexp((mantissa * DIGITS).round() / DIGITS, exponent)
