"""Features, labels and tables as people have them, as float64 numbers, each column by its own origin and spread.

Integers are centred before they become floating numbers, so that columns of numbers beyond 2^53, such as times in
nanoseconds, keep what tells their rows apart.
"""

import numpy as np
import pandas as pd
import torch

from config import UserError
from explainer.attribution.checks import array, first_line

CATEGORIES = 50  # different values of a column of texts that become columns of 0 and 1
ROUNDING = 4 * np.finfo(float).eps  # of the largest value: a column that spreads no further is constant
HUGE = 1e300  # where differences overflow
NUMBERS = "integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"  # what objects may be
BLOCK = 64  # columns that are standardized at once


def numbers(given, name, n=None, missing=False, keep=False):
    """Features (n,d) as an array of float64, of a tensor of any device and precision, an array, lists or a DataFrame.

    A DataFrame's columns of categories and texts become one column of 0 and 1 for each value. missing: whether nan is
    allowed. keep: leave floating numbers in their precision. Raises UserError, in one line, for another shape, another
    number of rows than n, and what is no number.
    """
    F = _frame(given, name) if isinstance(given, pd.DataFrame) else plain(given, name, keep)
    if F.ndim != 2 or not F.size:
        raise UserError(f"{name} have the shape {F.shape}: give (n, d)")
    if n is not None and len(F) != n:
        raise UserError(f"got {len(F)} rows of {name} and {n} labels: give as many of each")
    bad = np.isinf(F).any(1) if missing else ~np.isfinite(F).all(1)
    if bad.any():
        row = int(bad.argmax())
        column = int((np.isinf(F[row]) if missing else ~np.isfinite(F[row])).argmax())
        called = given.columns[column] if isinstance(given, pd.DataFrame) and F.shape == given.shape else column
        raise UserError(f"row {row} of {name} is not finite in column {called}: leave it out or fill it in")
    return F


def plain(given, name, keep=False):
    """What holds real numbers, of any shape, as an array of float64; keep: floating numbers as they are."""
    F = array(_on_cpu(given, name), name)
    F = F.numpy() if isinstance(F, torch.Tensor) else F
    return F if keep and F.dtype.kind == "f" else _floats(F)


def _on_cpu(given, name):
    """The same on the CPU, in a precision that NumPy has."""
    if isinstance(given, (list, tuple)) and any(isinstance(part, torch.Tensor) for part in given):
        try:
            given = torch.stack([torch.as_tensor(part).cpu() for part in given])
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{name} differ in their parts ({first_line(error)}): give one array") from error
    if not isinstance(given, torch.Tensor):
        return given
    given = given.detach()
    if given.dtype in (torch.bfloat16, torch.float16) or str(given.dtype).startswith("torch.float8"):
        given = given.float()
    return given.cpu()


