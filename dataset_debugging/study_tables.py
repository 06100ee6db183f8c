"""The study of label errors as tables in Markdown and as one figure."""

import matplotlib.pyplot as plt
import numpy as np

from dataset_debugging.figures import STYLES, save
from dataset_debugging.study_detectors import FIVE_FOLDS, NAMES, OURS, RANDOM
from dataset_debugging.study_sources import HEADS
from models.files import markdown_table

DRAWN = {  # beside those of the label-flip figures
    **{name: STYLES[name] for name in STYLES if name in NAMES and name != RANDOM},
    "TracIn": ("#E69F00", "<"),
    FIVE_FOLDS: ("#AA3377", "h"),
}
TITLES = {
    "area": 'Area under "share found" against "share checked"',
    "found": "Share found when as many are checked as are wrong",
}
TIE = 0.0005  # what the tables round to


def summary(table):
    """Both measures by source and noise, what the noise model wins and loses against five folds, and the costs."""
    parts = [f"## {title}\n\n{_means(table, name)}" for name, title in TITLES.items()]
    scales = "\n".join(f"- {row.source}: {row.scale}" for row in table.drop_duplicates("source").itertuples())
    seeds = sorted(table["seed"].unique())
    head = f"Means over {len(seeds)} seeds ({seeds[0]} to {seeds[-1]}); the best of each row in bold.\n\n{scales}"
    return "\n\n".join([head, *parts, _against_folds(table), _costs(table)]) + "\n"


def _means(table, name):
    means = table.groupby(["source", "noise", "detector"], sort=False)[name].mean().unstack("detector")
    means = means[[detector for detector in NAMES if detector in means]]
    rows = []
    for (source, noise), values in means.iterrows():
        best = values.max()
        cells = ["–" if np.isnan(v) else f"**{v:.3f}**" if v >= best - TIE else f"{v:.3f}" for v in values]
        rows.append([source, noise, *cells])
    return markdown_table(["source", "noise", *means.columns], rows)


def _against_folds(table):
    """Where one training with the noise model has a larger area than five folds, and where a smaller one."""
    if FIVE_FOLDS not in set(table["detector"]):
        return "cleanlab's five folds were left out."
    wide = table.pivot_table(index=["source", "noise", "seed"], columns="detector", values="area", sort=False)
    by = (wide[OURS] - wide[FIVE_FOLDS]).groupby(["source", "noise"], sort=False).agg(["mean", "sem"]).fillna(0)
    lost = by[by["mean"] < -TIE]
    won = f"in {len(by) - len(lost)} of {len(by)} rows"
    text = f"One training with the noise model has at least the area of {FIVE_FOLDS} {won}"
    if not len(lost):
        return f"{text}."
    lines = [f"- {source}, {noise}: {r['mean']:.3f} ± {r['sem']:.3f}" for (source, noise), r in lost.iterrows()]
    return "\n".join([f"{text}. It has less in these (mean difference ± its standard error over seeds):", "", *lines])


def _costs(table):
    """Trainings and seconds of every detector, by source."""
    seconds = (
        table.groupby(["source", "detector"], sort=False)["seconds"]
        .mean()
        .unstack("source")[list(table["source"].unique())]
    )
    trainings = table.groupby("detector")["trainings"].first()
    names = [name for name in NAMES if name in seconds.index and name != RANDOM]
    rows = [
        [name, str(trainings[name]), *("–" if np.isnan(v) else f"{v:.2f}" for v in seconds.loc[name])] for name in names
    ]
    header = ["detector", "trainings", *seconds.columns]
    return f"## Cost: trainings, and seconds with them\n\n{markdown_table(header, rows)}"


def draw(table, folder):
    """Areas against the noise: one panel for each model, one for the mean over the linear heads. Returns the file."""
    groups = {name: table[table["source"] == name] for name in table["source"].unique() if name not in HEADS}
    heads = table[table["source"].isin(list(HEADS))]
    if len(heads):
        groups[f"mean of {heads['source'].nunique()} linear heads"] = heads
    noises = list(table["noise"].unique())
    figure, axes = plt.subplots(1, len(groups), figsize=(4.1 * len(groups) + 0.4, 4.6), sharey=True, squeeze=False)
    for axis, (name, part) in zip(axes[0], groups.items()):
        means = part.groupby(["noise", "detector"])["area"].mean().unstack("detector").reindex(noises)
        best = (1 - part["wrong"] / part["n"] / 2).groupby(part["noise"]).mean().reindex(noises)
        axis.plot(range(len(noises)), best, "_", color="black", markersize=18, label="all wrong ones first")
        uniform = [i for i, noise in enumerate(noises) if noise.startswith("uniform")]
        for detector, (colour, marker) in DRAWN.items():
            if detector in means:
                axis.plot(range(len(noises)), means[detector], marker, color=colour, markersize=5, label=detector)
                axis.plot(uniform, means[detector].iloc[uniform], color=colour, linewidth=1)
        axis.set_xticks(range(len(noises)), noises, rotation=40, ha="right", fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("area under share found / share checked")
    columns = 5 if len(groups) > 2 else 2
    keys, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(keys, names, loc="upper center", ncols=columns, frameon=False, fontsize=8.5)
    figure.tight_layout(rect=(0, 0, 1, 0.98 - 0.045 * -(-len(names) // columns)))
    return save(figure, "label_errors", folder)
