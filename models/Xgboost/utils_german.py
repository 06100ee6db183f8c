"""German Credit: the raw rows, the prepared arrays, and both as a person reads them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from models.arrays import Array
from models.files import load_npz

DATA = Path(__file__).resolve().parent / "data"
RAW, ATTRIBUTES, PREPARED = DATA / "german.data", DATA / "attributes.csv", DATA / "prepared.npz"
READABLE = DATA / "german_credit.csv"

COLUMNS = (
    "existingchecking duration credithistory purpose creditamount savings employmentsince installmentrate statussex "
    "otherdebtors residencesince property age otherinstallmentplans housing existingcredits job peopleliable telephone "
    "foreignworker classification"
).split()
NUMERICAL = "creditamount duration installmentrate residencesince age existingcredits peopleliable".split()
CATEGORICAL = [name for name in COLUMNS[:-1] if name not in NUMERICAL]
ARRAYS = {  # of `GermanCredit`
    "X_train": Array("i", (("n", "d"),), 0),
    "y_train": Array("i", (("n",),), 0, 1),
    "X_test": Array("i", (("m", "d"),), 0),
    "y_test": Array("i", (("m",),), 0, 1),
    "columns": Array("U", (("d",),)),
    "train_rows": Array("i", (("n", 2),), 0, 999),
    "test_rows": Array("i", (("m",),), 0, 999),
}


@dataclass(frozen=True)
class GermanCredit:
    """The prepared data: n = 1,118 training rows (800 real, then 318 synthetic), m = 200 test rows, 61 columns.

    X_train (n,61), X_test (m,61): numerical columns and one column per category. y_*: 1 good, 0 bad credit risk.
    columns (61,): their names. train_rows (n,2): the two rows of the raw file that each training row comes from,
    the same one twice for a real row. test_rows (m,): rows of the raw file.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    columns: np.ndarray
    train_rows: np.ndarray
    test_rows: np.ndarray

    @property
    def fingerprint(self):
        """A hash of the arrays that a model is trained and tested on."""
        digest = hashlib.sha256()
        for array in (self.X_train, self.y_train, self.X_test, self.y_test):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]


def load():
    """The prepared arrays. Raises UserError where they are missing or damaged."""
    remedy = "run python models/Xgboost/data/prepare.py"
    return GermanCredit(**load_npz(PREPARED, ARRAYS, remedy))


def raw():
    """The raw file, one row per applicant, codes as they stand."""
    return pd.read_csv(RAW, sep=" ", names=COLUMNS)


def meanings():
    """What each code means: a series over (attribute, code)."""
    return pd.read_csv(ATTRIBUTES).set_index(["attribute", "code"])["meaning"]


def readable():
    """The raw file with the codes replaced by what they mean, and the class by good and bad."""
    rows, meaning = raw(), meanings()
    for attribute in CATEGORICAL:
        rows[attribute] = rows[attribute].map(meaning[attribute])
    rows["classification"] = rows["classification"].map({1: "good", 2: "bad"})
    return rows
