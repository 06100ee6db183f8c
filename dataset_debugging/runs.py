"""RunDir: every file name of one run of the label-flip experiment, what they hold, and what the run was begun with."""

import hashlib
import json
import math
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from config import UserError, shown
from dataset_debugging.calculate_orders import CHECKPOINTS
from models.arrays import Array
from models.checksums import training_of
from models.files import load_json, load_npy, load_npz, save_json
from models.folders import is_temporary

PACKAGES = ("torch", "numpy", "scikit-learn", "imbalanced-learn", "xgboost")
FRESH = "begin it again, by its experiment's command with --overwrite"
REMAKE = "delete that file, and the same command makes it again"


ORDER = {"order": Array("i", (("n",),)), "fraction_fixed": Array("f", (("checkpoints",),), 0, 1)}
CHANGED = {"changed": Array("b", (("n",),))}
ACCURACIES = Array("f", (("checkpoints",),), 0, 1)


def _number(least=-math.inf, most=math.inf, kinds=(int, float)):
    return lambda v: isinstance(v, kinds) and not isinstance(v, bool) and least <= v <= most and abs(v) < math.inf


def _dict(condition):
    return lambda v: isinstance(v, dict) and all(map(condition, v.values()))


def _text(value):
    return isinstance(value, str)


def _plain(value):
    return value is None or isinstance(value, (str, bool)) or _number()(value)


