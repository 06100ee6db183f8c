"""Run folders as one tidy table, beside the published numbers.

Columns: experiment, run, quantity, method (its label), fraction_checked, value. Results that the project commits are
such tables too, `results/<experiment>.csv`, with their scale in `results/<experiment>.json`.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config import CODE_ROOT, PROJECT_ROOT, UserError, shown
from dataset_debugging.calculate_orders import RANDOM, SHARES
from dataset_debugging.runs import FRESH, RunDir, made_with
from explainer.label_errors import DETECTORS
from explainer.methods import METHODS
from models.files import load_json, save_json, save_text

LABELS = {key: method.label for key, method in [*METHODS.items(), *DETECTORS.items()]} | {RANDOM: "Random"}
PAPER = (*METHODS, RANDOM)  # the methods of the paper, whose results are committed as <experiment>.csv
BESIDE = "label_errors"  # all of them, as <experiment>_label_errors.csv, where the detectors have been run
ACCURACY, IDENTIFIED = "test_accuracy", "mislabelled_identified"
RESULTS = "dataset_debugging/results"  # below PROJECT_ROOT for ours, below CODE_ROOT for those that came with the code
PUBLISHED = CODE_ROOT / "dataset_debugging" / "published_curves.csv"

# The published experiments: where their runs lie, and the command that makes them.
FOLDERS = {
    "cnn": "models/CNN/saved_models/experiment_dataset_debugging",
    "cnn_bfloat16": "models/CNN/saved_models/experiment_dataset_debugging_bfloat16",
    "cnn_small": "models/CNN/saved_models/experiment_dataset_debugging_small",
    "cnn_fixed_random_split": "models/CNN/saved_models/experiment_dataset_debugging_fixed_random_split",
    "rnn": "models/RNN/saved_models/experiment_dataset_debugging",
    "rnn_small": "models/RNN/saved_models/experiment_dataset_debugging_small",
    "xgboost": "models/Xgboost/saved_models/experiment_dataset_debugging",
}


# And those that have no published counterpart: how the detectors do there.
OTHERS = {"cnn_from_scratch": "models/CNN/saved_models/experiment_dataset_debugging_from_scratch"}

# What the runs of a published experiment must be of, by the argument in run.json that says it.
DATA = {"cnn": ("images", "cifar automobile / horse"), "rnn": ("reviews", "imdb")}


class OtherData(UserError):
    """The runs in the folder of a published experiment are of other data than those."""


class NoRuns(UserError):
    """An experiment has not been run, and there are no committed results of it."""


class NoOrders(UserError):
    """The runs in a folder have not come as far as their orders."""


class Results(NamedTuple):
    """table: tidy, as above. scale: what the runs have in common, from run.json. source: where they were read."""

    table: pd.DataFrame
    scale: dict
    source: str


def published(experiment):
    """The published curves of an experiment, however it was run: quantity, method, fraction_checked, mean, sd, runs."""
    curves = pd.read_csv(PUBLISHED)
    name = experiment.removesuffix("_small").removesuffix("_bfloat16")
    return curves[curves["experiment"] == name].drop(columns="experiment").reset_index(drop=True)


def load(experiment, detectors=False):
    """The runs of an experiment that lie in this project's folders, else the committed results, else an error.

    detectors: with those of `explainer.label_errors`; else the methods of the paper alone.
    """
    folder = PROJECT_ROOT / (FOLDERS | OTHERS)[experiment]
    if any(_ordered(folder, DETECTORS if detectors else METHODS)):
        try:
            return load_runs(experiment, folder, keys=LABELS if detectors else PAPER)
        except OtherData as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    path = committed(f"{experiment}_{BESIDE}.csv" if detectors else f"{experiment}.csv")
    if path is None:
        raise NoRuns(f"there are no runs of {experiment} in {shown(folder)}: run its experiment first")
    return Results(_read_table(path), load_json(path.with_suffix(".json"), "restore it from git"), "committed results")


def committed(name):
    """A file of committed results, or None."""
    return next((root / RESULTS / name for root in (PROJECT_ROOT, CODE_ROOT) if (root / RESULTS / name).exists()), None)


def _ordered(folder, methods):
    """The orders of these methods in the runs below a folder."""
    return [run for run in folder.glob("*/run.json") for key in methods if RunDir(run.parent).order(key).exists()]


def load_runs(experiment, folder, number=None, keys=tuple(LABELS)):
    """The finished stages of the runs below `folder`, the first `number` of them or all, of the methods `keys`.

    Raises UserError where their arguments differ, or where none has come as far as its orders.
    """
    folder, rows, scales, made = Path(folder), [], [], []
    paths = [path for path in folder.glob("*/run.json") if path.parent.name.isdecimal()]
    for path in sorted(paths, key=lambda path: int(path.parent.name))[:number]:
        run_dir = RunDir(path.parent)
        noted = load_json(path, FRESH)
        missing = [name for name in ("arguments", "n", "device", "python", "packages") if name not in noted]
        found = len(rows)
        for method in keys:
            for quantity, values in _values(run_dir, method):
                row = experiment, int(path.parent.name), quantity, LABELS[method]
                rows += [(*row, s, v) for s, v in zip(SHARES, values)]
        if len(rows) > found:
            if missing:
                raise UserError(f"{shown(path)} has no {', '.join(missing)}: {FRESH}")
            notes = {name: noted[name] for name in ("word_vectors",) if name in noted}
            scales.append({**noted["arguments"], **notes, "n": noted["n"]})
            made.append(noted)
    for scale in scales:
        check_data(experiment, scale, folder)
    if not rows:
        raise NoOrders(f"no run in {shown(folder)} has come as far as its orders: run the experiment again to go on")
    names = dict.fromkeys(name for scale in scales for name in scale)
    differing = [name for name in names if any(scale.get(name) != scales[0].get(name) for scale in scales)]
    if differing:
        raise UserError(f"the runs in {shown(folder)} differ in {', '.join(differing)}: {FRESH}")
    columns = ["experiment", "run", "quantity", "method", "fraction_checked", "value"]
    return Results(pd.DataFrame(rows, columns=columns), {**scales[0], **made_with(*made)}, shown(folder))


def check_data(experiment, arguments, folder):
    """Raise OtherData where runs with these arguments are not of what a published experiment is of."""
    name, wanted = DATA.get(experiment.partition("_")[0], (None, None))
    if experiment in FOLDERS | OTHERS and arguments.get(name, wanted) != wanted:
        raise OtherData(
            f"the runs in {shown(folder)} are of {arguments[name]}, those of {experiment} of {wanted}: move that folder"
        )


def _values(run_dir, method):
    if run_dir.order(method).exists():
        yield IDENTIFIED, run_dir.load_order(method)[1]
    if run_dir.accuracies(method).exists():
        yield ACCURACY, run_dir.load_accuracies(method)


def summary(table):
    """Mean, standard deviation and number of runs for each quantity, method and share checked.

    The deviation is over the runs, with n - 1, and 0 for a single run.
    """
    groups = table.groupby(["quantity", "method", "fraction_checked"], sort=False)["value"]
    return groups.agg(mean="mean", sd=lambda v: np.std(v, ddof=min(1, len(v) - 1)), runs="size").reset_index()


def describe(results):
    """The scale of results in one line, for captions and reports."""
    scale, counts = results.scale, summary(results.table).groupby("quantity")["runs"].max()
    ordered, refitted = counts.get(IDENTIFIED, 0), counts.get(ACCURACY, 0)
    parts = [f"n = {scale['n']:,}", f"{scale['flip_portion']:.0%} flipped", f"γ = {scale['lr']:g}"]
    parts.append(_count(ordered, "run") + ("" if ordered == refitted else f", {refitted} of them with refits"))
    if refitted:
        parts.append(_count(scale["average_over_runs"], "refit") + " per checkpoint")
    if scale.get("seed") is not None:
        parts.append(f"flips of seed {scale['seed']}")
    known = "n flip_portion lr lmbd epoch seed average_over_runs data images device python packages".split()
    known.append("pretrained_vectors")  # which they are is told beside
    own = {
        name: value for name, value in scale.items() if name not in known and value is not False and value is not None
    }
    if not refitted:
        own = {name: value for name, value in own.items() if not name.startswith("retrain")}
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in own.items()]
    return ", ".join(parts)


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def export(experiment):
    """Write the runs of an experiment as committed results; with the detectors, where there are any, once more.

    Committed rows that these runs lack are kept where they are of the same runs, so that an experiment can be continued
    elsewhere: a method at a time, a run at a time. Returns {name: (number, why)} of the others, which are gone.
    Raises NoOrders or OtherData where these are no results of it.
    """
    folder, gone = PROJECT_ROOT / (FOLDERS | OTHERS)[experiment], {}
    for name, keys in ((experiment, PAPER), (f"{experiment}_{BESIDE}", tuple(LABELS))):
        if experiment in FOLDERS if keys == PAPER else _ordered(folder, DETECTORS):
            results = load_runs(experiment, folder, keys=keys)
            table, *lost = _continued(results, committed(f"{name}.csv"))
            if lost[0]:
                gone[name] = tuple(lost)
            table = table.to_csv(index=False, lineterminator="\n")  # every digit, so that reports are the same
            save_text(PROJECT_ROOT / RESULTS / f"{name}.csv", table)
            save_json(PROJECT_ROOT / RESULTS / f"{name}.json", results.scale, checked=False)
    return gone


def _continued(results, path):
    """The table of results, and what the committed one at `path` (or None) has beside it of the same runs.

    Those are runs of equal arguments, versions and device whose identified shares are equal to the last digit for every
    method that both have. Returns the table, how many rows are of other runs and lost, and in what these differ.
    """
    table, on = results.table, ["run", "quantity", "method", "fraction_checked"]
    if path is None:
        return table, 0, ""
    before, scale = _read_table(path), load_json(path.with_suffix(".json"), "restore it from git")
    differing = [name for name in {**scale, **results.scale} if scale.get(name) != results.scale.get(name)]
    beside = ~pd.MultiIndex.from_frame(before[on]).isin(pd.MultiIndex.from_frame(table[on]))
    if differing:
        return table, beside.sum(), f"of another {', '.join(differing)}"
    both = before.merge(table, on=on)
    others = both.loc[(both["quantity"] == IDENTIFIED) & (both["value_x"] != both["value_y"]), "run"]
    kept = before[~before["run"].isin(others) & beside]
    methods = list(LABELS.values())
    rank = {"method": methods.index, "quantity": (IDENTIFIED, ACCURACY).index}
    every = pd.concat([table, kept]).sort_values(
        ["run", "method", "quantity", "fraction_checked"],
        key=lambda column: column.map(rank[column.name]) if column.name in rank else column,
        ignore_index=True,
    )
    return every, beside.sum() - len(kept), "of other shares identified"


def _read_table(path):
    return pd.read_csv(path, converters={"value": float})  # exact in every release of pandas
