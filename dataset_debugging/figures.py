"""Our figures with the published curves dashed behind: label flips in two panels, and quantiles of correlations."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from config import PROJECT_ROOT
from dataset_debugging.results import ACCURACY, IDENTIFIED, describe, load, published, summary
from models.files import replacing

FIGS = PROJECT_ROOT / "dataset_debugging" / "figs"
STYLES = {  # colours that the colour-blind tell apart, and markers for print
    "RPS-LJE": ("#0072B2", "o"),
    "Influence function": ("#D55E00", "s"),
    "RPS-l2": ("#009E73", "^"),
    "Loss": ("#CC79A7", "v"),
    "Leave-one-out loss": ("#56B4E9", "P"),
    "RPS-LJE without the anchor": ("#0072B2", "*"),
    "Noise model over the training": ("#000000", "X"),
    "Noise model, its own labels": ("#882255", "<"),
    "Random": ("#666666", "D"),
}
PANELS = {IDENTIFIED: "mislabelled data identified", ACCURACY: "test accuracy"}


def label_flips(experiment, title, detectors=False):
    """Draw an experiment's runs, or its committed results; returns the figure and the results behind it.

    detectors: with those of `explainer.label_errors`.
    """
    results = load(experiment, detectors)
    return draw(results, title), results


def draw(results, title):
    """Draw the results of one experiment against the published curves."""
    ours, theirs = summary(results.table), published(results.table["experiment"][0])
    quantities = [quantity for quantity in PANELS if (ours["quantity"] == quantity).any()]
    alone = len(quantities) == 1
    size = (7.4, 5.2) if alone else (5.6 * len(quantities), 4.3)
    figure, axes = plt.subplots(1, len(quantities), figsize=size, squeeze=False)
    for axis, quantity in zip(axes[0], quantities):
        _panel(axis, quantity, ours[ours["quantity"] == quantity], theirs[theirs["quantity"] == quantity])
    present = [label for label in STYLES if (ours["method"] == label).any()]
    keys = [Line2D([], [], color=STYLES[m][0], marker=STYLES[m][1], markersize=5, label=m) for m in present]
    runs = results.table["run"].nunique()
    keys.append(Line2D([], [], color="black", label="ours, mean ± sd over runs" if runs > 1 else "ours, one run"))
    if theirs["quantity"].isin(quantities).any():
        keys.append(Line2D([], [], color="black", linestyle="--", alpha=0.5, label="published"))
    columns = 3 if alone else len(keys) if len(keys) < 8 else 5
    top = (0.88 if alone else 0.93) - 0.04 * (0 if alone else (len(keys) - 1) // columns)
    figure.legend(
        handles=keys,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.955),
        ncols=columns,
        frameon=False,
        fontsize=9,
    )
    figure.suptitle(title, y=0.99, fontsize=12)
    caption = textwrap.wrap(describe(results), 95 * len(quantities))
    figure.text(0.5, 0.012, "\n".join(caption), ha="center", fontsize=8, color="#444444")
    figure.tight_layout(rect=(0, 0.035 * len(caption), 1, top))
    return figure


def _panel(axis, quantity, ours, theirs):
    for label, (colour, marker) in STYLES.items():
        curve = theirs[theirs["method"] == label]
        axis.plot(curve["fraction_checked"], curve["mean"], "--", color=colour, alpha=0.5, linewidth=1.6, zorder=1)
        curve = ours[ours["method"] == label]
        if len(curve):
            x, y, sd = curve["fraction_checked"], curve["mean"], curve["sd"]
            axis.errorbar(x, y, sd, color=colour, marker=marker, markersize=4, linewidth=1.3, elinewidth=0.8, capsize=2)
    axis.set(xlabel="fraction of training data checked", ylabel=PANELS[quantity])
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def quantiles(table, title, point):
    """Tables 7 and 8 as curves. table: what `explainer.agreement.quantile_table` returned. point: what is explained."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for axis, name in zip(axes, ("Pearson", "Spearman")):
        for source, style in (("published", "--"), ("ours", "-")):
            axis.plot(range(len(table)), table[name, source], style, marker="o", markersize=4, label=source)
        axis.set_xticks(range(len(table)), [f"{q:g}" for q in table.index], fontsize=8)
        axis.set(xlabel=f"quantile over the test {point}s", title=name)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.grid(color="#dddddd", linewidth=0.6)
    axes[0].set_ylabel("correlation on the union of the best 5")
    axes[1].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    return figure


def save(figure, name, folder=FIGS):
    """Write a figure as <name>.png and <name>.pdf, the same bytes for the same figure; returns the PNG's path."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        with replacing(Path(folder) / f"{name}{suffix}") as temporary:
            figure.savefig(temporary, dpi=150, metadata=metadata)
    return Path(folder) / f"{name}.png"
