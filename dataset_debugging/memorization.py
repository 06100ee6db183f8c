"""How much each method finds depends on how far the flipped labels have been memorized.

python dataset_debugging/memorization.py --experiment cnn

The experiments of the networks keep the last layer after some epochs of the training on flipped labels. From each of
them this calculates the share of the flips that each method identifies at 20 % checked, and the memorized share: the
flipped points whose flipped label the network predicts. Of the CNN, which keeps its test points as well, it also sets
the share found at the end of each run beside how well the run fits the flips: the ratio of their mean loss to that of
the other points, and the test accuracy. Writes dataset_debugging/results/<experiment>_memorization.csv and .md, and
the figures <experiment>_memorization and cnn_fit below dataset_debugging/figs.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm import tqdm

from config import PROJECT_ROOT, ArgumentParser, UserError, a_path, run_command, script_relative, shown
from dataset_debugging import figures
from dataset_debugging.calculate_orders import CHECKPOINTS, fraction_identified, order_by_suspicion
from dataset_debugging.memorization_fit import CHECKED, draw_fit, fit_lines
from dataset_debugging.results import ACCURACY, FOLDERS, IDENTIFIED, LABELS, RESULTS, check_data, published
from dataset_debugging.runs import FRESH, REMAKE, RunDir
from explainer.methods import METHODS
from explainer.rps_l2 import ConvergenceWarning
from explainer.weights import calculate
from models.files import load_json, load_npy, markdown_table, save_text
from models.moments import KEPT_EPOCHS, epoch_folder, kept_moment
from models.outputs import SavedOutputs, outputs_path

RUN_AGAIN = "run its experiment again, with --overwrite"
FIT = "cnn_fit"
EPOCHS = {"cnn": 30, "rnn": 20}  # of the published trainings
EXPERIMENTS = [name for name in FOLDERS if name[:3] in EPOCHS]
COLUMNS = ["epoch", "memorized", "test_accuracy", "loss_ratio", *METHODS]


def of_run(run_dir):
    """One row per kept epoch: epoch, memorized, test_accuracy, loss_ratio and, by method's key, the share identified.

    loss_ratio: the mean loss of the flipped points over that of the others. test_accuracy: nan where no test points
    were kept.

    Kept in the run's folder, since RPS-l2's fine-tuning takes seconds per epoch.
    """
    path = run_dir.path / "memorization.csv"
    if path.exists():
        try:
            known = pd.read_csv(path)
        except ValueError:  # damaged, it is made again
            known = pd.DataFrame()
        if set(COLUMNS) <= set(known.columns):
            return known
    arguments = load_json(run_dir.json, FRESH).get("arguments")
    wanted = {"flip_portion", "epochs"}.union(*(method.settings for method in METHODS.values()))
    if not isinstance(arguments, dict) or not wanted <= set(arguments):
        raise UserError(f"{shown(run_dir.json)} does not say {', '.join(sorted(wanted))}: {RUN_AGAIN}")
    flips = load_npy(run_dir.flips, REMAKE)
    flipped = flips[: int(len(flips) * arguments["flip_portion"])]
    kept = _kept(run_dir.path, arguments["epochs"])
    table = pd.DataFrame([{"epoch": epoch, **_of_epoch(outputs, flipped, arguments)} for epoch, outputs in kept])
    save_text(path, table.to_csv(index=False, lineterminator="\n"))
    return table


def _kept(folder, epochs):
    """(epoch, `SavedOutputs`) of what a training of so many epochs has kept, and of its end."""
    end = SavedOutputs.load(outputs_path(folder), FRESH)
    for epoch in (epoch for epoch in KEPT_EPOCHS if epoch < epochs):
        whole = outputs_path(epoch_folder(folder, epoch))
        if whole.exists():
            yield epoch, SavedOutputs.load(whole, FRESH)
        elif (moment := kept_moment(folder, epoch)) is not None:
            logits = moment.features @ moment.weight[0] + (0 if moment.bias is None else moment.bias[0])
            train = {"intermediate_train": moment.features, "labels_train": moment.labels, "pred_train": expit(logits)}
            yield epoch, replace(end, **train, weight=moment.weight, bias=moment.bias, test_accuracy=np.nan)
    yield epochs, end


def _of_epoch(outputs, flipped, arguments):
    predicted = outputs.pred_train[flipped] > 0.5
    loss = losses(outputs)
    row = {
        "memorized": (predicted == (outputs.labels_train[flipped] == 1)).mean(),
        "test_accuracy": outputs.test_accuracy,
        "loss_ratio": loss[flipped].mean() / np.delete(loss, flipped).mean(),
    }
    for key, method in METHODS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the published number of steps is what is asked for
            weights = calculate(outputs, key, **{name: arguments[name] for name in method.settings})
        suspicion = method.suspicion({name: tensor.cpu().numpy() for name, tensor in weights.arrays.items()})
        row[key] = fraction_identified(order_by_suspicion(suspicion), flipped)[round(CHECKED * CHECKPOINTS) - 1]
    return row


def losses(outputs):
    """The cross-entropy (n,) of the training points against the labels that the network was trained on."""
    p = np.where(outputs.labels_train == 1, outputs.pred_train, 1 - outputs.pred_train).astype(float)
    return -np.log(np.clip(p, 1e-12, 1))


def collect(folder):
    """The rows of all runs below `folder` that are trained; raises UserError where there are none, or they differ."""
    paths = sorted(
        (p.parent for p in Path(folder).glob("*/run.json") if p.parent.name.isdecimal()), key=lambda p: int(p.name)
    )
    trained = [RunDir(path) for path in paths if outputs_path(path).exists()]
    begun = [load_json(run_dir.json, FRESH).get("arguments") for run_dir in trained]
    if any(arguments != begun[0] for arguments in begun):
        raise UserError(f"the runs in {shown(folder)} were begun with different arguments: {RUN_AGAIN}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = tqdm(trained, "runs", disable=None)
        tables = [of_run(run_dir).assign(run=int(run_dir.path.name)) for run_dir in runs]
    if caught:
        warnings.warn(f"{caught[0].message} (the first of {len(caught)})", stacklevel=2)
    if not tables:
        raise UserError(f"no trained runs in {shown(folder)}: run its experiment first, with --until train or further")
    return pd.concat(tables, ignore_index=True)[["run", *COLUMNS]]


def published_shares(experiment="cnn"):
    """The published shares of flips identified at 20 % checked, by method's label."""
    curves = published(experiment)
    chosen = (curves["quantity"] == IDENTIFIED) & np.isclose(curves["fraction_checked"], CHECKED)
    return curves[chosen].set_index("method")["mean"]