_WHOLE = _number(1, kinds=int)
SETTINGS = {  # conditions on arguments that others than the run itself read
    "flip_portion": _number(0, 1),
    "lr": _number(0),
    "lmbd": _number(0),
    "epoch": _WHOLE,
    "seed": lambda v: v is None or _number(0, kinds=int)(v),
    "average_over_runs": _WHOLE,
    "epochs": _number(0, kinds=int),
    "retrain_epochs": _number(0, kinds=int),
    "batch_size": _WHOLE,
    "train_lr": _number(0),
    "retrain_lr": _number(0),
    "bfloat16": lambda v: isinstance(v, bool),
    **dict.fromkeys(("data", "images", "reviews", "features"), _text),
}
MADE = {"n": _WHOLE, "device": _text, "python": _text, "packages": _dict(_text)}
NOTED = {  # conditions on what run.json holds
    "arguments": lambda v: _dict(_plain)(v) and all(SETTINGS[name](v[name]) for name in SETTINGS if name in v),
    **MADE,
    "seconds": _dict(_number(0)),
    "warnings": _dict(lambda v: isinstance(v, list) and all(map(_text, v))),
    "seeds": _dict(lambda v: _text(v) or _number(kinds=int)(v)),
    "threads": _WHOLE,
    "jobs": _WHOLE,
    "word_vectors": lambda v: v is None or _text(v),
}


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
        self.overwritten = self.path.with_name(f"{self.path.name}.overwritten")  # the run before, until this is done

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

    def noted(self):
        """What run.json holds. Raises UserError where it is missing, damaged or of other types."""
        return load_json(self.json, FRESH, NOTED)

    def arguments(self):
        """What the run was begun with. Raises UserError where run.json does not say it."""
        begun = self.noted().get("arguments")
        if begun is None:
            raise UserError(f"{shown(self.json)} holds no arguments: {FRESH}")
        return begun

    def check(self, arguments, overwrite=False):
        """Raise UserError unless the folder is new, or a run begun with these arguments, or one to be overwritten."""
        if self.overwritten.exists() and not (self.overwritten / self.json.name).exists():
            raise UserError(f"{shown(self.overwritten)} is no run that was overwritten: move it elsewhere")
        if self._holds_nothing():
            return
        if not self.json.exists():
            raise UserError(f"{shown(self.path)} is no run folder (it has no run.json): choose another --path")
        if overwrite:
            return
        begun = self.arguments()
        for name in dict.fromkeys([*arguments, *begun]):
            if arguments.get(name) != begun.get(name):
                raise UserError(
                    f"{shown(self.path)} was begun with {name} {begun.get(name)}, got {arguments.get(name)}: "
                    f"give the same arguments, choose another --path, or {FRESH}"
                )

    def _holds_nothing(self):
        if not self.path.exists():
            return True
        return not self.json.exists() and all(is_temporary(f) for f in self.path.rglob("*") if not f.is_dir())

    def restore(self):
        """Bring back a run that was moved aside by a process that was killed before its successor had begun."""
        if self.overwritten.exists() and self._holds_nothing():
            shutil.rmtree(self.path, ignore_errors=True)
            self.overwritten.rename(self.path)

    def load_flips(self, n=None):
        """The order of flipping, a permutation (n,). Raises UserError for anything else."""
        flips = load_npy(self.flips, REMAKE, Array("i", (("n",),)))
        if not np.array_equal(np.sort(flips), np.arange(len(flips) if n is None else n)):
            raise UserError(f"{shown(self.flips)} holds no permutation of the training points: {REMAKE}")
        return flips

    def load_order(self, method, n=None):
        """The order (n,) and the identified shares (20,) of a method. Raises UserError for anything else."""
        path = self.order(method)
        file = load_npz(path, ORDER, REMAKE)
        order, shares = file["order"], file["fraction_fixed"]
        if not np.array_equal(np.sort(order), np.arange(len(order) if n is None else n)):
            raise UserError(f"{shown(path)} holds no permutation of the training points: {REMAKE}")
        if shares.shape != (CHECKPOINTS,):
            raise UserError(f"{shown(path)} holds {shares.shape} identified shares, expected {CHECKPOINTS}: {REMAKE}")
        return order, shares

    def load_changed(self, method):
        """Whether a method gives each point another label once it is checked, (n,), or None: it gives the true one."""
        return load_npz(self.order(method), ORDER, REMAKE, optional=CHANGED).get("changed")

    def refitted(self, method):
        """The fingerprint of the refits of a method: of the run's arguments and flips, and of the order."""
        digest = hashlib.sha256(json.dumps(self.arguments(), sort_keys=True).encode())
        changed = self.load_changed(method)
        for array in (self.load_flips(), self.load_order(method)[0], () if changed is None else changed):
            digest.update(np.asarray(array, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]

    def check_refitted(self, path, method):
        """Raise UserError where a file of accuracies says that it is of other arguments, flips or another order."""
        of = training_of(path)
        if of is not None and of != self.refitted(method):
            raise UserError(f"{shown(path)} is of refits with other arguments or in another order: {REMAKE}")

    def load_accuracies(self, method):
        """The test accuracies of a method, one for each checkpoint. Raises UserError for anything else."""
        path = self.accuracies(method)
        values = load_npy(path, REMAKE, ACCURACIES)
        if not 1 <= len(values) <= CHECKPOINTS:
            raise UserError(f"{shown(path)} holds no list of accuracies: {REMAKE}")
        self.check_refitted(path, method)
        return values

    def begin(self, arguments, overwrite=False):
        """Make the folder; to overwrite a run, move it aside first. The folder is held and its content checked.

        A run that is whole stays aside until its successor is as far as was asked (`succeeded`). One overwritten
        before that goes, and the whole one stays.
        """
        if overwrite and self.json.exists():
            if self.overwritten.exists():
                shutil.rmtree(self.path)
            else:
                self.path.rename(self.overwritten)
        if not self.json.exists():
            self.note(arguments=arguments, seconds={})

    def succeeded(self):
        """Remove the run that this one replaces."""
        if self.overwritten.exists():
            gone = self.overwritten.with_name(f".{self.overwritten.name}")  # none that is half removed is taken for one
            shutil.rmtree(gone, ignore_errors=True)
            self.overwritten.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def note(self, **values):
        """Merge `values` into run.json."""
        known = self.noted() if self.json.exists() else {}
        if any(known.get(name, self) != value for name, value in values.items()):
            save_json(self.json, {**known, **values})

    def note_made(self, device, **values):
        """Note `values`, and add the device and the versions in use now to those that made the run so far."""
        now = {"device": str(device), "python": platform.python_version()}
        now["packages"] = {name: version(name) for name in PACKAGES}
        self.note(**values, **made_with(self.noted(), now))

    def add_seconds(self, stage, seconds):
        """Add to the time that a stage has taken; what a killed process did is not counted."""
        known = self.noted().get("seconds", {})
        self.note(seconds={**known, stage: round(known.get(stage, 0.0) + seconds, 2)})

    def add_warnings(self, method, messages):
        """Keep what a method warned of, for instance the rank of its Hessian."""
        self.note(warnings={**self.warnings(), method: messages})

    def warnings(self):
        """The warnings of each method so far."""
        return self.noted().get("warnings", {})
