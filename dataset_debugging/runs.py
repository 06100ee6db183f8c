"""RunDir: every file name of one run of the label-flip experiment, and the arguments that it was begun with."""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from config import UserError, shown
from models.files import load_json, save_json

PACKAGES = ("torch", "numpy", "scikit-learn", "imbalanced-learn", "xgboost")
FRESH = "give --overwrite to begin it again"


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

    def begin(self, arguments, overwrite=False):
        """Open the folder for a run with these arguments, new or to be continued.

        Raises UserError where it was begun with other arguments.
        """
        if overwrite and self.json.exists():
            shutil.rmtree(self.path)
        for stray in self.path.glob("**/.*.tmp.*"):  # left by a process that was killed while it wrote
            stray.unlink(missing_ok=True)
        if not self.json.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise UserError(f"{shown(self.path)} is no run folder (it has no run.json): choose another --path")
            self.note(arguments=arguments, seconds={})
            return
        begun = load_json(self.json, FRESH).get("arguments", {})
        for name in arguments.keys() | begun.keys():
            if arguments.get(name) != begun.get(name):
                raise UserError(
                    f"{shown(self.path)} was begun with {name} {begun.get(name)}, got {arguments.get(name)}: "
                    f"give the same arguments, choose another --path, or {FRESH}"
                )

    def note(self, **values):
        """Merge `values` into run.json, with the versions that are in use now."""
        known = load_json(self.json, FRESH) if self.json.exists() else {}
        packages = {name: version(name) for name in PACKAGES}
        save_json(self.json, {**known, **values, "python": platform.python_version(), "packages": packages})

    def add_seconds(self, stage, seconds):
        """Add to the time that a stage has taken, over all the processes that worked on it."""
        known = load_json(self.json, FRESH).get("seconds", {})
        self.note(seconds={**known, stage: round(known.get(stage, 0.0) + seconds, 2)})

    def add_warnings(self, method, messages):
        """Keep what a method warned of, for instance the rank of its Hessian."""
        self.note(warnings={**self.warnings(), method: messages})

    def warnings(self):
        """The warnings of each method so far."""
        return load_json(self.json, FRESH).get("warnings", {})
