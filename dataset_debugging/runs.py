"""RunDir: every file name of one run of the label-flip experiment, and the arguments that it was begun with."""

import os
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from config import UserError, shown
from dataset_debugging.calculate_orders import CHECKPOINTS
from models.files import load_json, load_npy, load_npz, save_json

PACKAGES = ("torch", "numpy", "scikit-learn", "imbalanced-learn", "xgboost")
FRESH = "begin it again, by its experiment's command with --overwrite"
REMAKE = "delete that file, and the same command makes it again"


def _temporary(path):
    """Whether `path` is a file that models.files was writing when its process was killed."""
    return re.fullmatch(r"\..+\.\d+\.tmp(\.\w+)?", path.name) is not None and path.is_file()


def made_with(*several):
    """One account of the devices, Pythons and packages of several: where they differ, all of them, "1.0 and 1.1"."""
    found = {}
    for one in several:
        for name in ("device", "python"):
            found[name] = _and(found.get(name), one.get(name))
        packages = found.setdefault("packages", {})
        for name, number in one.get("packages", {}).items():
            packages[name] = _and(packages.get(name), number)
    return found


def _and(known, more):
    names = [name for text in (known, more) if text for name in text.split(" and ")]
    return " and ".join(dict.fromkeys(names))


class RunDir:
    """The folder of one run, `experiment_dataset_debugging/<i>`."""

    def __init__(self, path):
        self.path = Path(path)
        self.flips = self.path / "orders" / "random_flipping_order.npy"
        self.json = self.path / "run.json"
        self.done = self.path / "DONE"

    def order(self, method):
        return self.path / "orders" / f"order_{method}.npz"

    def accuracies(self, method):
        """Mean test accuracies, one per checkpoint; written when all refits of the method are there."""
        return self.path / "accuracies" / f"accuracies_{method}.npy"

    def refits(self, method):
        """Test accuracies of the single refits, (checkpoints, repeats), NaN where one is still to come."""
        return self.path / "accuracies" / f"refits_{method}.npy"

    def refit_checkpoint(self, method, checkpoint, repeat):
        """Where a long refit keeps its training so far; gone once its accuracy is recorded."""
        return self.path / "accuracies" / f"refit_{method}_{checkpoint}_{repeat}.checkpoint"

    def check(self, arguments, overwrite=False):
        """Raise UserError unless the folder is new, or a run begun with these arguments, or one to be overwritten."""
        if not self.json.exists():
            if self.path.exists() and any(not _temporary(file) for file in self.path.rglob("*") if file.is_file()):
                raise UserError(f"{shown(self.path)} is no run folder (it has no run.json): choose another --path")
        elif not overwrite:
            begun = load_json(self.json, FRESH).get("arguments")
            if not isinstance(begun, dict):
                raise UserError(f"{shown(self.json)} holds no arguments: {FRESH}")
            for name in dict.fromkeys([*arguments, *begun]):
                if arguments.get(name) != begun.get(name):
                    raise UserError(
                        f"{shown(self.path)} was begun with {name} {begun.get(name)}, got {arguments.get(name)}: "
                        f"give the same arguments, choose another --path, or {FRESH}"
                    )

    def load_order(self, method, n=None):
        """The order (n,) and the identified shares (20,) of a method. Raises UserError for anything else."""
        path = self.order(method)
        file = load_npz(path, ["order", "fraction_fixed"], REMAKE)
        order, shares = file["order"], file["fraction_fixed"]
        if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order) if n is None else n)):
            raise UserError(f"{shown(path)} holds no permutation of the training points: {REMAKE}")
        if shares.shape != (CHECKPOINTS,) or not np.isfinite(shares).all():
            raise UserError(f"{shown(path)} holds {shares.shape} identified shares, expected {CHECKPOINTS}: {REMAKE}")
        return order, shares

    def load_changed(self, method):
        """Whether a method gives each point another label once it is checked, (n,), or None: it gives the true one."""
        changed = load_npz(self.order(method), ["order"], REMAKE, optional=["changed"]).get("changed")
        if changed is not None and (changed.dtype != bool or changed.shape != self.load_order(method)[0].shape):
            raise UserError(f"{shown(self.order(method))} does not say which labels change: {REMAKE}")
        return changed

    def load_accuracies(self, method):
        """The test accuracies of a method, one for each checkpoint. Raises UserError for anything else."""
        path = self.accuracies(method)
        values = load_npy(path, REMAKE)
        if values.ndim != 1 or not 1 <= len(values) <= CHECKPOINTS or not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"{shown(path)} holds no list of accuracies: {REMAKE}")
        return values

    def begin(self, arguments, overwrite=False):
        """Make the folder, or clear it of what a killed process left half-done, or, to overwrite it, of everything."""
        for stray in self.path.parent.glob(f".{self.path.name}.*.old"):
            shutil.rmtree(stray)
        if overwrite and self.json.exists():
            old = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")  # one step: no folder without run.json
            self.path.rename(old)
            shutil.rmtree(old)
        for stray in self.path.rglob("*"):
            if _temporary(stray):
                stray.unlink(missing_ok=True)
        if not self.json.exists():
            self.note(arguments=arguments, seconds={})

    def note(self, **values):
        """Merge `values` into run.json."""
        known = load_json(self.json, FRESH) if self.json.exists() else {}
        if any(known.get(name, self) != value for name, value in values.items()):
            save_json(self.json, {**known, **values})

    def note_made(self, device, **values):
        """Note `values`, and add the device and the versions in use now to those that made the run so far."""
        now = {"device": str(device), "python": platform.python_version()}
        now["packages"] = {name: version(name) for name in PACKAGES}
        self.note(**values, **made_with(load_json(self.json, FRESH), now))

    def add_seconds(self, stage, seconds):
        """Add to the time that a stage has taken; what a killed process did is not counted."""
        known = load_json(self.json, FRESH).get("seconds", {})
        self.note(seconds={**known, stage: round(known.get(stage, 0.0) + seconds, 2)})

    def add_warnings(self, method, messages):
        """Keep what a method warned of, for instance the rank of its Hessian."""
        self.note(warnings={**self.warnings(), method: messages})

    def warnings(self):
        """The warnings of each method so far."""
        return load_json(self.json, FRESH).get("warnings", {})
