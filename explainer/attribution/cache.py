"""Features that were collected: in memory, or in a folder that keeps them."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from config import UserError
from explainer.attribution.checks import path
from models import checksums
from models.arrays import Array
from models.files import load_json, load_npy, readable, save_json, save_npy
from models.folders import clear, holding

MARK = ".moving.json"  # there while the files of a cache are moved in: a folder with it is ours to clear
SHARD = 2**24  # entries of a file in a cache: 64 MB
REMAKE = "remove the cache, and it is made again"
KINDS = {  # of the arrays beside the features: n rows, C outputs of a head of d features
    "labels": Array("fi", (("n",), ("n", "k"))),
    "weight": Array("f", (("C", "d"),)),
    "bias": Array("f", (("C",),)),
    "groups": Array("i", (("n",),), 0),
    "count": Array("i", ((1,),), 1),
}
_TEXT = {name: lambda value: isinstance(value, str) for name in ("model", "loader")}
SETTINGS = {**_TEXT, "layer": lambda value: isinstance(value, (str, int))}
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
    found = {name: load_npy(folder / f"{name}.npy", REMAKE, KINDS[name]) for name in ("labels", "weight")}
    for name in ("bias", "groups", "count"):
        file = folder / f"{name}.npy"
        found[name] = load_npy(file, REMAKE, KINDS[name]) if file.exists() else None
    labels, weight, bias, groups, count = found.values()
    n = _checked_features(folder / "features", load_settings(folder).get("rows"), weight.shape[1])
    for name, array in (("labels", labels), ("groups", groups)):
        if array is not None and len(array) != n:
            raise UserError(f"{folder / name}.npy is of {len(array)} rows, the features have {n}: {REMAKE}")
    if bias is not None and len(bias) != len(weight):
        raise UserError(f"{folder / 'bias.npy'} is of {len(bias)} outputs, the weight of {len(weight)}: {REMAKE}")
    groups = None if groups is None else torch.from_numpy(groups)
    return Points(folder / "features", labels, weight, bias, groups, None if count is None else int(count[0]))


def load_settings(folder):
    """What a cache says that it was made with. Raises UserError for anything else."""
    rows = {"rows": lambda value: isinstance(value, int) and value > 0}
    return load_json(folder / "settings.json", REMAKE, SETTINGS | rows)


def _checked_features(folder, rows, width):
    """How many rows the shards of a cache have; each is read once and compared with its checksum.

    rows: how many were written, None in a cache made before it was noted. Raises UserError where one is damaged or
    missing, or another one than it was.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} not found: {REMAKE}")
    total = 0
    for shard in sorted(folder.glob("*.npy")):
        with readable(shard, REMAKE), checksums.content(shard):
            features = np.load(shard, mmap_mode="r", allow_pickle=False)
        if features.ndim != 2 or features.shape[1] != width or features.dtype.kind != "f":
            got = f"{features.dtype} {features.shape}"
            raise UserError(f"{shard} holds {got}, expected rows of {width} features: {REMAKE}")
        if shard.stem.isdecimal() and int(shard.stem) != total:
            raise UserError(f"{shard} begins at another row than {total}: a shard is missing; {REMAKE}")
        total += len(features)
    if rows not in (None, total):
        raise UserError(f"{folder} has {total} rows, {rows} were written: {REMAKE}")
    return total


@contextlib.contextmanager
def filling(folder):
    """Hold a cache that is to be filled; what a killed process has left of one goes. The folder may hold others."""
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        with holding(folder / "features", "the filling of a cache"):
            if not (folder / "settings.json").exists():
                for stray in folder.glob(".filling.*"):
                    shutil.rmtree(stray, ignore_errors=True)
                clear(folder)
                if (folder / MARK).exists():
                    _remove(folder)
            yield
    except BaseException:
        if made:
            (folder / ".features.lock").unlink(missing_ok=True)
        for part in made:
            with contextlib.suppress(OSError):  # it holds something
                part.rmdir()
        raise


def _remove(folder):
    """Remove what a killed process has moved into a cache that never came to its settings."""
    shutil.rmtree(folder / "features", ignore_errors=True)
    for name in (*FILES[1:], MARK):
        (folder / name).unlink(missing_ok=True)


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
        save_json(self.folder / MARK, {"process": os.getpid()})
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
        save_json(self.folder / "settings.json", {**settings, "rows": self.rows})
        (self.folder / MARK).unlink()
        return points._replace(features=self.folder / "features")

    def dropped(self):
        """Remove what was written for a cache that is not finished, and no more."""
        if not self.folder:
            return
        kept = self.filling.name == "features"
        shutil.rmtree(self.filling, ignore_errors=True)
        for name in (*FILES[1:], "settings.json", MARK) if kept else ():
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