def _floats(values):
    """An array as float64 (n,...), its integers less the first row of theirs where float64 does not hold them."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.ndim and len(values):
        low, high = int(values.min()), int(values.max())
        if max(-low, high) > 2**53:
            base = values.min(0)
            return (values.astype(np.uint64) - base.astype(np.uint64)).astype(float)  # of differences modulo 2^64
    return np.array(values, dtype=float, order="C")


def _frame(table, name):
    """A DataFrame as numbers (n,d)."""
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise UserError(f"{name} have two columns {twice!r}: give each a name of its own")
    parts = [_column(table[label], f"column {label!r} of {name}") for label in table]
    return np.concatenate(parts, 1) if parts else np.empty((len(table), 0))


def _column(column, name):
    """A column of a DataFrame as numbers (n,k), nan where it is missing."""
    kind, absent = column.dtype, column.isna().to_numpy()
    if pd.api.types.is_complex_dtype(kind):
        raise UserError(f"{name} holds complex numbers: give real ones")
    if pd.api.types.is_object_dtype(kind) and pd.api.types.infer_dtype(column, skipna=True) in NUMBERS:
        column = column.where(~absent, np.nan)
        integers = [value for value, gone in zip(column, absent) if not gone]
        if integers and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in integers):
            base = min(integers)
            column = pd.Series([np.nan if gone else v - base for v, gone in zip(column, absent)])
        return column.astype(float).to_numpy()[:, None]
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        counts = column.astype("int64").to_numpy()
        return _centred(counts, absent)
    if pd.api.types.is_integer_dtype(kind):
        dtype = np.uint64 if pd.api.types.is_unsigned_integer_dtype(kind) else np.int64
        return _centred(column.fillna(0).to_numpy(dtype) if absent.any() else column.to_numpy(dtype), absent)
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_numeric_dtype(kind):
        return column.astype(float).to_numpy(dtype=float, na_value=np.nan)[:, None]
    return _categories(column, absent, name)


def _centred(counts, absent):
    """Whole numbers (n,) as a column (n,1), nan where absent."""
    base = counts[~absent].min() if (~absent).any() else 0
    found = _floats(np.where(absent, base, counts)[:, None].astype(counts.dtype))
    found[absent] = np.nan
    return found


def _categories(column, absent, name):
    """One column of 0 and 1 for each value of a column of categories or texts: (n,k), nan where absent."""
    if absent.any():
        raise UserError(f"{name} is missing in row {int(absent.argmax())}: leave the row out or fill it in")
    texts = column.astype(str)
    values = texts.unique()
    if not isinstance(column.dtype, pd.CategoricalDtype) and pd.to_numeric(texts, errors="coerce").notna().all():
        raise UserError(f"{name} holds numbers as texts: convert it with pd.to_numeric, or to categories")
    if len(values) > CATEGORIES:
        raise UserError(f"{name} has {len(values)} different texts, more than {CATEGORIES}: leave it out or encode it")
    return (texts.to_numpy()[:, None] == np.sort(values)[None, :]).astype(float)


def class_numbers(labels, features=None):
    """The names (C,) of the classes and the labels as 0 ... C-1 (n,).

    labels: of any kind that can be sorted. features: whose index is to be that of the labels, where both have one.
    Raises UserError for labels that are missing, of several kinds, of one class, or that name no classes.
    """
    if isinstance(labels, pd.Series) and isinstance(features, pd.DataFrame):
        ours, theirs = labels.index, features.index
        if len(ours) == len(theirs) and not ours.equals(theirs) and ours.sort_values().equals(theirs.sort_values()):
            raise UserError("the index of labels is that of features in another order: give both in one, by .loc")
    labels = _on_cpu(labels, "labels")
    try:
        found = np.asarray(labels)
        if (
            found.dtype.kind in "US"
            and isinstance(labels, (list, tuple))
            and not all(isinstance(v, str) for v in labels)
        ):
            found = np.array(labels, dtype=object)  # NumPy makes a text of the number, and of nan
    except ValueError as error:
        raise UserError("labels differ in their shapes: give one for each point, (n,)") from error
    labels = found
    if labels.ndim != 1:
        raise UserError(f"labels have the shape {labels.shape}: give one for each point, (n,)")
    missing = pd.isna(labels)
    if missing.any():
        raise UserError(f"{missing.sum()} labels are missing, the first of row {int(missing.argmax())}: leave them out")
    try:
        names, y = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise UserError(f"labels of several kinds cannot be sorted ({error}): give numbers or texts") from error
    if len(names) < 2:
        raise UserError(f"every label is {names.tolist()[0] if len(names) else 'missing'}: give points of two classes")
    if too_many(y):
        raise UserError(f"{len(names)} classes of {len(y)} points: give labels, no numbers that are all different")
    return names, y


def too_many(y):
    """Whether labels y (n,), 0 ... C-1, are rather numbers or names than classes.

    Mistyped names, which are classes of one point, may be up to a tenth of the points; the others as many classes.
    """
    members = np.bincount(y)
    alone = int((members == 1).sum())
    few = max(2, len(y) / 10)
    return len(members) > 2 and (alone > few or len(members) - alone > max(few, min(10, len(y) / 3)))


def standardized(F):
    """F (n,d) with mean 0 and standard deviation 1, without constant columns, and a constant 1: (n,D), float64.

    A column is constant by its own values: where it spreads no further than they are rounded. Raises UserError for
    values that are not finite.
    """
    n, d = F.shape
    parts, kept = [], []
    for start in range(0, d, BLOCK):
        part = F[:, start : start + BLOCK]
        part = part.double() if isinstance(part, torch.Tensor) else torch.from_numpy(np.array(part, dtype=float))
        Z, constant = _standard(part)
        parts.append(Z[:, ~constant])
        kept.append(int((~constant).sum()))
    found = torch.ones(n, sum(kept) + 1, dtype=torch.float64)
    for first, Z in zip(np.cumsum([0, *kept]), parts):
        found[:, first : first + Z.shape[1]] = Z
    return found


def _standard(F):
    """Columns (n,k) less their means over their deviations, and which (k,) are constant."""
    if not torch.isfinite(F).all():
        row = int((~torch.isfinite(F)).any(1).nonzero()[0, 0])
        raise UserError(f"the features of row {row} are not finite: mend or leave out that point")
    largest = F.abs().amax(0)
    if bool((largest > HUGE).any()):
        F = torch.where(largest > HUGE, F / 16, F)
    Z = F - F[:1]  # exact where the values are close, so that no offset is too large
    spread = Z.amax(0) - Z.amin(0)
    constant = spread <= ROUNDING * F.abs().amax(0)
    Z = Z / spread.clamp_min(torch.finfo(torch.float64).tiny)
    Z -= Z.mean(0)
    Z /= Z.square().mean(0).sqrt().clamp_min(1e-300)
    return Z, constant


def ordered32(X):
    """X (n,columns) in float32, as XGBoost takes it, in the order of each column's own values, nan where missing.

    A column whose different values float32 does not tell apart, such as times in nanoseconds, is given by its ranks:
    trees ask for nothing but the order.
    """
    X = np.asarray(X)
    with np.errstate(over="ignore"):
        found = X.astype(np.float32)
    for j in range(X.shape[1]):
        there = np.flatnonzero(~np.isnan(X[:, j])) if X.dtype.kind == "f" else np.arange(len(X))
        values, ranks = np.unique(X[there, j], return_inverse=True)
        with np.errstate(over="ignore"):
            short = values.astype(np.float32)
        if len(values) > 1 and not (np.isfinite(short).all() and (np.diff(short) > 0).all()):
            found[there, j] = ranks
    return found
