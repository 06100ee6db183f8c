"""Features that were collected: in memory, or in a folder that keeps them; and what they are hashed by."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from config import UserError
from explainer.attribution.checks import path
from models.files import load_npy, save_npy

SHARD = 2**24  # entries of a file in a cache: 64 MB


class Points(NamedTuple):
    """What is expanded: features (n,d) as any source of `Rows`, labels, and the head as nn.Linear holds it."""

    features: object
    labels: object
    weight: torch.Tensor
    bias: torch.Tensor | None


def load_points(folder):
    """`Points` of a cache; the features stay on the disk. Raises UserError where there is none."""
    folder = path("the cache", folder)
    if not (folder / "settings.json").exists():
        raise UserError(f"{folder} holds no cache: make one with cache= first")
    labels, weight = (load_npy(folder / f"{name}.npy", "remove the cache") for name in ("labels", "weight"))
    bias = folder / "bias.npy"
    bias = load_npy(bias, "remove the cache") if bias.exists() else None
    return Points(folder / "features", labels, weight, bias)


class Collected:
    """Features, batch after batch: in memory, or below a cache as shards that are written when they are full."""

    def __init__(self, cache):
        self.folder, self.waiting, self.rows, self.first = cache and Path(cache) / "features", [], 0, None
        if self.folder and self.folder.exists():
            for path in self.folder.glob("[0-9]" * 12 + ".npy"):  # of a collection that was stopped
                path.unlink()
            if any(self.folder.iterdir()):
                raise UserError(f"{self.folder} holds files of others: give the cache a folder of its own")

    def add(self, batch):
        self.first = batch if self.first is None else self.first
        self.waiting.append(batch)
        if self.folder and sum(b.numel() for b in self.waiting) >= SHARD:
            self._write()

    def _write(self):
        save_npy(self.folder / f"{self.rows:012}.npy", torch.cat(self.waiting).numpy())
        self.rows += sum(map(len, self.waiting))
        self.waiting = []

    def finished(self):
        """A source of `Rows`."""
        if not self.folder:
            return torch.cat(self.waiting)
        if self.waiting:
            self._write()
        return self.folder


def add_to(value, digest):
    """Add tensors, arrays and numbers, in tuples, lists and dictionaries, to a hash."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            digest.update(str(name).encode())
            add_to(item, digest)
    elif isinstance(value, (tuple, list)):
        for item in value:
            add_to(item, digest)
    elif isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        add_to(value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy(), digest)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        digest.update(repr(value).encode())
