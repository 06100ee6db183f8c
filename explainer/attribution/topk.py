"""The k best training points of every test point, kept up to date block by block, and what `top_k` returns."""

import json
from dataclasses import dataclass

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks

GROUP = 16  # columns whose maximum is looked at together


@dataclass(frozen=True)
class TopK:
    """The explanations of m test points; unpacks as `values, indices = result`.

    values (m,k): the scores, best first, equal ones by index. indices (m,k): the training points, or candidates.
    classes (m,): the class that is explained, -1 for several in one row; of a regression the output, or for a method
    that speaks of the loss the label, (m,) or (m,C).
    supports (m,k): whether a point speaks for that class (its score is above 0), or opposes it.
    method, unit: what made the scores, and what they are measured in. recall: of an approximate search, the share of
    the exact answers that it found, on some of the test points; None for an exact one.
    """

    values: np.ndarray
    indices: np.ndarray
    classes: np.ndarray
    method: str
    unit: str
    recall: float | None = None

    def __iter__(self):
        return iter((self.values, self.indices))

    @property
    def supports(self):
        return self.values > 0

    def to_frame(self):
        """A row for each pair: test point, class, rank (from 1), training point, score, supports."""
        import pandas as pd  # here, so that commands start fast

        m, k = self.values.shape
        return pd.DataFrame(
            {
                "test_point": np.repeat(np.arange(m), k),
                "class": np.repeat(self.classes, k, axis=0).tolist(),
                "rank": np.tile(np.arange(1, k + 1), m),
                "training_point": self.indices.reshape(-1),
                "score": self.values.reshape(-1),
                "supports": self.supports.reshape(-1),
            }
        )

    def to_json(self):
        """The same as text: method, unit, and the rows."""
        rows = json.loads(self.to_frame().to_json(orient="records", double_precision=15))
        return json.dumps({"method": self.method, "unit": self.unit, "recall": self.recall, "explanations": rows})


def largest(scores, k):
    """The k largest scores of each row (m,b), best first, of equal ones those of the lowest columns: (values, columns).

    A sort of a whole row is needed only where a score that is left out equals the last that is kept.
    """
    k = min(k, scores.shape[1])
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    equal = values[:, 1:] == values[:, :-1]
    if not equal.any():
        return values[:, :k], columns[:, :k]
    tied = equal[:, k - 1].nonzero()[:, 0] if values.shape[1] > k else []
    columns = columns[:, :k].sort(1)[0]
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    if len(tied):
        whole, order = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = whole[:, :k], order[:, :k]
    return values, columns


class Running:
    """The k largest scores of each of m test points, over blocks of training points; equal ones in any order."""

    def __init__(self, m, k, dtype, device):
        self.values = torch.full((m, k), -torch.inf, dtype=dtype, device=device)
        self.indices = torch.zeros((m, k), dtype=torch.long, device=device)

    def add(self, scores, first):
        """scores (m,b) of the training points first, first + 1, ….

        After some blocks most test points find nothing better in a further one. A maximum, many times faster than a
        top-k, says which do, and the maxima of its groups say where: the k largest are in the k best groups.
        """
        k, groups = self.values.shape[1], scores.shape[1] // GROUP
        if groups < 4 * k:
            values, columns = scores.topk(min(k, scores.shape[1]), dim=1)
            return self._merge(slice(None), values, columns + first)
        inside = groups * GROUP  # group j has the columns j, j + groups, ...
        maxima = scores[:, :inside].unflatten(1, (GROUP, groups)).amax(1)
        best = torch.cat([maxima, scores[:, inside:]], 1).amax(1)
        rows = (~(best <= self.values[:, -1])).nonzero()[:, 0]  # with those of a NaN, which `finite` refuses
        if not len(rows):
            return
        rows = slice(None) if 2 * len(rows) > len(scores) else rows
        every = torch.arange(scores.shape[1], device=scores.device)
        columns = (maxima[rows].topk(k, dim=1)[1][:, None] + every[:inside:groups, None]).flatten(1)
        columns = torch.cat([columns, every[inside:].expand(len(columns), -1)], 1)
        self._merge(rows, scores[rows].gather(1, columns), columns + first)

    def _merge(self, rows, values, indices):
        """Merge the scores of some more training points, for the test points `rows`."""
        values, indices = torch.cat([self.values[rows], values], 1), torch.cat([self.indices[rows], indices], 1)
        self.values[rows], columns = values.topk(self.values.shape[1], dim=1)
        self.indices[rows] = indices.gather(1, columns)

    def of_all_ranks(self):
        """(values, indices) over the rows of every rank."""
        if ranks.size() > 1:
            values, indices = (ranks.gathered(x.T.contiguous()).T for x in (self.values, self.indices))
            self.values = torch.full_like(self.values, -torch.inf)
            self._merge(slice(None), values, indices)
        return finite(self.values), self.indices


def finite(values):
    """The scores themselves. Raises UserError where they are not finite."""
    if not torch.isfinite(values).all():
        raise UserError(f"scores overflow {str(values.dtype)[6:]}: scale the features, or give precision=torch.float64")
    return values
