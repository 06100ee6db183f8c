"""The column of the labels: whether it is one, whether the header is one, and what else says the same."""

import re

import numpy as np
import pandas as pd

from config import UserError, shown
from explainer.label_errors.cells import PLAIN
from explainer.label_errors.columns import too_many

LISTED = 20  # columns that a message lists, at most
SOME, SPACED = 1000, 4  # rows that show that a column has more values than classes, each with white space or without
DIFFERENT = 20  # numbers with decimals from which on they are a quantity


def checked_header(path, cells, target, drop, texts):
    """Raises UserError for columns that are not there, and for a first row in the place of a header."""
    names = cells.names
    labels = {label.strip() for label in _column(cells, target)}
    again = [row for row in np.flatnonzero([label.strip() == target for label in _column(cells, target)])
             if all(column[row].strip() == name for name, column in zip(names, cells.columns))]  # fmt: skip
    if again:
        raise UserError(f"line {cells.lines[again[0]]} of {shown(path)} is the header once more: delete it")
    decimals = [name for name in names if re.fullmatch(r"[+-]?\d+[.,]\d+", name)]
    wrong = target in labels or (decimals and (target not in names or len(decimals) > 1))
    if wrong or (
        target not in names and len(names) > 1 and sum(map(bool, map(PLAIN.fullmatch, names))) > len(names) / 2
    ):
        first = ", ".join(names[:3])
        raise UserError(
            f"{shown(path)} begins with a row, {first} ..., not with a header: write the columns' names above"
        )
    for name in (target, *drop, *texts):
        if name not in names:
            alone = ": name the sign between the columns as --separator, or give this one" if len(names) == 1 else ""
            there = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
            raise UserError(f"{shown(path)} has no column {name}; it has {there}{alone}")
    if target in drop:
        raise UserError(f"--drop {target!r} is the column of the labels, --target: drop another one")


def _column(cells, name):
    return cells.columns[cells.names.index(name)] if name in cells.names else []


def check_labels(path, target, labels, notes):
    """Raises UserError for texts (n,) that are no labels; notes those that differ only in how they are written."""
    names, y = np.unique(labels.astype(str), return_inverse=True)
    if len(names) < 2:
        said = "has one value only" if len(names) else "has no value"
        raise UserError(f"column {target} of {shown(path)} {said}: give labels of two classes at least")
    numbers = [name for name in names if PLAIN.fullmatch(name.strip())]
    quantity = "; numbers to be predicted are not supported" if len(numbers) == len(names) else ""
    if too_many(y):
        raise UserError(
            f"column {target} has {len(names)} values in {len(y)} rows, more than a tenth of them: give a column of "
            f"labels{quantity}"
        )
    broken = quantity and len(names) > DIFFERENT and any(float(name) != int(float(name)) for name in numbers)
    if broken:
        raise UserError(f"column {target} has {len(names)} numbers with decimals: give a column of labels{quantity}")
    alike = {}
    for name in names:
        plain = name.strip()
        key = float(plain) if PLAIN.fullmatch(plain) else plain.casefold()
        alike.setdefault(key, []).append(name)
    for several in alike.values():
        if len(several) > 1:
            said = ", ".join(repr(str(name)) for name in several)
            notes.append(f"the labels {said} are classes of their own")


def same_as_target(rows, target, used):
    """Notes of columns whose texts and the labels say each other."""
    labels, notes = pd.factorize(rows[target].str.strip())[0], []
    for name in used:
        if len(set(rows[name].iloc[:SOME])) > SPACED * (labels.max() + 1):
            continue
        codes = pd.factorize(rows[name].str.strip())[0]
        pairs = len(np.unique(codes * (labels.max() + 1) + labels))
        if pairs == codes.max() + 1 == labels.max() + 1:
            notes.append(
                f"{name} says the same as {target}, so no label looks wrong; leave it out with --drop {name!r}"
            )
    return notes
