"""What the published XGBoost curves depend on, measured: the numbers behind the README's "Deviations".

python scripts/xgboost_sensitivity.py     about two minutes; writes dataset_debugging/results/xgboost_sensitivity.md

Each row changes one thing against the committed protocol and repeats the first three stages of the experiment
(train on flipped labels, weights, orders) for 10 runs with the experiment's own seeds.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import os
import warnings
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

from config import PROJECT_ROOT, ArgumentParser, run_command, seed, several, shown
from dataset_debugging.accuracies import refit_seed, side_by_side
from dataset_debugging.calculate_orders import (
    checked,
    flipped_points,
    fraction_identified,
    order_by_suspicion,
    still_wrong,
)
from dataset_debugging.results import IDENTIFIED, LABELS, RESULTS, published
from explainer import METHODS, last_layer
from explainer.float32 import float32_weights
from explainer.weights import calculate
from models.files import markdown_table, save_text
from models.Xgboost import trees
from models.Xgboost.data.prepare import SMOTE_SEED, prepare

LR, PORTION, SETTINGS = 1e-5, 0.3, {"ours": {"lr": 1e-5}, "IF": {}}

EXPLANATION = """### What the curves depend on

Written by `python scripts/xgboost_sensitivity.py`; {runs} runs a row. "At 20 %" is the share of the mislabelled data
that is identified when 20 % are checked (published: RPS-LJE 0.279, influence functions 0.296), "max. diff." the largest
absolute difference to the published curve over the 20 checkpoints. "IF one-sided" is, among the flips that influence
functions have identified at 40 %, the share that are good risks flipped to bad; half of all flips are. "IF accuracy at
50 %" is the test accuracy after checking half of the labels in its order (published: 0.753, three refits a run here),
"clean accuracy" that of training on the true labels (published: 0.785, one seed).

"""


def float32_suspicion(outputs, outer):
    """The two scores in the official code's float32."""
    F, y, theta = map(torch.from_numpy, (outputs.intermediate_train, outputs.labels_train, outputs.weight[0]))
    return {"ours": float32_weights(F, y, theta, LR, outer)[1], "IF": float32_weights(F, y, theta, None, outer)[1]}


def suspicion(outputs, **more):
    """The scores as the experiment calculates them, or with other settings."""
    scores = {}
    for key, settings in SETTINGS.items():
        arrays = calculate(outputs, key, **settings, **more).arrays
        scores[key] = METHODS[key].suspicion({name: tensor.numpy() for name, tensor in arrays.items()})
    return scores


class Measured(NamedTuple):
    """Means over runs. identified: per method, (20,). one_sided: of influence functions at 40 %. Two accuracies."""

    identified: dict
    one_sided: float
    accuracy_half: float
    accuracy_clean: float


def measure(data, runs, features="probability", score=suspicion):
    """Train, score and order `runs` times; refit influence functions' labels at 50 % checked, and the true labels."""

    def test_accuracy(wrong, number):
        y = data.y_train.copy()
        y[wrong] = 1 - y[wrong]
        booster = trees.fit(data.X_train, y, number)
        return booster, trees.accuracy(trees.predict(booster, data.X_test), data.y_test), y

    def one(run):
        _, flipped = flipped_points(len(data.y_train), PORTION, seed("flip", run))
        booster, _, y = test_accuracy(flipped, seed("train", run))
        scores = score(trees.saved_outputs(booster, data, y, features))
        orders = {key: order_by_suspicion(np.asarray(values)) for key, values in scores.items()}
        wrong = still_wrong(orders["IF"], flipped, 10)
        return (
            {key: fraction_identified(order, flipped) for key, order in orders.items()},
            data.y_train[np.intersect1d(checked(orders["IF"], 8), flipped)].mean(),
            np.mean([test_accuracy(wrong, refit_seed(run, 10, repeat))[1] for repeat in range(3)]),
            test_accuracy([], seed("train", run))[1],
        )

    found, *others = zip(*side_by_side(one, [(run,) for run in range(runs)], os.cpu_count()))
    identified = {key: np.mean([curves[key] for curves in found], axis=0) for key in SETTINGS}
    return Measured(identified, *(float(np.mean(values)) for values in others))


def row(name, measured):
    """One line of the table."""
    cells, theirs = [name], published("xgboost")
    for key, curve in measured.identified.items():
        published_curve = theirs[(theirs["quantity"] == IDENTIFIED) & (theirs["method"] == LABELS[key])]["mean"]
        cells += [f"{curve[3]:.3f}", f"{np.abs(curve - published_curve.to_numpy()).max():.3f}"]
    return cells + [f"{measured.one_sided:.2f}", f"{measured.accuracy_half:.3f}", f"{measured.accuracy_clean:.3f}"]


def variants(runs):
    """(name, measurement) for each row."""
    data = prepare()
    yield f"committed: SMOTE seed {SMOTE_SEED}, integer columns, truncated H", measure(data, runs)
    yield "columns are floats while SMOTE interpolates", measure(prepare(dtype=np.float64), runs)
    yield "H inverted at full rank in float64", measure(data, runs, score=partial(suspicion, rcond=0.0))
    for outer, name in ((True, "summed as outer products (official)"), (False, "as one matrix product")):
        yield f"H inverted in float32, {name}", measure(data, runs, score=partial(float32_suspicion, outer=outer))
    yield "margins as features", measure(data, runs, features="margin")
    with patch.dict(trees.PARAMETERS, tree_method="exact"):
        yield "tree_method exact, the default of XGBoost 1", measure(data, runs)
    for smote_seed in range(10):
        if smote_seed != SMOTE_SEED:
            yield f"SMOTE seed {smote_seed}", measure(prepare(smote_seed), runs)


def main():
    options = ArgumentParser(description="Measure what the published XGBoost curves depend on.")
    options.add_argument("--num_of_run", type=several, default=10, help="runs per row")
    runs = options.parse_args().num_of_run
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", last_layer.RankWarning)
        for name, measured in tqdm(variants(runs), "variants", total=16):
            lines.append(row(name, measured))
    header = ["protocol", "RPS-LJE at 20 %", "max. diff.", "IF at 20 %", "max. diff."]
    header += ["IF one-sided", "IF accuracy at 50 %", "clean accuracy"]
    text = markdown_table(header, lines)
    print(text)
    path = PROJECT_ROOT / RESULTS / "xgboost_sensitivity.md"
    save_text(path, EXPLANATION.format(runs=runs) + text + "\n")
    print(f"written: {shown(path)}")


if __name__ == "__main__":
    run_command(main)
