"""A table of a file as numbers: what boosted trees can be trained on, and what is said of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xgboost

from config import UserError, shown
from explainer.attribution.checks import first_line
from explainer.attribution.xgboost_trees import leaf_values

MANY = 50  # different texts in a column from which on it may be an id, if most rows have one of their own
ROUNDS = 100
PARAMETERS = {"max_depth": 4, "eta": 0.1, "lambda": 1.0, "min_child_weight": 1.0, "tree_method": "hist", "nthread": 1}


class Table(NamedTuple):
    """rows: the table as it was read, without rows that have no label. X (n,columns): numbers, NaN where missing, a
    column for each category. labels (n,). numbers (n,): the rows' numbers in the file, from 0. notes: what was done.
    """

    rows: pd.DataFrame
    X: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    notes: list


def read_table(path, target, drop=()):
    """The `Table` of a CSV file with a header. target: the column of the labels. drop: columns that are left out.

    Raises UserError, in one line, for a file that cannot be read, columns that are not there, a target of one value,
    and a column that is an id.
    """
    path = Path(path)
    try:
        rows = pd.read_csv(path)
    except OSError as error:
        raise UserError(f"cannot read {shown(path)} ({error.strerror}): give a CSV file") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(
            f"{shown(path)} is no CSV file in UTF-8 with a header ({first_line(error)}): save the table as one"
        ) from error
    for name in (target, *drop):
        if name not in rows:
            separators = "" if rows.shape[1] > 1 else ": separate the columns by commas, or give one of these"
            there = ", ".join(map(str, rows.columns))
            raise UserError(f"{shown(path)} has no column {name}; it has {there}{separators}")
    if target in drop:
        raise UserError(f"--drop {target!r} is the column of the labels, --target: drop another one")
    if not len(rows):
        raise UserError(f"{shown(path)} has a header and no rows: give a table with rows")
    notes, numbers = [], np.arange(len(rows))
    unlabelled = rows[target].isna().to_numpy()
    if unlabelled.any():
        notes.append(f"{unlabelled.sum()} rows without {target} are left out")
        rows, numbers = rows[~unlabelled].reset_index(drop=True), numbers[~unlabelled]
    if rows[target].nunique() < 2:
        raise UserError(f"column {target} of {shown(path)} has one value only: give labels of two classes at least")
    columns = [name for name in rows if name != target and name not in drop]
    if not columns:
        raise UserError(f"{shown(path)} has no column beside {target}: give some to tell the classes apart by")
    for name in columns:
        infinite = np.isinf(rows[name].to_numpy(float)) if rows[name].dtype.kind == "f" else np.zeros(len(rows), bool)
        if infinite.any():
            row = numbers[infinite.argmax()]
            raise UserError(f"column {name} of {shown(path)} is infinite in row {row} (from 0): leave the cell empty")
    parts = [_as_numbers(rows[name], notes) for name in columns]
    X = pd.concat(parts, axis=1).to_numpy(np.float32)
    return Table(rows, X, rows[target].to_numpy(), numbers, notes)


def _as_numbers(column, notes):
    """A column as numbers, or one column of 0 and 1 for each of its values. Raises UserError for an id."""
    name, n = column.name, len(column)
    missing = int(column.isna().sum())
    if missing:
        notes.append(f"{name}: {missing} values are missing; the trees send them whichever way is better")
    different = column.nunique()
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        values = column.dropna().to_numpy()
        if pd.api.types.is_integer_dtype(column) and n > MANY and different == n and np.ptp(values) == n - 1:
            raise UserError(f"column {name} numbers the rows: leave it out with --drop {name!r}")
        return column.astype(float)
    if different > MANY and different > n / 2:
        raise UserError(f"column {name} has {different} different texts in {n} rows, as an id: --drop {name!r}")
    if not different:
        return column.astype(float)
    one_hot = pd.get_dummies(column, prefix=name, dtype=float)
    one_hot.loc[column.isna()] = np.nan
    return one_hot


def boosted(X, y, seed=0):
    """A booster of X (n,columns) and y (n,) in 0 ... C-1, and the leaves' values (n,trees) as features of the rows."""
    C = int(y.max()) + 1
    more = {"objective": "binary:logistic"} if C == 2 else {"objective": "multi:softprob", "num_class": C}
    booster = xgboost.train({**PARAMETERS, **more, "seed": seed}, xgboost.DMatrix(X, label=y), ROUNDS)
    return booster, leaf_values(booster, X).astype(float)
