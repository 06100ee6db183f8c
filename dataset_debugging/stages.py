"""One run of the label-flip experiment: its stages, each of which leaves its files behind."""

import time
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from config import UserError, seed, shown
from dataset_debugging.accuracies import record_accuracies
from dataset_debugging.calculate_orders import (
    RANDOM,
    flipped_points,
    fraction_corrected,
    fraction_identified,
    order_by_suspicion,
)
from dataset_debugging.runs import FRESH, REMAKE
from explainer.label_errors import DETECTORS, Moment, proposed, scored
from explainer.methods import METHODS
from explainer.weights import calculate, load_weights, save_weights, weights_path
from models.checksums import training_of
from models.files import save_npy, save_npz
from models.outputs import SavedOutputs, outputs_path

STAGES = ("train", "weights", "orders", "accuracies")


class Task(Protocol):
    """A model and its data, opened once for an experiment.

    name: in published_curves.csv, or one of its own where nothing is published. title: of the figure.
    n: training points. fingerprint: a hash of the data. arguments: the model's own options that define its runs.
    notes: what is told of them beside, where it is known by another name, as by the fingerprint.
    """

    name: str
    title: str
    n: int
    fingerprint: str
    arguments: dict
    notes: dict

    def train(self, flipped: np.ndarray, seed: int, folder) -> SavedOutputs:
        """Train with these labels flipped; write the model and its saved outputs below `folder`/model."""

    def moments(self, folder, outputs: SavedOutputs) -> list[Moment]:
        """What `explainer.label_errors` needs of the training whose outputs these are."""

    def refit(self, flipped: np.ndarray, seed: int, checkpoint: Path) -> float:
        """Train with these labels flipped; return the accuracy on the test data. Called from several threads.

        checkpoint: a file that a long training may keep what it has done in; the caller removes it.
        """


class Run:
    """One run: the stages are its methods. A stage whose file exists is skipped."""

    def __init__(self, experiment, options, task, i, run_dir, bar):
        self.experiment, self.options, self.task = experiment, options, task
        self.i, self.run_dir, self.bar = i, run_dir, bar
        self.seeds = {
            "flip": seed("flip", i) if options.seed is None else options.seed,
            "train": seed("train", i),
            "random order": seed("random order", i),
            "refit": f"config.seed('refit', {i}, checkpoint, repeat)",
        }
        order, self.flipped = flipped_points(task.n, options.flip_portion, self.seeds["flip"])
        if not run_dir.flips.exists():
            save_npy(run_dir.flips, order)
        elif not np.array_equal(run_dir.load_flips(), order):
            raise UserError(f"{shown(run_dir.flips)} holds other flips than seed {self.seeds['flip']}: {FRESH}")

    def work(self):
        was_done = self.run_dir.done.exists()
        self.run_dir.note(**self.task.notes)
        for stage in STAGES[: STAGES.index(self.options.until) + 1]:
            start = time.perf_counter()
            did = getattr(self, f"_{stage}")()
            if did:
                self.run_dir.add_seconds(stage, time.perf_counter() - start)
            if stage != STAGES[-1]:
                self.bar.update() if did else self._skip(1)
        if was_done or self.options.until == STAGES[-1]:
            self.run_dir.done.touch()
        self.run_dir.succeeded()

    def _begins(self):
        """Note what a stage is made with that has something to do; until it is over, the run is not done."""
        self.run_dir.done.unlink(missing_ok=True)
        where = {"threads": torch.get_num_threads(), "jobs": self.options.jobs}
        self.run_dir.note_made(self.options.device, seeds=self.seeds, n=self.task.n, **where)

    def _skip(self, steps):
        """Take steps that are done already off the bar, so that its remaining time is that of the others."""
        self.bar.total -= steps
        self.bar.refresh()

    # Each stage returns whether it had anything to do.

    def _train(self):
        if outputs_path(self.run_dir.path).exists():
            return False
        self._begins()
        self.task.train(self.flipped, self.seeds["train"], self.run_dir.path)
        return True

    def _weights(self):
        todo = [m for m in self.options.methods if m in METHODS and not self._weights_path(m).exists()]
        if todo:
            self._begins()
            outputs = self._outputs()
        for method in todo:
            chosen = self._settings(method)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                weights = calculate(outputs, method, self.options.device, **chosen)
            save_weights(self._weights_path(method), weights, outputs=outputs.fingerprint, **chosen)
            self.run_dir.add_warnings(method, [str(warning.message) for warning in caught])
        return bool(todo)

    def _outputs(self):
        return SavedOutputs.load(outputs_path(self.run_dir.path), REMAKE)

    def _settings(self, method):
        return {name: getattr(self.options, name) for name in METHODS[method].settings}

    def _weights_path(self, method):
        return weights_path(self.run_dir.path, method, lr=self.options.lr)

    def _orders(self):
        todo = [method for method in self.options.methods if not self.run_dir.order(method).exists()]
        for method in set(self.options.methods) - set(todo):
            self.run_dir.load_order(method, self.task.n)  # damaged, it is better known before the refits
        outputs = self._outputs() if set(self.options.methods) - {RANDOM} else None
        for method in set(self.options.methods) - {RANDOM, *todo}:
            path = self.run_dir.order(method)
            if training_of(path) not in (None, outputs.fingerprint):
                raise UserError(f"{shown(path)} was made from other saved outputs than those beside it: {REMAKE}")
        if todo:
            self._begins()
        for method in todo:
            if method == RANDOM:
                order = np.random.RandomState(self.seeds["random order"]).permutation(self.task.n)
            elif method in DETECTORS:
                self._order_by_detector(method, outputs)
                continue
            else:
                weights = load_weights(self.run_dir.path, method, outputs, self.options.lr, REMAKE)
                asked = {**self._settings(method), "outputs": outputs.fingerprint}
                if weights["settings"] != asked:  # by one of the calculate_ commands
                    path = shown(self._weights_path(method))
                    raise UserError(f"{path} was made with {weights['settings']}, this run is with {asked}: {REMAKE}")
                order = order_by_suspicion(METHODS[method].suspicion(weights))
            shares, made = fraction_identified(order, self.flipped), None if method == RANDOM else outputs.fingerprint
            save_npz(self.run_dir.order(method), order=order, fraction_fixed=shares, training=made)
        return bool(todo)

    def _order_by_detector(self, method, outputs):
        moments, path = self.task.moments(self.run_dir.path, outputs), self.run_dir.order(method)
        if not DETECTORS[method].corrects:
            order = order_by_suspicion(scored(method, moments))
            shares = fraction_identified(order, self.flipped)
            save_npz(path, order=order, fraction_fixed=shares, training=outputs.fingerprint)
            return
        score, labels = proposed(moments)
        order, changed = order_by_suspicion(score), labels != outputs.labels_train
        shares = fraction_corrected(order, self.flipped, changed)
        save_npz(path, order=order, fraction_fixed=shares, changed=changed, training=outputs.fingerprint)

    def _accuracies(self):
        shape = self.experiment.checkpoints, self.options.average_over_runs
        todo = [method for method in self.options.methods if not self.run_dir.accuracies(method).exists()]
        for method in set(self.options.methods) - set(todo):
            self.run_dir.load_accuracies(method)  # those of another experiment are refused
        self._skip((len(self.options.methods) - len(todo)) * shape[0] * shape[1])
        if todo:
            self._begins()
            refit, jobs = self.task.refit, self.options.jobs
            record_accuracies(self.run_dir, self.i, todo, self.flipped, refit, *shape, jobs, self.bar)
        return bool(todo)
