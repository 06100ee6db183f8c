"""Pictures of decompositions: each writes a PNG, whole or not at all, and returns the data that it shows."""

from itertools import count
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from config import UserError
from models.files import replacing
from models.screen import printable

COLOURS = "RdBu"  # red against, white nothing, blue for
FRAMES = ("#009E73", "#E69F00", "#CC79A7", "#7F4FC9", "#8C6D31", "#B5BD00", "#000000", "#777777")  # no blue, no red
DPI = 150
ROUNDING = 1e-4  # beyond 0 and 1
OURS = "level", "component", "units"  # columns of a table whose others are called as classes
CENTRED = {"ha": "center", "va": "center", "fontsize": 8}


def as_written():
    """Draw texts as they are: a $ in a word, a class or a title begins no formula."""
    return plt.rc_context({"text.parse_math": False})


@as_written()
def draw_sentence(hierarchy, path, tokens=None, title=""):
    """A sentence's hierarchy: the tokens below, one row for each level above, colours centred at zero.

    Returns a table: level, first and last token (from 0), text, score.
    """
    tokens = [printable(token) for token in (hierarchy.names if tokens is None else tokens)]
    if len(tokens) != len(hierarchy.levels[0]):
        raise UserError(f"got {len(tokens)} tokens for a hierarchy of {len(hierarchy.levels[0])}: give one for each")
    nodes = sorted(_outermost(hierarchy.collapse()), key=lambda node: (node["level"], node["units"]))
    largest = max(abs(node["score"]) for node in nodes) or 1.0
    widths = np.array([max(3, len(token) + 1) for token in tokens], float)
    left = np.concatenate([[0], np.cumsum(widths)])
    rows = max(node["level"] for node in nodes) + 1
    figure, axis = plt.subplots(figsize=(max(5, 0.105 * left[-1] + 1.6), 0.5 * rows + 1.1))
    norm, data = Normalize(-largest, largest), []
    for node in nodes:
        first, last = node["units"][0], node["units"][-1]
        colour, x, width = plt.get_cmap(COLOURS)(norm(node["score"])), left[first], left[last + 1] - left[first]
        axis.add_patch(Rectangle((x, node["level"]), width, 0.92, facecolor=colour, edgecolor="white"))
        shade = "white" if abs(node["score"]) > 0.6 * largest else "black"
        for unit in node["units"]:
            where = (left[unit] + widths[unit] / 2, node["level"] + 0.46)
            axis.text(*where, tokens[unit], color=shade, **CENTRED)
        text = " ".join(tokens[unit] for unit in node["units"])
        data.append({"level": node["level"], "first": first, "last": last, "text": text, "score": node["score"]})
    axis.set(xlim=(0, left[-1]), ylim=(0, rows), yticks=np.arange(rows) + 0.46, yticklabels=range(rows), ylabel="level")
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=10)
    bar = figure.colorbar(plt.cm.ScalarMappable(norm, COLOURS), ax=axis, fraction=0.02, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    return _saved(figure, path, pd.DataFrame(data))


@as_written()
def draw_words(tokens, maps, path, title=""):
    """One sentence and what several methods make of its tokens, a row each on its own scale, centred at zero.

    maps: {name: (T,)}. Returns a table, a row for each method and a column for each token.
    """
    widths = np.array([max(3, len(token) + 1) for token in tokens], float)
    left = np.concatenate([[0], np.cumsum(widths)])
    figure, axis = plt.subplots(figsize=(max(5, 0.105 * left[-1] + 1.6), 0.36 * len(maps) + 0.7))
    for row, values in enumerate(maps.values()):
        if len(values) != len(tokens):
            raise UserError(f"got {len(values)} scores for {len(tokens)} tokens: give one for each")
        norm = Normalize(*(np.array([-1, 1]) * (np.abs(values).max() or 1.0)))
        for t, value in enumerate(values):
            colour, shade = plt.get_cmap(COLOURS)(norm(value)), "white" if abs(value) > 0.6 * norm.vmax else "black"
            axis.add_patch(Rectangle((left[t], row), widths[t], 0.92, facecolor=colour, edgecolor="white"))
            axis.text(left[t] + widths[t] / 2, row + 0.46, printable(tokens[t]), color=shade, **CENTRED)
    axis.set(xlim=(0, left[-1]), ylim=(len(maps), 0), yticks=np.arange(len(maps)) + 0.46, yticklabels=list(maps))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=10)
    return _saved(figure, path, pd.DataFrame(np.stack(list(maps.values())), index=list(maps), columns=list(tokens)))


