"""Methods, lambdas and seeds over one data set: the table and the figure of its accuracies without the fault.

python models/CDEP/experiment.py --dataset decoydigits --seeds 3 --best      under a minute on two cores
python models/CDEP/experiment.py --dataset decoydigits --seeds 5             every lambda

Each training has a folder of its own below saved_models/experiment_DATASET and is kept, so a stopped sweep goes on.
Writes DATASET.csv (a row for each training), .md (the table) and .png below --output. The lambdas of --best are those
that did best without the fault, so its numbers are of the best case.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm import tqdm

import config
from config import ArgumentParser, a_data_folder, a_path, given_folder, passes, run_command, several, shown
from models.CDEP.data import DATASETS, task
from models.CDEP.methods import METHODS, Settings
from models.CDEP.text import TEXTS
from models.CDEP.train import PROBE, run
from models.files import markdown_table, replacing, save_text

SHAPLEY = {"relu": "shapley", "detach_share": True}
DIGITS, COLOURS = {"epochs": 40}, {"epochs": 5}
MNIST, PHRASES = {"epochs": 5}, {"epochs": 6}
# label: (settings, lambdas, the one of --best).
NONE = {"none": ({"method": "none"}, (0.0,), 0.0)}
PATCHES = {
    **NONE,
    "CDEP, softmax": ({"method": "cdep"}, (1.0, 10.0, 100.0), 1.0),
    "CDEP, l1": ({"method": "cdep", "mode": "l1", "detach_share": True}, (3.0, 10.0, 30.0), 30.0),
    "CDEP, l1, Shapley": ({"method": "cdep", "mode": "l1", **SHAPLEY}, (3.0, 10.0, 30.0), 10.0),
    "RRR": ({"method": "rrr"}, (1.0, 10.0, 100.0), 10.0),
    "EG": ({"method": "eg"}, (0.1, 1.0, 10.0), 1.0),
}
SOFTMAX = {"method": "cdep"}, (1.0, 10.0, 100.0, 1000.0, 10000.0), 100.0  # the published lambdas of DecoyMNIST
TINTS = {
    **NONE,
    "CDEP, softmax": ({"method": "cdep"}, (1000.0, 8000.0, 40000.0), 40000.0),
    "CDEP, softmax, Shapley": ({"method": "cdep", **SHAPLEY}, (8000.0, 40000.0), 40000.0),
    "RRR": ({"method": "rrr"}, (1.0,), 1.0),
    "EG, 2 references": ({"method": "eg", "references": 2}, (1.0,), 1.0),
}
TEXT = {
    **NONE,
    "CDEP, logirrel": ({"method": "cdep", "mode": "logirrel", "classes": "label"}, (100.0, 500.0), 500.0),
    "CDEP, l1": ({"method": "cdep", "mode": "l1", "detach_share": True}, (10.0, 30.0), 30.0),
    "RRR": ({"method": "rrr"}, (10.0, 100.0), 10.0),
    "EG": ({"method": "eg"}, (10.0, 100.0), 10.0),
}
SWEEPS = {
    "decoydigits": (PATCHES, DIGITS),
    "decoymnist": ({**PATCHES, "CDEP, softmax": SOFTMAX}, MNIST),
    "colordigits": (TINTS, DIGITS),
    "colormnist": (TINTS, COLOURS),
    **{name: (TEXT, PHRASES) for name in DATASETS if name.startswith("text_")},
}
METHODS_SHOWN = [label for label in dict.fromkeys([*PATCHES, *TINTS, *TEXT]) if label not in NONE]
COLOURS_OF = {label: f"C{k if k < 7 else k + 1}" for k, label in enumerate(METHODS_SHOWN)}  # C7 is grey, as none is
MEASURES = {
    "test_accuracy": "without the fault",
    "balanced_test_accuracy": "without the fault, balanced",
    "against_accuracy": "fault against the label",
    "clean_choice_accuracy": "epoch chosen without it",
}


UNEVEN = 1.2  # times as many of the commonest class as there were if all had as many


def trainings(dataset, seeds, best, methods, epochs=None):
    """(label, `Settings`) of every training of a sweep."""
    sweep, common = SWEEPS[dataset]
    common = common if epochs is None else {**common, "epochs": epochs}
    return [
        (label, Settings(**settings, **common, lam=lam, seed=seed))
        for label, (settings, lambdas, chosen) in sweep.items()
        if settings["method"] in methods
        for lam in ((chosen,) if best else lambdas)
        for seed in range(seeds)
    ]


def row_of(label, result):
    """A row of the table, without what is of one class alone."""
    counts = result.get("test_counts", {})
    plain = {name: value for name, value in result.items() if not isinstance(value, dict)}
    return {"label": label, **plain, "classes_tested": sum(count > 0 for count in counts.values())}


def measures_of(table):
    """The accuracies that a table has; the balanced one where a class is commoner in the test than another."""
    uneven = "majority_share" in table and (table["majority_share"] * table["classes_tested"] > UNEVEN).any()
    return [name for name in MEASURES if name in table and (name != "balanced_test_accuracy" or uneven)]


def summary(table):
    """Mean and sd over the seeds: a row for each label and lambda."""
    measures = measures_of(table)
    groups = table.groupby(["label", "lam"], sort=False)
    found = groups[measures].agg(["mean", "std"])
    found["relevance", ""] = groups["relevance"].mean()
    return found


def as_text(table, command):
    """The table in Markdown, with what it is of. command: what makes it."""
    found, measures = summary(table), measures_of(table)
    rows = []
    for (label, lam), row in found.iterrows():
        shares = [f"{row[name, 'mean']:.3f} ± {np.nan_to_num(row[name, 'std']):.3f}" for name in measures]
        rows.append([label, f"{lam:g}", *shares, f"{row['relevance', '']:.2g}"])
    body = markdown_table(["method", "λ", *(MEASURES[name] for name in measures), "mean \\|b\\|"], rows)
    tests, seeds, epochs = (int(table[name].iloc[0]) for name in ("tests", "of_seeds", "epochs"))
    return (
        f"{body}\n\n{table['dataset'].iloc[0]}: accuracy on {tests:,} test inputs, mean ± sd over {seeds} seeds, "
        f"{epochs} epochs"
        + (f" of {int(table['steps'].iloc[0])} steps" if table["steps"].notna().all() else "")
        + f"; `{command}`. mean |b|: what the masked parts of {PROBE} training inputs still add to a logit, by the "
        "rule of the penalty (Shapley where it is named, else that of ACD)."
    )


def draw(table, path):
    """Accuracy against lambda, mean and sd over the seeds; a bar for each method where each has one lambda."""
    found, measures = summary(table), measures_of(table)
    if not found.index.get_level_values(0).duplicated().any():
        return _bars(found, measures, table, path)
    figure, axes = plt.subplots(1, len(measures), figsize=(5.2 * len(measures) + 1.8, 3.8), squeeze=False)
    for axis, measure in zip(axes[0], measures):
        for label in found.index.get_level_values(0).unique():
            rows = found.loc[label]
            mean, sd = rows[measure, "mean"], rows[measure, "std"].fillna(0)
            if label == "none":
                axis.axhline(mean.iloc[0], color="black", linewidth=1, linestyle="--", label="no penalty")
                axis.axhspan(*(mean.iloc[0] + s * sd.iloc[0] for s in (-1, 1)), color="black", alpha=0.08)
            else:
                axis.errorbar(
                    rows.index, mean, sd, marker="o", markersize=4, capsize=2, label=label, color=COLOURS_OF[label]
                )
        axis.set(xscale="log", xlabel="λ", ylabel=f"accuracy, {MEASURES[measure]}", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    return _saved(figure, table, path)


def _bars(found, measures, table, path):
    figure, axes = plt.subplots(
        1, len(measures), figsize=(3.4 * len(measures) + 2, 0.42 * len(found) + 1.3), squeeze=False, sharey=True
    )
    names = [label if label == "none" else f"{label}, λ {lam:g}" for label, lam in found.index]
    colours = [COLOURS_OF.get(label, "#777777") for label, _ in found.index]
    for axis, measure in zip(axes[0], measures):
        mean, sd = found[measure, "mean"], found[measure, "std"].fillna(0)
        axis.barh(names, mean, xerr=sd, color=colours, alpha=0.8, capsize=2, height=0.65)
        axis.set(xlabel=f"accuracy, {MEASURES[measure]}", xlim=(0, 1))
        axis.grid(alpha=0.3, axis="x")
    axes[0, 0].invert_yaxis()
    return _saved(figure, table, path)


def _saved(figure, table, path):
    seeds = int(table["of_seeds"].iloc[0])
    figure.suptitle(f"{table['dataset'].iloc[0]}, {seeds} seed{'s' * (seeds > 1)}", fontsize=10)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return figure


def main():
    parser = ArgumentParser(description="Sweep methods, lambdas and seeds over a data set with a fault.")
    add = parser.add_argument
    add("--dataset", default="decoydigits", choices=list(SWEEPS), help="data with a fault")
    add("--seeds", type=several, default=3, help="trainings of each method and lambda")
    add("--best", action="store_true", help="of each method only the lambda that did best without the fault")
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="which of them")
    add("--epochs", type=passes, help="of each training (default: the data set's)")
    add("--data_dir", type=a_data_folder, help="folder of MNIST's files or the treebank")
    add("--texts", default="sst", choices=TEXTS, help="of a text data set; snippets need no folder")
    add("--output", type=a_path, default="results", help="folder of table and figure, relative to this script")
    parser.add_device()
    options = parser.parse_args()
    target, known, where = given_folder(options.output, __file__), {}, config.device(options.device)

    def data(seed):
        if seed not in known:
            known[seed] = task(options.dataset, options.data_dir, seed, options.texts).to(where)
        return known[seed]

    name = options.dataset + (f"_{options.texts}" if options.texts != TEXTS[0] else "")
    name += "" if options.epochs is None else f"_{options.epochs}_epochs"
    root, rows = config.PROJECT_ROOT / "models" / "CDEP" / "saved_models" / f"experiment_{name}", []
    todo = trainings(options.dataset, options.seeds, options.best, options.methods, options.epochs)
    for label, settings in tqdm(todo, "trainings", disable=None):
        folder = root / f"{label.replace(', ', '_').replace(' ', '_')}_{settings.lam:g}_{settings.seed}"
        rows.append(row_of(label, run(data(settings.seed), settings, folder)))
    table = pd.DataFrame(rows).assign(of_seeds=options.seeds)
    path = target / f"{name}{'_best' if options.best else ''}.md"
    command = f"python models/CDEP/experiment.py --dataset {options.dataset} --seeds {options.seeds}"
    command += " --best" * options.best + f" --texts {options.texts}" * (options.texts != TEXTS[0])
    command += "" if options.epochs is None else f" --epochs {options.epochs}"
    command += f" --methods {' '.join(options.methods)}" * (options.methods != list(METHODS))
    text = as_text(table, command)
    save_text(path, text + "\n")
    plain = table.drop(columns="seconds").assign(relevance=table["relevance"].map("{:.5g}".format))
    save_text(path.with_suffix(".csv"), plain.round(5).to_csv(index=False, lineterminator="\n"))
    plt.close(draw(table, path.with_suffix(".png")))
    print(text)
    print(f"{table['seconds'].sum():.0f} s of training; written: {shown(path)}, .csv and .png")


if __name__ == "__main__":
    run_command(main)
