"""A table of a file as numbers: what boosted trees can be trained on, and what is said of it."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xgboost

from config import UserError, shown
from explainer.label_errors.cells import MISSING, Signs, bare, evidence, mostly, read_column, tidy
from explainer.label_errors.columns import ordered32
from explainer.label_errors.reading import read_cells
from explainer.label_errors.targets import check_labels, checked_header, same_as_target
from explainer.label_errors.trees import leaf_features

MANY = 50  # different texts in a column from which on it may be an id, if most rows have one of their own
TOLD = 100  # texts of a column that get a column of their own, at most
WIDTH = 1000  # columns that all columns of texts may make together, but for ten of each
SAMPLE = 2000  # rows in which the signs of the other columns' numbers are looked for
WORDS = 5  # in the mean, from which on different texts are sentences
ROUNDS = 100
PARAMETERS = {"max_depth": 4, "eta": 0.1, "lambda": 1.0, "min_child_weight": 1.0, "tree_method": "hist", "nthread": 1}
UUID = re.compile(r"\{?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?", re.IGNORECASE)


class Reading(NamedTuple):
    """How a file is written, where the user names it; None: found in the file.

    separator: of cells. encoding: of letters. decimal: sign of decimals, "." or ",". thousands: sign between groups of
    digits, "," "." " " or "'". missing: marks of missing values beside the known ones. texts: columns that hold names,
    though they look like numbers.
    """

    separator: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    missing: tuple = ()
    texts: tuple = ()


class Table(NamedTuple):
    """rows: the texts of the file, without rows that have no label. X (n,columns): numbers, NaN where missing, a column
    for each text. labels (n,): texts. numbers (n,): the rows' numbers in the file, from 0. notes: what was done. codes
    (n,used columns): one number for each different value, for telling copies.
    """

    rows: pd.DataFrame
    X: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    notes: list
    codes: np.ndarray


def read_table(path, target, drop=(), reading=Reading()):  # noqa: B008
    """The `Table` of a CSV file with a header. target: the column of the labels. drop: columns that are left out.

    Labels are the file's own texts; only empty ones are missing. Raises UserError, in one line, for a file that cannot
    be read in one way, columns that are not there, a target that is no label, and a column that is an id.
    """
    path, target, drop = Path(path), target.strip(), [name.strip() for name in drop]
    reading = reading._replace(texts=[name.strip() for name in reading.texts])
    signs = _signs(reading)
    cells = read_cells(path, target, reading.separator, reading.encoding)
    checked_header(path, cells, target, drop, reading.texts)
    if not len(cells.lines):
        raise UserError(f"{shown(path)} has a header and no rows: give a table with rows")
    notes = list(cells.notes)
    columns = dict(zip(cells.names, cells.columns))
    used = [name for name in columns if name != target and name not in drop]
    if not used:
        raise UserError(f"{shown(path)} has no column beside {target}: give some to tell the classes apart by")
    columns, lines = _without_units(columns, used, target, cells.lines, notes)
    labelled = np.array([bool(label.strip()) for label in columns[target]], bool)
    if not labelled.all():
        notes.append(f"{(~labelled).sum()} rows without {target} are left out")
    labels = columns[target][labelled]
    check_labels(path, target, labels, notes)
    known = _known(columns, used)
    read = {
        name: read_column(name, columns[name], lines, signs, known, reading.missing, name in reading.texts)
        for name in used
    }
    for name, column in read.items():
        _check_values(path, name, column, lines)
    rows = pd.DataFrame({name: pd.Series(column[labelled], dtype=object) for name, column in columns.items()})
    del cells, columns
    parts = [_part(name, column, labelled, notes, read) for name, column in read.items()]
    kept = [part for part in parts if part is not None]
    if not kept:
        raise UserError(f"no column of {shown(path)} tells rows apart: give one beside {target} that does")
    notes += same_as_target(rows, target, used)
    del read, parts
    codes = np.column_stack([codes for _, codes in kept])
    X = np.concatenate([ordered32(X) for X, _ in kept], axis=1)
    return Table(rows, X, labels.astype(str), np.flatnonzero(labelled), notes, codes)


def _signs(reading):
    """The `Signs` that the user names."""
    decimal, thousands = reading.decimal, reading.thousands
    if decimal is not None and decimal not in (".", ","):
        raise UserError(f"got --decimal {decimal!r}: give . or ,")
    if thousands is not None and thousands not in (".", ",", " ", "'"):
        raise UserError(f"got --thousands {thousands!r}: give one of . , ' or a space")
    if thousands is not None and thousands == decimal:
        raise UserError(f"got {decimal} as --decimal and as --thousands: give two signs")
    return Signs(decimal, thousands)


def _texts(column):
    """The different texts of cells that are not known to be missing."""
    return [text for text in dict.fromkeys(map(tidy, pd.unique(column))) if text.lower() not in MISSING]


def _known(columns, used):
    """The signs of decimals that numbers of any column must have."""
    found = set()
    for name in used:
        texts = list(bare(_texts(columns[name][:SAMPLE]))[0].values())
        found |= evidence(texts) if mostly(texts) else set()
    return found


def _without_units(columns, used, target, lines, notes):
    """The columns without a row of units below the header: texts where all columns of numbers have no number."""
    if len(lines) < 3:
        return columns, lines
    units, digit = [], re.compile(r"[$€£¥]?\s*[+-]?[.,]?\d")
    number = re.compile(r"[$€£¥]?\s*[+-]?[\d.,'\s]*\d[\d.,'\s]*([eE][+-]?\d+)?\s*[%$€£¥]?")
    for name in used:
        first = tidy(columns[name][0])
        rest = _texts(columns[name][1 : None if first and not number.fullmatch(first) else SAMPLE])
        if rest and all(digit.match(text) for text in rest):
            units.append(first)
    label = columns[target][0].strip()
    row = label and label in {label.strip() for label in columns[target][1:]}
    texts = [unit for unit in units if unit.lower() not in MISSING]
    if row or not texts or any(number.fullmatch(unit) for unit in units):
        return columns, lines
    notes.append(f"line {lines[0]}, below the header, has units ({', '.join(texts[:3])}); it is left out")
    return {name: column[1:] for name, column in columns.items()}, lines[1:]


def _check_values(path, name, column, lines):
    """Raises UserError for infinite numbers and ids, of all rows of the file."""
    n = len(lines)
    if column.kind == "text":
        there = [value for value in column.values if value is not None]
        different = set(there)
        if all(UUID.fullmatch(text) for text in different) and len(different) > min(MANY, n / 2):
            raise UserError(f"column {name} has UUIDs, as an id: --drop {name!r}")
        alone = len(different) == n > 10
        if (alone or (len(different) > MANY and len(different) > n / 2)) and not _sentences(different):
            raise UserError(
                f"column {name} has {len(different)} different texts in {n} rows, as an id: --drop {name!r}"
            )
        return
    infinite = np.isinf(column.values)
    if infinite.any():
        raise UserError(
            f"column {name} of {shown(path)} is infinite in row {infinite.argmax()} (from 0), line "
            f"{lines[infinite.argmax()]}: leave the cell empty"
        )
    if column.kind == "number" and n > MANY and _numbers_rows(name, column.values):
        raise UserError(f"column {name} numbers the rows: leave it out with --drop {name!r}")


def _sentences(different):
    return np.mean([len(text.split()) for text in different]) >= WORDS


def _numbers_rows(name, values):
    """Whether values (n,) are different whole numbers, as close as those of measurements would not be.

    n numbers drawn from a span of S are all different with a probability of exp(-n² / 2S). Numbers in ascending or
    descending order are taken for ids up to gaps of 20 in the mean, those of a column called id or index always.
    """
    n = len(values)
    if np.isnan(values).any() or (values != np.floor(values)).any() or len(np.unique(values)) < n:
        return False
    span, steps = np.ptp(values) + 1, np.diff(values)
    called = re.fullmatch(r"(?i)unnamed: \d+|(.*[_ ])?(id|idx|index|nr|no|key|rownames?|row)", name)
    called = called or re.fullmatch(r".*[a-z]I[Dd]", name)
    ordered = (steps > 0).all() or (steps < 0).all()
    return bool(called or (ordered and span <= 20 * n) or n * n > 14 * span)


def _part(name, column, labelled, notes, read):
    """A column as numbers (n,k) and codes (n,), of the rows with a label; None where it says nothing."""
    values = column.values[labelled]
    gone = values == None if column.kind == "text" else np.isnan(values)  # noqa: E711
    if gone.any():
        marks = f" ({', '.join(column.marks[:5])})" if column.marks else ""
        said = "the trees send them whichever way is better"
        notes.append(f"{name}: {gone.sum()} values are missing{marks}; {said}")
    if column.note:
        notes.append(column.note)
    if gone.all():
        notes.append(f"{name}: no row has a value; it is left out")
        return None
    if column.kind != "text":
        if np.ptp(values[~gone]) == 0 and not gone.any():
            notes.append(f"{name}: every row has the same value; it is left out")
            return None
        return values[:, None], values
    texts, codes = np.unique(values[~gone].astype(str), return_inverse=True)
    if len(texts) == 1 and not gone.any():
        notes.append(f"{name}: every row has the same value; it is left out")
        return None
    if len(texts) > MANY and len(texts) > len(values) / 2:
        notes.append(f"{name}: {len(texts)} different texts, as sentences; it is left out")
        return None
    several = sum(other.kind == "text" for other in read.values())
    full = np.full(len(values), np.nan)
    full[~gone] = codes
    return _encoded(name, texts, full, max(10, min(TOLD, WIDTH // several)), notes), full


def _encoded(name, texts, codes, limit, notes):
    """A column of 0 and 1 for each of texts (C,), or for the most common ones and one of how often each occurs.

    codes (n,): 0 ... C-1, nan where missing.
    """
    told, often = np.arange(len(texts)), np.bincount(codes[~np.isnan(codes)].astype(int))
    if len(texts) > limit:
        told = np.sort(np.argsort(-often, kind="stable")[:limit])
        notes.append(
            f"{name}: {len(texts)} different texts; the {limit} most common ones have a column each, the others are "
            "told by how often they occur"
        )
    X = (codes[:, None] == told).astype(float)
    if len(texts) > limit:
        counts = np.where(np.isnan(codes), 0, often[np.nan_to_num(codes).astype(int)])
        X = np.column_stack([X, counts])
    X[np.isnan(codes)] = np.nan
    return X


def boosted(X, y, seed=0, weights=None):
    """A booster of X (n,columns) and y (n,) in 0 ... C-1, and the leaves' values (n,trees) as features of the rows.

    weights (n,): of the rows in the loss, as of copies of one row; None: all the same.
    """
    C = int(y.max()) + 1
    more = {"objective": "binary:logistic"} if C == 2 else {"objective": "multi:softprob", "num_class": C}
    data = xgboost.DMatrix(X, label=y, weight=weights)
    booster = xgboost.train({**PARAMETERS, **more, "seed": seed}, data, ROUNDS)
    return booster, leaf_features(booster, X)
