"""The label-flip experiment: one engine for all models.

A run flips a portion of the training labels, trains on them, calculates the weights of each method, orders the points
by suspicion, and refits at each checkpoint on the labels that are still wrong. An `Experiment` says what differs
between models; `run` does the rest, stage by stage. A stage whose file exists is skipped, so a killed experiment goes
on where it stopped.
"""

import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from config import (
    ArgumentParser,
    UserError,
    at_least_one,
    device,
    portion,
    positive,
    run_command,
    script_relative,
    seed,
    shown,
    whole,
)
from dataset_debugging import results
from dataset_debugging.accuracies import record_accuracies
from dataset_debugging.calculate_orders import (
    RANDOM,
    flipped_points,
    fraction_corrected,
    fraction_identified,
    order_by_suspicion,
)
from dataset_debugging.results import FOLDERS
from dataset_debugging.runs import FRESH, REMAKE, RunDir
from explainer.label_errors import DETECTORS, Moment, proposed, scored
from explainer.methods import METHODS
from explainer.weights import calculate, load_weights, save_weights, weights_path
from models.files import load_npy, save_npy, save_npz
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


@dataclass(frozen=True)
class Experiment:
    """What differs between the experiments of the models.

    model: its folder below models/.
    methods: the published ones. checkpoints: how many are refitted.
    average_over_runs: refits per checkpoint. flip_portion: share of labels that are flipped. jobs: refits side by side.
    add_options(parser): options of the model.
    open(options) -> Task.
    """

    model: str
    methods: tuple[str, ...]
    checkpoints: int
    average_over_runs: int
    flip_portion: float
    jobs: int
    add_options: Callable[[ArgumentParser], None]
    open: Callable[[Namespace], Task]


def main(experiment, script):
    """The command line of an experiment; script: the command's `__file__`."""
    run_command(lambda: _run_all(experiment, *_parse(experiment, script)))


def _parse(experiment, script):
    scores = METHODS | DETECTORS
    known = [*scores, RANDOM]
    explained = "orders to compare: " + ", ".join(f"{key} = {score.label}" for key, score in scores.items())
    options = ArgumentParser(description=f"Label-flip experiment on {experiment.model}; goes on where it was stopped.")
    add = options.add_argument
    add("--num_of_run", type=at_least_one, default=10, help="number of runs")
    add("--flip_portion", type=portion, default=experiment.flip_portion, help="share of the labels that are flipped")
    add(
        "--path",
        help=f"folder of the runs, relative to this script (default: {_usual(experiment)}, of other data _NAME)",
    )
    add("--lr", type=positive, default=1e-5, help="RPS-LJE's step to the anchor")
    add("--lmbd", type=positive, default=0.003, help="RPS-l2's penalty")
    add("--epoch", type=at_least_one, default=3000, help="RPS-l2's fine-tuning steps, at most")
    add("--seed", type=whole, help="flip the same labels in every run, in <path>_fixed_random_split")
    add(
        "--methods",
        nargs="+",
        choices=known,
        default=list(experiment.methods),
        help=explained,
    )
    add("--average_over_runs", type=at_least_one, default=experiment.average_over_runs, help="refits per checkpoint")
    add("--until", choices=STAGES, default=STAGES[-1], help="the last stage to do")
    add("--jobs", type=at_least_one, default=experiment.jobs, help="refits side by side")
    add("--overwrite", action="store_true", help="begin the runs again, and lose what they hold")
    options.add_device()
    experiment.add_options(options)
    options = options.parse_args()
    options.methods = [method for method in known if method in options.methods]
    return options, script


def _usual(experiment):
    return f"../models/{experiment.model}/saved_models/experiment_dataset_debugging"


def _folder(experiment, options, task, script):
    """Where the runs lie: --path, or a folder that tells data of one's own from the published ones."""
    usual = _usual(experiment) + ("" if task.name in FOLDERS else f"_{task.name.partition('_')[2]}")
    path = script_relative(usual if options.path is None else options.path, script)
    if options.seed is not None:  # the published commands give both experiments one --path
        path = path.with_name(f"{path.name}_fixed_random_split")
    return path


def _run_all(experiment, options, script):
    options.device = device(options.device)
    task = experiment.open(options)
    path = _folder(experiment, options, task, script)
    if options.flip_portion and not int(task.n * options.flip_portion):
        raise UserError(f"--flip_portion {options.flip_portion} of {task.n} labels is none: give 0, or a larger one")
    arguments = {name: getattr(options, name) for name in ("flip_portion", "lr", "lmbd", "epoch", "seed")}
    arguments |= {"average_over_runs": options.average_over_runs, **task.arguments, "data": task.fingerprint}
    run_dirs = [RunDir(path / str(i)) for i in range(options.num_of_run)]
    for run_dir in run_dirs:  # all of them before the first one changes
        run_dir.check(arguments, options.overwrite)
    for run_dir in run_dirs:
        run_dir.begin(arguments, options.overwrite)
    refits = len(options.methods) * experiment.checkpoints * options.average_over_runs
    per_run = STAGES.index(options.until) + (refits if options.until == STAGES[-1] else 1)
    with tqdm(total=per_run * len(run_dirs), unit="step", smoothing=0.02) as bar:
        for i, run_dir in enumerate(run_dirs):
            bar.set_description(f"run {i + 1} of {len(run_dirs)}")
            _Run(experiment, options, task, i, run_dir, bar).work()
    warned = [messages for run_dir in run_dirs for messages in run_dir.warnings().values() if messages]
    if warned:
        warnings.warn(f"{warned[0][0]} (the first of {len(warned)}, in each run.json)", stacklevel=1)
    print(f"{experiment.model}: {len(run_dirs)} runs done until {options.until}, in {shown(path)}")
    if STAGES.index(options.until) >= STAGES.index("orders"):
        from dataset_debugging import figures  # here, because matplotlib is slow to import

        name = task.name if options.seed is None else f"{task.name}_fixed_random_split"
        found = results.load_runs(name, path, len(run_dirs))
        figure = figures.draw(found, f"{task.title}, {options.flip_portion:.0%} of the labels flipped")
        print(f"figure: {shown(figures.save(figure, 'label_flips', path))}")


class _Run:
    """One run: its stages as methods, each of which leaves its files behind."""

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
        elif not np.array_equal(load_npy(run_dir.flips, REMAKE), order):
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
        if todo:
            self._begins()
        outputs = self._outputs() if set(todo) - {RANDOM} else None
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
            save_npz(self.run_dir.order(method), order=order, fraction_fixed=fraction_identified(order, self.flipped))
        return bool(todo)

    def _order_by_detector(self, method, outputs):
        moments, path = self.task.moments(self.run_dir.path, outputs), self.run_dir.order(method)
        if not DETECTORS[method].corrects:
            order = order_by_suspicion(scored(method, moments))
            save_npz(path, order=order, fraction_fixed=fraction_identified(order, self.flipped))
            return
        score, labels = proposed(moments)
        order, changed = order_by_suspicion(score), labels != outputs.labels_train
        shares = fraction_corrected(order, self.flipped, changed)
        save_npz(path, order=order, fraction_fixed=shares, changed=changed)

    def _accuracies(self):
        shape = self.experiment.checkpoints, self.options.average_over_runs
        todo = [method for method in self.options.methods if not self.run_dir.accuracies(method).exists()]
        self._skip((len(self.options.methods) - len(todo)) * shape[0] * shape[1])
        if todo:
            self._begins()
            refit, jobs = self.task.refit, self.options.jobs
            record_accuracies(self.run_dir, self.i, todo, self.flipped, refit, *shape, jobs, self.bar)
        return bool(todo)
