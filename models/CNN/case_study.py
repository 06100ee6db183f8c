"""The paper's case studies on CIFAR-10 (Figures 1, 2, 3, 5 to 8): test images and the training images behind them."""

from functools import cached_property
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import rankdata

from config import PROJECT_ROOT, base_folder
from dataset_debugging import figures
from explainer.agreement import best_explanations
from explainer.explanations import Explanations
from models.CNN.data.prepare import DEFAULT_CLASSES
from models.CNN.utils_cifar import images_behind, load_network
from models.outputs import load_outputs

FIGS = PROJECT_ROOT / "models/CNN/experiments/figs"
PUBLISHED = {"ours": {"lr": 0.01}, "IF": {}, "rep": {"lmbd": 0.003, "epoch": 3000}}  # of Figures 5 and 8
GAMMAS = (5e-4, 1e-3, 5e-3, 1e-2)  # Figure 3b
MORE_GAMMAS = (*GAMMAS, 0.1, 1.0, 10.0, 100.0)  # Figure 7
LAMBDAS = (1e-5, 1e-4, 0.01, 0.1)  # Figure 1a
MORE_LAMBDAS = (1e-3, 0.01, 0.1, 1.0, 10.0)  # Figure 6
SAME_CLASS = (3, 8, 12, 16)  # test points of Figures 1b and 3a
SIDE_BY_SIDE = (35, 912, 1110), (1132, 1310, 1009)  # of Figures 5 and 8
SAME, OTHER = "#0072B2", "#D55E00"  # frames: a training image of the test image's class, or of the other one


class Row(NamedTuple):
    """One row of a figure. title: what it shows. test: the test point. positive, negative: training points."""

    title: str
    test: int
    positive: np.ndarray
    negative: np.ndarray


class CaseStudy(Explanations):
    """The base model's saved outputs and images, and any method's explanations of them."""

    def __init__(self, folder=None):
        """Raises UserError, with what to do, where the model is missing."""
        self.folder = folder or base_folder("CNN")
        super().__init__(load_outputs(self.folder, "CNN"), PUBLISHED)
        self.classes = DEFAULT_CLASSES["cifar"]

    @cached_property
    def images(self):
        """The images behind the outputs. Raises UserError, with what to do, where they are missing."""
        return images_behind(self.outputs, load_network(self.folder))

    def row(self, title, method, test, positive=4, negative=4, **settings):
        """A row with the training images that speak most for the class of a test image, and most against it."""
        importance = self.importance(method, test, **settings)
        return Row(
            title, test, *(best_explanations(s * importance, k)[:, 0] for s, k in ((1, positive), (-1, negative)) if k)
        )

    def claims(self, k=3):
        """What the figures claim, over all test images and the settings of Figures 1a and 3b: see `Explanations`."""
        return super().claims(self.classes, {"ours": ("lr", GAMMAS), "rep": ("lmbd", LAMBDAS)}, k=k)

    def ranks(self, method, tests, **settings):
        """Figure 2: how the order of a test point's explanations follows the size of the weights alone.

        Returns the ranks (n,) of the training points by their weight, |alpha_i f_i|, and their ranks (n,k) by their
        share in each test point, |alpha_i f_i f_t|; 0 is the largest.
        """
        rows = self.weights(method, **settings)["weight_matrix"].reshape(len(self.outputs.labels_train), -1)
        if rows.shape[1] == 1:  # RPS-l2 keeps alpha_i alone
            rows = rows * self.outputs.intermediate_train
        sizes = np.linalg.norm(rows, axis=1)
        shares = np.abs(self.importance(method, tests, **settings))
        return rankdata(-sizes, method="ordinal") - 1, rankdata(-shares, axis=0, method="ordinal") - 1

    def draw(self, rows, title):
        """One row per `Row`: the test image, the training images that speak for its class, and those against it.

        Each training image has its index and class below it, and a frame that tells whether that is the test image's.
        """
        positive, negative = (max(len(side) for side in sides) for sides in zip(*(row[2:] for row in rows)))
        widths = [1, 0.25, *[1] * positive, *([0.25] + [1] * negative if negative else [])]
        size = 0.95 * sum(widths) + 1.6, 1.28 * len(rows) + 1.0
        figure, axes = plt.subplots(len(rows), len(widths), figsize=size, width_ratios=widths, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for row, line in zip(rows, axes):
            label = self.outputs.labels_test[row.test]
            self._show(line[0], self.images.x_test[row.test], f"test {row.test}\n{self.classes[label]}", "black")
            line[0].text(-0.12, 0.5, row.title, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
            for first, points in ((2, row.positive), (3 + positive, row.negative)):
                for axis, i in zip(line[first:], points):
                    its = self.outputs.labels_train[i]
                    frame = SAME if its == label else OTHER
                    self._show(axis, self.images.x_train[i], f"{i}\n{self.classes[its]}", frame)
        axes[0, 2].set_title("speak for its class", fontsize=9, loc="left")
        if negative:
            axes[0, 3 + positive].set_title("speak against it", fontsize=9, loc="left")
        figure.suptitle(title, fontsize=11)
        figure.tight_layout(h_pad=0.4, w_pad=0.6)
        return figure

    @staticmethod
    def _show(axis, image, text, frame):
        axis.imshow(image, interpolation="nearest")
        axis.set_axis_on()
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(text, fontsize=7.5, labelpad=2)
        for spine in axis.spines.values():
            spine.set(color=frame, linewidth=2)


def draw_ranks(ranks, title):
    """Figure 2: for each method, the density of (rank by weight, rank by share) over training and test points.

    ranks: {label: what `CaseStudy.ranks` returned}.
    """
    figure, axes = plt.subplots(1, len(ranks), figsize=(5.2 * len(ranks), 4.6), sharey=True, squeeze=False)
    for axis, (label, (weight, share)) in zip(axes[0], ranks.items()):
        x = np.repeat(weight, share.shape[1])
        axis.hexbin(x, share.reshape(-1), gridsize=60, bins="log", cmap="viridis", linewidths=0)
        correlation = np.mean([np.corrcoef(weight, column)[0, 1] for column in share.T])
        axis.set_title(f"{label}: mean rank correlation {correlation:.3f}", fontsize=10)
        axis.set_xlabel(r"rank by weight, $|\alpha_i f_i|$")
    axes[0, 0].set_ylabel(r"rank by share in a test point, $|\alpha_i f_i^\top f_t|$")
    figure.suptitle(f"{title}; the brighter, the more pairs", fontsize=11)
    figure.tight_layout()
    return figure


def save(figure, name):
    """Write a figure into models/CNN/experiments/figs."""
    return figures.save(figure, name, FIGS)