def published_accuracy():
    """The published test accuracy at the first checkpoint, the mean over the methods."""
    curve = published("cnn")
    curve = curve[curve["quantity"] == ACCURACY]
    return float(curve[curve["fraction_checked"] == curve["fraction_checked"].min()]["mean"].mean())


def draw(table, title, curves=None, experiment="cnn"):
    """Shares identified at 20 % checked, and the memorized share, against the epoch: mean and sd over the runs.

    curves: the published shares of `experiment` by method's label, where there are any.
    """
    figure, axis = plt.subplots(figsize=(7.6, 4.6))
    epochs = sorted(table["epoch"].unique())
    x = np.arange(len(epochs))
    groups = table.groupby("epoch")
    for key, method in METHODS.items():
        colour, marker = figures.STYLES[method.label]
        mean, sd = groups[key].mean(), groups[key].std(ddof=1).fillna(0)
        axis.errorbar(x, mean, sd, color=colour, marker=marker, markersize=4, capsize=2, label=f"{method.label} finds")
        if curves is not None:
            axis.axhline(curves[method.label], color=colour, linestyle="--", linewidth=1, alpha=0.5)
    mean, sd = groups["memorized"].mean(), groups["memorized"].std(ddof=1).fillna(0)
    axis.errorbar(x, mean, sd, color="black", marker="x", linewidth=1, capsize=2, label="memorized share of the flips")
    axis.set(
        xlabel="epoch of the training on flipped labels",
        ylabel=f"share of the flips, {CHECKED:.0%} checked",
        ylim=(0, 1.03),
    )
    axis.set_xticks(x, epochs)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.945), ncols=4, frameon=False, fontsize=8.5)
    figure.suptitle(title, y=0.985, fontsize=11)
    runs = table["run"].nunique()
    caption = f"mean ± sd over {runs} runs" if runs > 1 else "one run"
    if curves is not None:
        caption += f"; dashed: the published shares, after {EPOCHS[experiment[:3]]} epochs"
        caption += " of the paper's scale" if experiment.endswith("_small") else ""
    figure.text(0.5, 0.012, caption, ha="center", fontsize=8, color="#444444")
    figure.tight_layout(rect=(0, 0.03, 1, 0.92))
    return figure


