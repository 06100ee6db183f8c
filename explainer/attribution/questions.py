"""What is asked of an explainer: which test points, scored against which training points, and what is summed."""

from typing import NamedTuple

import torch

from explainer.attribution.scores import Queries


class Tested(NamedTuple):
    """Test points: features (m,D), the classes (m,) that are explained, the point (m,) of each row, labels, and how
    many points there are, those without a row included; the last four None where there are none."""

    features: torch.Tensor
    classes: torch.Tensor | None
    groups: torch.Tensor | None
    labels: torch.Tensor | None
    count: int | None = None


class Question(NamedTuple):
    """features (m,D), classes (m,), groups (m,) of test rows; terms over training rows (or candidates), `rows` of them,
    and the point (rows,) of each. groups and columns are None where nothing is summed by point. mean: over test points.
    labels, weights: of the training rows. counts: of test and training points, those without a row included; None where
    it is not known.
    """

    features: torch.Tensor
    classes: torch.Tensor
    groups: torch.Tensor | None
    terms: list
    columns: torch.Tensor | None
    rows: int
    mean: bool
    labels: torch.Tensor
    weights: torch.Tensor | None
    counts: tuple = (None, None)

    @property
    def points(self):
        """How many training points there are scores of."""
        return self.rows if self.columns is None else self.counts[1] or int(self.columns.max()) + 1

    @property
    def tests(self):
        """How many rows of scores there are."""
        return 1 if self.mean else self._tested

    @property
    def _tested(self):
        """How many test points there are."""
        return len(self.features) if self.groups is None else self.counts[0] or int(self.groups.max()) + 1

    def shown(self):
        """The classes of the rows of scores, -1 for a row of several classes, or of none."""
        classes = self.classes
        if self.mean:
            classes = classes[:1] if bool((classes == classes[:1]).all()) else torch.full_like(classes[:1], -1)
        elif self.groups is not None:
            first = torch.full((self.tests,), len(classes), device=classes.device)
            first.scatter_reduce_(0, self.groups, torch.arange(len(classes), device=classes.device), "amin")
            empty = first == len(classes)
            first = classes[first.clamp_max(len(classes) - 1)]
            other = (classes != first[self.groups]).reshape(len(classes), -1).any(1)
            first[self.groups[other]] = -1
            first[empty] = -1
            classes = first
        classes = classes.cpu().numpy()
        return classes[:, 0] if classes.ndim == 2 and classes.shape[1] == 1 else classes

    def summed(self, scores):
        """Scores (m,rows) summed over the rows of each training point, (m,points)."""
        if self.columns is None:
            return scores
        return scores.new_zeros(len(scores), self.points).index_add_(1, self.columns, scores)

    def queries(self, queries, step):
        """`Queries` of at most `step` rows of scores at a time; queries(features, classes) makes those of test rows."""
        if self.mean:
            yield self._pooled(queries, step, torch.zeros(len(self.features), dtype=torch.long), 1, self._tested)
        elif self.groups is None:
            for start in range(0, len(self.features), step):
                yield queries(self.features[start : start + step], self.classes[start : start + step])
        else:
            for first in range(0, self.tests, step):
                count = min(step, self.tests - first)
                inside = (self.groups >= first) & (self.groups < first + count)
                part = self._replace(features=self.features[inside], classes=self.classes[inside])
                yield part._pooled(queries, step, self.groups[inside] - first, count, 1)

    def _pooled(self, queries, step, index, count, divisor):
        """The sums of queries over the test rows with the same number (m,) of `count`, over a divisor."""
        device, dense, constant = self.features.device, [], torch.zeros(count, dtype=torch.float64)
        index, constant = index.to(device), constant.to(device)
        for start in range(0, len(self.features), step):
            part = slice(start, start + step)
            found = queries(self.features[part], self.classes[part])
            constant.index_add_(0, index[part], found.constant.double())
            for i, side in enumerate(found.dense):
                V = side[0].double()[:, :, None] * side[1].double()[:, None, :] if isinstance(side, tuple) else side
                if len(dense) == i:
                    dense.append(torch.zeros(count, *V.shape[1:], dtype=torch.float64, device=device))
                dense[i].index_add_(0, index[part], V.double())
        return Queries([V / divisor for V in dense], constant / divisor)
