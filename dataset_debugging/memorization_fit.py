"""Why runs find different shares of the flips: how well each one fits them, drawn and in words."""

import matplotlib.pyplot as plt
import numpy as np

from dataset_debugging import figures
from explainer.methods import METHODS
from models.files import markdown_table

CHECKED = 0.2
FITS = {"loss_ratio": "loss of the flips / loss of the others", "test_accuracy": "test accuracy"}


def draw_fit(table, curves=None, accuracy=None):
    """Each run at its last epoch: the share found against how well the flips are fitted, and the test accuracy.

    curves: the published shares by method's label, accuracy: the published test accuracy, where there are any.
    """
    last = table[table["epoch"] == table["epoch"].max()]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True)
    for axis, (name, label) in zip(axes, FITS.items()):
        for key, method in METHODS.items():
            colour, marker = figures.STYLES[method.label]
            axis.scatter(last[name], last[key], s=24, color=colour, marker=marker, alpha=0.8, label=method.label)
            if curves is not None and name == "test_accuracy":
                axis.scatter([accuracy], [curves[method.label]], s=130, color=colour, marker="*", edgecolor="black")
        axis.set_xlabel(label)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_xscale("log")
    axes[0].xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes[0].xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if x in (2, 3, 5) else "")
    axes[0].set_ylabel(f"share of the flips found, {CHECKED:.0%} checked")
    axes[0].legend(frameon=False, fontsize=8.5)
    figure.suptitle("Runs that fit the flips as well as the other labels hide them", fontsize=11)
    caption = f"{len(last)} runs after {last['epoch'].max():g} epochs"
    if curves is not None:
        caption += "; stars: the published shares, at the published accuracy after refits at 5 % checked"
    figure.text(0.5, 0.012, caption, ha="center", fontsize=8, color="#444444")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return figure


def fit_lines(table, curves, accuracy):
    """What the runs say of the published shares: correlations, and the share at the published accuracy, by a line."""
    last = table[table["epoch"] == table["epoch"].max()]
    if len(last) < 5 or last["test_accuracy"].nunique() < 3:
        return ""
    header, lines = ["method", "correlation with log loss ratio", "with test accuracy", "mean of the runs"], []
    header += [f"line at accuracy {accuracy:.3f}", "published"]
    for key, method in METHODS.items():
        ratio = np.corrcoef(np.log(last["loss_ratio"]), last[key])[0, 1]
        by_accuracy = np.corrcoef(last["test_accuracy"], last[key])[0, 1]
        line = np.polyval(np.polyfit(last["test_accuracy"], last[key], 1), accuracy)
        values = ratio, by_accuracy, last[key].mean(), line, curves[method.label]
        lines.append([method.label, *(f"{value:.3f}" for value in values)])
    return (
        f"\n### Why more or less is found from run to run\n\nThe share found at {CHECKED:.0%} checked in {len(last)} "
        f"runs of both experiments after {last['epoch'].max():g} epochs, when nearly every flip is memorized, against "
        "how much larger the loss of the flips is than that of the other points, and against the test accuracy. The "
        "line is the least-squares fit on the test accuracy, at the published accuracy of the first checkpoint.\n\n"
        f"{markdown_table(header, lines)}\n"
    )