def markdown(table, options=""):
    """The means (and sds) as a section of REPRODUCTION.md. options: of the command that writes it."""
    columns = {"memorized": "flips memorized", "test_accuracy": "test accuracy"}
    columns |= {key: f"{LABELS[key]} finds" for key in METHODS}
    groups, n = table.groupby("epoch"), table["run"].nunique()
    lines = []
    for epoch, mean in groups[list(columns)].mean().iterrows():
        sd = groups[list(columns)].std(ddof=1).loc[epoch]
        lines.append([str(epoch), *(_shown(mean[c], sd[c] if n > 1 else None) for c in columns)])
    over = f"mean (sd) over {n} runs" if n > 1 else "one run"
    body = markdown_table(["epoch", *columns.values()], lines)
    return (
        f"### What the curves depend on\n\nWritten by `python dataset_debugging/memorization.py{options}`; {over} "
        'after each epoch of the training on flipped labels. "Memorized" is the share of the flipped points whose '
        'flipped label the network predicts, "finds" the share of the flips that is identified when '
        f"{CHECKED:.0%} are checked.\n\n{body}\n"
    )


def _shown(mean, sd):
    if np.isnan(mean):
        return "–"
    return f"{mean:.3f}" + ("" if sd is None else f" ({sd:.3f})")


def main():
    parser = ArgumentParser(description="Share of the flips found, and memorized, by epoch of the training.")
    parser.add_argument("--experiment", choices=EXPERIMENTS, default="cnn", help="whose runs, in their usual folder")
    parser.add_argument(
        "--path", type=a_path, help="folder of other runs, relative to this script; the results go there"
    )
    options = parser.parse_args()
    if options.path:
        folder = script_relative(options.path, __file__)
        table = collect(folder)
        _write(folder, folder, "memorization", table, markdown(table, f" --path {options.path}"))
        figures.save(draw_fit(table), "fit", folder)
    else:
        _of_experiment(options.experiment)


def _of_experiment(name):
    for each in (name, "cnn_fixed_random_split") if name == "cnn" else (name,):
        for path in (PROJECT_ROOT / FOLDERS[each]).glob("*/run.json"):
            check_data(each, load_json(path, FRESH).get("arguments") or {}, path.parents[1])
    table, curves = collect(PROJECT_ROOT / FOLDERS[name]), published_shares(name)
    text = markdown(table, "" if name == "cnn" else f" --experiment {name}")
    if name == "cnn":
        every, accuracy, fixed = table, published_accuracy(), PROJECT_ROOT / FOLDERS["cnn_fixed_random_split"]
        if any(fixed.glob("*/run.json")):
            every = pd.concat([table, collect(fixed)], ignore_index=True)
            csv = every[["run", *COLUMNS]].to_csv(index=False, lineterminator="\n")
            save_text(PROJECT_ROOT / RESULTS / f"{FIT}.csv", csv)
        text += fit_lines(every, curves, accuracy)
        figures.save(draw_fit(every, curves, accuracy), FIT, figures.FIGS)
    _write(PROJECT_ROOT / RESULTS, figures.FIGS, f"{name}_memorization", table, text, curves, name)


def _write(folder, figs, name, table, text, *published):
    save_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    save_text(folder / f"{name}.md", text)
    figure = draw(table, "How much is found depends on how far the flips are memorized", *published)
    print(table.drop(columns="run").groupby("epoch").mean().round(3).to_string())
    print(f"figure: {shown(figures.save(figure, name, figs))}")


if __name__ == "__main__":
    run_command(main)