def _outermost(nodes):
    """The nodes of a tree without those that have grown into another of their level."""
    grown = [set(node["units"]) for node in nodes]
    return [
        node
        for node, units in zip(nodes, grown)
        if not any(node["level"] == other["level"] and units < more for other, more in zip(nodes, grown))
    ]


def seen(image):
    """An image as it is drawn: (H,W) or (H,W,3), 0 to 1. Bytes and booleans are scaled.

    Raises UserError for other shapes, and for values beyond, which would be cut off: 255 beside 1 is white, as is 2.
    """
    image = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise UserError(f"the image is {image.shape}: give (H, W) or (H, W, 3)")
    if image.dtype == np.uint8 or image.dtype == bool:
        return image / (255 if image.dtype == np.uint8 else 1)
    low, high = (image.min(), image.max()) if image.size else (0, 0)
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UserError(f"the image has values from {low:.4g} to {high:.4g}: give 0 to 1, or bytes of 0 to 255")
    return image.clip(0, 1).astype(float)


@as_written()
def draw_image(hierarchy, image, path, classes=(), scores=None, title="", levels=5):
    """An image's hierarchy, a column for each of `levels` levels: unit scores, components over the image, class scores.

    image (H,W), (H,W,3): 0 to 1, or bytes. scores(sets) -> (n,K): all classes' scores of sets of units, for the third
    row, which is the hierarchy's own score where it is None. Returns a table: level, component, units, and a column per
    class, called as the class, or "class NAME" and "class NAME, 2" where that is the name of another column.
    """
    image = seen(image)
    if hierarchy.units is None or image.shape[:2] != hierarchy.units.shape:
        units = "none" if hierarchy.units is None else hierarchy.units.shape
        raise UserError(f"the image is {image.shape} and the hierarchy's units are {units}: give (H, W) or (H, W, 3)")
    shown = np.unique(np.linspace(0, len(hierarchy.levels) - 1, min(levels, len(hierarchy.levels))).round().astype(int))
    largest = np.nanmax(np.abs(np.concatenate(hierarchy.unit_scores))) or 1.0
    figure, axes = plt.subplots(3, len(shown), figsize=(2.1 * len(shown) + 0.4, 6.2), squeeze=False)
    data = []
    for column, level in enumerate(shown):
        top, middle, bottom = axes[:, column]
        unit_scores = np.append(hierarchy.unit_scores[level], np.nan)[hierarchy.units]
        top.imshow(unit_scores, cmap=plt.get_cmap(COLOURS).with_extremes(bad="#cccccc"), vmin=-largest, vmax=largest)
        top.set_title(f"level {level}", fontsize=9)
        middle.imshow(image, cmap="gray", vmin=0, vmax=1)
        parts = hierarchy.components(level)
        for c, units in parts.items():
            _outline(middle, hierarchy.units, units, FRAMES[(c - 1) % len(FRAMES)])
        values = _class_scores(hierarchy, level, parts, scores)
        if len(parts) and classes and len(classes) != values.shape[1]:
            raise UserError(f"got {len(classes)} classes for {values.shape[1]} scores: give one for each")
        names = list(classes) or (["score"] if values.shape[1] == 1 else [str(k) for k in range(values.shape[1])])
        _bars(bottom, parts, values, [printable(name) for name in names])
        for (c, units), value in zip(parts.items(), values):
            own = dict(zip(OURS, (int(level), c, units)))
            data.append({**own, **dict(zip(_columns(names), value.tolist()))})
        for axis in (top, middle):
            axis.set(xticks=[], yticks=[])
        bottom.set_visible(bool(parts))
    for row, name in enumerate(("what a unit adds\n(grey: chosen)", "components")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    axes[2, min(1, len(shown) - 1)].set_ylabel("score of a component", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return _saved(figure, path, pd.DataFrame(data))


@as_written()
def draw_parts(hierarchy, image, path):
    """An image with the first components that were chosen, beside what each of its units adds by itself.

    Returns the unit scores (U,).
    """
    image = seen(image)
    figure, (left, right) = plt.subplots(1, 2, figsize=(4.2, 2.2))
    left.imshow(image, cmap="gray", vmin=0, vmax=1)
    for c, units in hierarchy.components(min(1, len(hierarchy.levels) - 1)).items():
        _outline(left, hierarchy.units, units, FRAMES[(c - 1) % len(FRAMES)])
    values = hierarchy.unit_scores[0]
    largest = np.abs(values).max() or 1.0
    right.imshow(values[hierarchy.units], cmap=COLOURS, vmin=-largest, vmax=largest)
    for axis in (left, right):
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.4)
    return _saved(figure, path, values)


def _columns(names):
    """A column's name for each class: its own, where no other column has it."""
    found = [*OURS]
    for name in names:
        other = (f"class {name}" + (f", {k}" if k > 1 else "") for k in count(1))
        found.append(name if name not in found else next(n for n in other if n not in {*found, *names}))
    return found[len(OURS) :]


def _outline(axis, units, some, colour):
    inside = np.pad(np.isin(units, some), 1).astype(float)  # closed at the edges as well
    rows, columns = (np.arange(-1, size - 1) for size in inside.shape)
    axis.contour(columns, rows, inside, [0.5], colors=[colour], linewidths=1.6)
    axis.set(xlim=(-0.5, units.shape[1] - 0.5), ylim=(units.shape[0] - 0.5, -0.5))


def _class_scores(hierarchy, level, parts, scores):
    if not parts:
        return np.zeros((0, 1))
    if scores is None:
        return np.array([[hierarchy.scores[level][c]] for c in parts], float)
    found = np.asarray(scores(list(parts.values())), float)
    return found.reshape(len(parts), -1)


def _bars(axis, parts, values, names):
    """A group of bars for each component, one for each class."""
    axis.axhline(0, color="black", linewidth=0.6)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    K = values.shape[1]
    for row, c in enumerate(parts):
        for k in range(K):
            x, colour = row + 0.8 * k / K, FRAMES[(c - 1) % len(FRAMES)]
            axis.bar(x, values[row, k], 0.75 / K, color=colour, alpha=1.0 if k == values[row].argmax() else 0.45)
    if K > 1 and len(parts) * K <= 6:
        axis.set_xticks([row + 0.8 * k / K for row in range(len(parts)) for k in range(K)], names * len(parts))
        axis.tick_params(axis="x", rotation=90)
    else:
        axis.set_xticks([])


@as_written()
def draw_methods(image, maps, path, title=""):
    """One image and what several methods make of it, each on its own scale, centred at zero.

    image: as in `draw_image`. maps: {name: (H,W)}. Returns {name: (H,W)}.
    """
    image = seen(image)
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(1.9 * (1 + len(maps)), 2.5), squeeze=False)
    axes[0, 0].imshow(image, cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title("input", fontsize=9)
    for axis, (name, values) in zip(axes[0, 1:], maps.items()):
        largest = np.abs(values).max() or 1.0
        axis.imshow(values, cmap=COLOURS, vmin=-largest, vmax=largest)
        axis.set_title(f"{name}\n±{largest:.2g}", fontsize=9)
    for axis in axes[0]:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return _saved(figure, path, {name: np.asarray(values) for name, values in maps.items()})


@as_written()
def draw_layers(nodes, path, title=""):
    """How much is relevant, operation by operation: the sums of |b| and |g| and the relevant share.

    nodes: of `cd_layers`. Returns a table: number, operation, relevant, irrelevant, share.
    """
    rows = [(i, name, *(float(part.detach().abs().sum()) for part in parts)) for i, (name, *parts) in enumerate(nodes)]
    table = pd.DataFrame(rows, columns=["number", "operation", "relevant", "irrelevant"])
    table["share"] = table["relevant"] / (table["relevant"] + table["irrelevant"]).where(lambda whole: whole > 0, 1.0)
    figure, axis = plt.subplots(figsize=(max(4, 0.24 * len(table) + 1.5), 3.4))
    axis.bar(table["number"], table["share"], color="#0072B2", label="relevant |b|")
    axis.bar(table["number"], 1 - table["share"], bottom=table["share"], color="#dddddd", label="irrelevant |g|")
    axis.set_xticks(table["number"], table["operation"], rotation=90, fontsize=7)
    axis.set(ylabel="share of the sum", ylim=(0, 1), xlim=(-0.6, len(table) - 0.4))
    axis.set_title(title, fontsize=10, pad=22)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return _saved(figure, path, table)


def _saved(figure, path, data):
    path = Path(path)
    with replacing(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return data
