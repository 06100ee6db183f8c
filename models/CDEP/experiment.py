"""Methods, lambdas and seeds over one data set: the table and the figure of its accuracies without the fault.

python models/CDEP/experiment.py --dataset decoydigits --seeds 3 --best      under a minute on two cores
python models/CDEP/experiment.py --dataset decoydigits --seeds 5             every lambda

Each training has a folder of its own below saved_models/experiment_DATASET and is kept, so a stopped sweep goes on.
Writes results/DATASET.csv (a row for each training), .md (the table) and .png.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm import tqdm

import config
from config import ArgumentParser, UserError, at_least_one, run_command, shown
from models.CDEP.data import DATASETS, task
from models.CDEP.methods import METHODS, Settings
from models.CDEP.text import TEXTS
from models.CDEP.train import run
from models.files import load_json, markdown_table, replacing, save_text

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
MEASURES = {
    "test_accuracy": "without the fault",
    "against_accuracy": "fault against the label",
    "clean_choice_accuracy": "epoch chosen without it",
}


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


def result_of(folder, data, settings):
    """The result of a training, read where it is there. Raises UserError where the folder is another's."""
    path = folder / "result.json"
    if not path.exists():
        return run(data(settings.seed), settings, folder)
    result = load_json(path, "delete it, and the same command makes it again")
    for name, value in settings._asdict().items():
        if result.get(name) != value:
            raise UserError(f"{shown(path)} was made with {name} {result.get(name)}, now {value}: delete that folder")
    return result


def summary(table):
    """Mean and sd over the seeds: a row for each label and lambda."""
    measures = [name for name in MEASURES if name in table]
    groups = table.groupby(["label", "lam"], sort=False)
    found = groups[measures].agg(["mean", "std"])
    for name in ("relevance", "seconds"):
        found[name, ""] = groups[name].mean()
    return found


def as_text(table, command):
    """The table in Markdown, with what it is of. command: what makes it."""
    found, measures = summary(table), [name for name in MEASURES if name in table]
    rows = []
    for (label, lam), row in found.iterrows():
        shares = [f"{row[name, 'mean']:.3f} ± {np.nan_to_num(row[name, 'std']):.3f}" for name in measures]
        rows.append([label, f"{lam:g}", *shares, f"{row['relevance', '']:.2g}", f"{row['seconds', '']:.0f}"])
    body = markdown_table(["method", "λ", *(MEASURES[name] for name in measures), "mean \\|b\\|", "s"], rows)
    tests, seeds, epochs = (int(table[name].iloc[0]) for name in ("tests", "of_seeds", "epochs"))
    return (
        f"{body}\n\n{table['dataset'].iloc[0]}: accuracy on {tests:,} test inputs, mean ± sd over {seeds} seeds, "
        f"{epochs} epochs"
        + (f" of {int(table['steps'].iloc[0])} steps" if table["steps"].notna().all() else "")
        + f"; `{command}`. mean |b|: what the masked parts still add to a logit. s: seconds of a training."
    )


def draw(table, path):
    """Accuracy against lambda, mean and sd over the seeds."""
    found, measures = summary(table), [name for name in MEASURES if name in table]
    figure, axes = plt.subplots(1, len(measures), figsize=(5.2 * len(measures) + 1.8, 3.8), squeeze=False)
    for axis, measure in zip(axes[0], measures):
        for k, label in enumerate(found.index.get_level_values(0).unique()):
            rows = found.loc[label]
            mean, sd = rows[measure, "mean"], rows[measure, "std"].fillna(0)
            if label == "none":
                axis.axhline(mean.iloc[0], color="black", linewidth=1, linestyle="--", label="no penalty")
                axis.axhspan(*(mean.iloc[0] + s * sd.iloc[0] for s in (-1, 1)), color="black", alpha=0.08)
            else:
                axis.errorbar(rows.index, mean, sd, marker="o", markersize=4, capsize=2, label=label, color=f"C{k - 1}")
        axis.set(xscale="log", xlabel="λ", ylabel=f"accuracy, {MEASURES[measure]}", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
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
    add("--seeds", type=at_least_one, default=3, help="trainings of each method and lambda")
    add("--best", action="store_true", help="of each method only the lambda that did best")
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="which of them")
    add("--epochs", type=at_least_one, help="of each training (default: the data set's)")
    add("--data_dir", help="folder of MNIST's files or the treebank")
    add("--texts", default="sst", choices=TEXTS, help="of a text data set; snippets need no folder")
    options = parser.parse_args()
    known = {}

    def data(seed):
        if seed not in known:
            known[seed] = task(options.dataset, options.data_dir, seed, options.texts)
        return known[seed]

    name = options.dataset + (f"_{options.texts}" if options.texts != TEXTS[0] else "")
    root, rows = config.PROJECT_ROOT / "models" / "CDEP" / "saved_models" / f"experiment_{name}", []
    todo = trainings(options.dataset, options.seeds, options.best, options.methods, options.epochs)
    for label, settings in tqdm(todo, "trainings", disable=None):
        folder = root / f"{label.replace(', ', '_').replace(' ', '_')}_{settings.lam:g}_{settings.seed}"
        rows.append({"label": label, **result_of(folder, data, settings)})
    table = pd.DataFrame(rows).assign(of_seeds=options.seeds)
    path = config.PROJECT_ROOT / "models" / "CDEP" / "results" / f"{name}{'_best' if options.best else ''}.md"
    command = f"python models/CDEP/experiment.py --dataset {options.dataset} --seeds {options.seeds}"
    command += " --best" * options.best + f" --texts {options.texts}" * (options.texts != TEXTS[0])
    command += f" --methods {' '.join(options.methods)}" * (options.methods != list(METHODS))
    text = as_text(table, command)
    save_text(path, text + "\n")
    save_text(path.with_suffix(".csv"), table.round(5).to_csv(index=False, lineterminator="\n"))
    plt.close(draw(table, path.with_suffix(".png")))
    print(text)
    print(f"{table['seconds'].sum():.0f} s of training; written: {shown(path)}, .csv and .png")


if __name__ == "__main__":
    run_command(main)
