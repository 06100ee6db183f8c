"""Two passes over a loader compared: it must give the same batches in order, and the model the same features."""

import torch

from config import UserError
from explainer.attribution.digests import hashed
from explainer.attribution.loaders import has_indices

COMPARED = 64  # points that are read twice where the order is known from the indices
DISAGREE = "two passes of the loader disagree: it shuffles or augments; give it a fixed order and input"
ONCE = "the loader can be read once only: give a DataLoader, or a list of (inputs, labels)"


class Marks:
    """What a pass has read, to be compared with a second one: hashes of batches, or features where they have none.

    partial: whether the first points are enough, as the order is known.
    """

    def __init__(self, hashing, partial):
        self.hashing, self.partial, self.points, self.marks, self.first = hashing, partial, 0, [], None

    def _done(self):
        return self.partial and self.points >= COMPARED

    def of(self, batch):
        """The hash of a batch; None where none is needed, or it has none and is not to be kept."""
        if self._done() and not self.hashing:
            return None
        try:
            return hashed(batch)
        except UserError:
            if self.hashing:
                raise
            return None

    def add(self, mark, features, size):
        self.first = features if self.first is None else self.first
        if not self._done():
            self.marks.append(features if mark is None else mark)
        self.points += size

    def check(self, again, run):
        """Raise UserError unless the batches of a second pass are those of the first, and so the features of one."""
        count, end = 0, object()
        for mark, (inputs, labels) in zip(self.marks, again):
            if isinstance(mark, bytes) and hashed((inputs, labels)) != mark:
                raise UserError(DISAGREE)
            if not isinstance(mark, bytes) and not same(mark, run(inputs, labels)[0].features):
                raise UserError(DISAGREE)
            if not count and not same(self.first, run(inputs, labels)[0].features):
                raise UserError(
                    "the model gives other features for the same batch: it draws random numbers in evaluation mode, or "
                    "remembers; give one that does not"
                )
            count += 1
        if not count:
            raise UserError(ONCE)
        if count < len(self.marks) or not self.partial and next(again, end) is not end:
            raise UserError(DISAGREE)


def in_order(loader):
    """Whether a loader's order is known without a second pass."""
    return has_indices(loader) or type(loader) in (list, tuple)


def same(f, g):
    if f.shape != g.shape:
        return False
    return torch.allclose(f.double().cpu(), g.double().cpu(), atol=1e-4, rtol=1e-3, equal_nan=True)
