"""Features that were collected: in memory, or in a folder that keeps them."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

from config import UserError
from explainer.attribution.checks import path
from models.files import load_npy, save_json, save_npy

SHARD = 2**24  # entries of a file in a cache: 64 MB
FILES = ("features", "labels.npy", "weight.npy", "bias.npy", "groups.npy", "count.npy")


class Points(NamedTuple):
    """What is expanded: features (n,d) as any source of `Rows`, labels, and the head as nn.Linear holds it.

    groups (n,): the number of the training point that each row belongs to, where points have several; else None.
    count: how many points there are then, those without a row included; None where it is not known.
    """

    features: object
    labels: object
    weight: torch.Tensor
    bias: torch.Tensor | None
    groups: torch.Tensor | None = None
    count: int | None = None


def load_points(folder):
    """`Points` of a cache; the features stay on the disk. Raises UserError where there is none."""
    folder = path("the cache", folder)
    if not (folder / "settings.json").exists():
        raise UserError(f"{folder} holds no cache: make one with cache= first")
    labels, weight = (load_npy(folder / f"{name}.npy", "remove the cache") for name in ("labels", "weight"))
    bias, groups, count = (
        load_npy(file, "remove the cache") if (file := folder / f"{name}.npy").exists() else None
        for name in ("bias", "groups", "count")
    )
    groups = None if groups is None else torch.from_numpy(groups)
    return Points(folder / "features", labels, weight, bias, groups, None if count is None else int(count[0]))


class Collected:
    """Features, batch after batch: in memory, or for a cache in shards that are written when they are full.

    Of a cache nothing is to be seen in its folder before `keep`; `dropped` removes what was written by then.
    Raises UserError where the folder holds files of others.
    """

    def __init__(self, cache):
        self.folder, self.waiting, self.rows = cache and Path(cache), [], 0
        if not self.folder:
            return
        others = [name for name in FILES if (self.folder / name).exists()]
        if others:
            raise UserError(f"{self.folder / others[0]} holds files of others: give the cache a folder of its own")
        self.made = [part for part in (self.folder, *self.folder.parents) if not part.exists()]
        self.filling = self.folder / f".filling.{os.getpid()}"

    def add(self, batch):
        self.waiting.append(batch)
        if self.folder and sum(b.numel() for b in self.waiting) >= SHARD:
            self._write()

    def _write(self):
        save_npy(self.filling / f"{self.rows:012}.npy", torch.cat(self.waiting).numpy())
        self.rows += sum(map(len, self.waiting))
        self.waiting = []

    def finished(self):
        """The features in memory; of a cache None."""
        return None if self.folder else torch.cat(self.waiting)

    def keep(self, points, settings):
        """`Points` with their features in the cache, complete when its settings are written."""
        if self.waiting:
            self._write()
        try:
            os.rename(self.filling, self.folder / "features")
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder / 'features'} ({error.strerror}): give another folder"
            ) from error
        self.filling = self.folder / "features"
        arrays = {"labels": points.labels, "weight": points.weight, "bias": points.bias, "groups": points.groups}
        arrays["count"] = None if points.count is None else torch.tensor([points.count])
        for name, value in arrays.items():
            if value is not None:
                save_npy(self.folder / f"{name}.npy", _array(value))
        save_json(self.folder / "settings.json", settings)
        return points._replace(features=self.folder / "features")

    def dropped(self):
        """Remove what was written for a cache that is not finished, and no more."""
        if not self.folder:
            return
        kept = self.filling.name == "features"
        shutil.rmtree(self.filling, ignore_errors=True)
        for name in (*FILES[1:], "settings.json") if kept else ():
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        for part in self.made:
            with contextlib.suppress(OSError):  # it holds something
                part.rmdir()


def _array(tensor):
    """A tensor as an array, of a type that NumPy has."""
    tensor = tensor.detach().cpu()
    wide = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    return (tensor.float() if wide else tensor).numpy()
