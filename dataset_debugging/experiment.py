"""The label-flip experiment: one engine for all models.

A run flips a portion of the training labels, trains on them, calculates the weights of each method, orders the points
by suspicion, and refits at each checkpoint on the labels that are still wrong. An `Experiment` says what differs
between models; `dataset_debugging.stages` does the rest, stage by stage. A stage whose file exists is skipped, so a
killed experiment goes on where it stopped.
"""

import contextlib
import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from config import (
    ArgumentParser,
    UserError,
    a_path,
    at_least_one,
    device,
    given_folder,
    portion,
    positive,
    run_command,
    script_relative,
    several,
    shown,
    whole,
    workers,
)
from dataset_debugging import results
from dataset_debugging.calculate_orders import RANDOM
from dataset_debugging.results import FOLDERS
from dataset_debugging.runs import RunDir
from dataset_debugging.stages import STAGES, Run, Task
from explainer.label_errors import DETECTORS
from explainer.methods import METHODS
from models.folders import holding


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
    add("--num_of_run", type=several, default=10, help="number of runs")
    add("--flip_portion", type=portion, default=experiment.flip_portion, help="share of the labels that are flipped")
    add(
        "--path",
        type=a_path,
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
    add("--average_over_runs", type=several, default=experiment.average_over_runs, help="refits per checkpoint")
    add("--until", choices=STAGES, default=STAGES[-1], help="the last stage to do")
    add("--jobs", type=workers, default=experiment.jobs, help="refits side by side")
    add(
        "--overwrite",
        action="store_true",
        help="begin the runs again; the old one stays, as <run>.overwritten, until the new one is as far as --until",
    )
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
    given_folder(options.path, script)
    task = experiment.open(options)
    path = _folder(experiment, options, task, script)
    if options.flip_portion and not int(task.n * options.flip_portion):
        raise UserError(f"--flip_portion {options.flip_portion} of {task.n} labels is none: give 0, or a larger one")
    arguments = {name: getattr(options, name) for name in ("flip_portion", "lr", "lmbd", "epoch", "seed")}
    arguments |= {"average_over_runs": options.average_over_runs, **task.arguments, "data": task.fingerprint}
    run_dirs = [RunDir(path / str(i)) for i in range(options.num_of_run)]
    for run_dir in run_dirs:  # all of them before the first one changes
        run_dir.check(arguments, options.overwrite)
    with contextlib.ExitStack() as held:
        for run_dir in run_dirs:
            held.enter_context(holding(run_dir.path, "a label-flip experiment"))
        for run_dir in run_dirs:
            run_dir.restore()
            run_dir.check(arguments, options.overwrite)
        for run_dir in run_dirs:
            run_dir.begin(arguments, options.overwrite)
        _work(experiment, options, task, path, run_dirs)


def _work(experiment, options, task, path, run_dirs):
    """All stages of runs that are held, and their figure."""
    refits = len(options.methods) * experiment.checkpoints * options.average_over_runs
    per_run = STAGES.index(options.until) + (refits if options.until == STAGES[-1] else 1)
    with tqdm(total=per_run * len(run_dirs), unit="step", smoothing=0.02) as bar:
        for i, run_dir in enumerate(run_dirs):
            bar.set_description(f"run {i + 1} of {len(run_dirs)}")
            Run(experiment, options, task, i, run_dir, bar).work()
    warned = [messages for run_dir in run_dirs for messages in run_dir.warnings().values() if messages]
    if warned:
        warnings.warn(f"{warned[0][0]} (the first of {len(warned)}, in each run.json)", stacklevel=1)
    runs = f"{len(run_dirs)} run" + "s" * (len(run_dirs) > 1)
    print(f"{experiment.model}: {runs} done until {options.until}, in {shown(path)}")
    if STAGES.index(options.until) >= STAGES.index("orders"):
        from dataset_debugging import figures  # here, because matplotlib is slow to import

        name = task.name if options.seed is None else f"{task.name}_fixed_random_split"
        found = results.load_runs(name, path, len(run_dirs))
        figure = figures.draw(found, f"{task.title}, {options.flip_portion:.0%} of the labels flipped")
        print(f"figure: {shown(figures.save(figure, 'label_flips', path))}")
