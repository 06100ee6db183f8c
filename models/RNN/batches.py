"""Reviews of similar length in one batch, so that little is padded."""

import copy

import torch
from torch import Tensor

from models.RNN.RNN import PAD

POOL = 50  # batches that are sorted by length together while training: enough to pad little, and still random
MOST = {"cpu": 2**13, "cuda": 2**16}  # padded words whose activations are in memory at once while training


class Reviews:
    """Tokenized reviews on the computing device. labels (n,): float32. lengths (n,): words in each, on the CPU."""

    def __init__(self, reviews, device="cpu"):
        """reviews: `models.RNN.utils_imdb.Reviews`."""
        self.device = torch.device(device)
        self.words = torch.from_numpy(reviews.words).to(device)
        self.starts = torch.from_numpy(reviews.starts[:-1]).to(device)
        self.lengths = torch.from_numpy(reviews.lengths)
        self.labels = torch.from_numpy(reviews.labels).float().to(device)

    def __len__(self):
        return len(self.labels)

    def labelled(self, labels):
        """The same reviews with other labels (n,), None for their own."""
        other = copy.copy(self)
        other.labels = self.labels if labels is None else labels
        return other

    def part(self, rows):
        """Some of the reviews, rows (k,), in that order."""
        other = copy.copy(self)
        other.starts, other.labels = self.starts[rows.to(self.device)], self.labels[rows.to(self.device)]
        other.lengths = self.lengths[rows]
        return other

    def rows(self, size, generator):
        """An epoch's batches, as `models.training.Batches` says: sorted by length within random pools of 50 batches."""
        batches = []
        for pool in torch.randperm(len(self), generator=generator).split(POOL * size):
            batches += pool[self.lengths[pool].argsort(stable=True)].split(size)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator)]

    def parts(self, rows):
        """A batch in parts of at most MOST padded words: a review has up to 2,762.

        On the CPU 2^13 words take 0.5 GB with 256 units. Hardly two batches have the same shape: with parts four times
        as large, glibc either keeps freed memory until 24 GB do not suffice, or gives it back, and a quarter of the
        time is spent on getting it again.
        """
        return rows.split(max(1, MOST[self.device.type] // int(self.lengths[rows].max())))

    def batch(self, rows, generator, done):
        """Padded word numbers (b,l), lengths (b,) and the generator of the dropout for `rows`, and their labels."""
        if self.device.type != "cpu":  # masks are drawn where they are used
            number = int(torch.randint(2**31, (), generator=generator))
            generator = torch.Generator(self.device).manual_seed(number)
        return (*self.tokens(rows), generator), self.labels[rows.to(self.device)]

    def tokens(self, rows: Tensor):
        """The padded word numbers (b,l) of the reviews `rows` (b,), and their lengths (b,), on the device."""
        lengths = self.lengths[rows]
        l, device = int(lengths.max()), self.device
        rows, lengths = rows.to(device), lengths.to(device)
        positions = torch.arange(l, device=device)
        inside = positions < lengths[:, None]
        places = torch.where(inside, self.starts[rows][:, None] + positions, 0)
        return torch.where(inside, self.words[places].long(), PAD), lengths

    def sorted_batches(self, tokens):
        """All reviews by length, in batches of at most `tokens` padded words each: tensors of rows."""
        rows = self.lengths.argsort(stable=True)
        batches, start = [], 0
        while start < len(rows):
            end = start + 1
            while end < len(rows) and (end + 1 - start) * int(self.lengths[rows[end]]) <= tokens:
                end += 1
            batches.append(rows[start:end])
            start = end
        return batches
