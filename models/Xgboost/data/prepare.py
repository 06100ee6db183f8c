"""Prepare German Credit: one-hot columns, an 80/20 split, SMOTE on the training part; writes prepared.npz.

Also writes german_credit.csv, the raw rows in words, with a header.

python models/Xgboost/data/prepare.py            make them again
python models/Xgboost/data/prepare.py --check    compare what is made now with these files, bit by bit
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from config import ArgumentParser, UserError, run_command, whole
from models.files import save_npz, save_text
from models.Xgboost.utils_german import CATEGORICAL, NUMERICAL, PREPARED, READABLE, GermanCredit, load, raw, readable

SPLIT_SEED = 1  # random_state of the published split
SMOTE_SEED = 5  # the published draw had none; scripts/xgboost_sensitivity.py shows what the choice does
NEIGHBOURS = 5  # SMOTE's and the published default


def prepare(smote_seed=SMOTE_SEED, dtype=np.int64):
    """The prepared data as `GermanCredit`.

    dtype: of the columns while SMOTE interpolates. The published preparation has integers, which cut interpolated
    values; float64 keeps them.
    """
    rows = raw()
    X = pd.concat([rows[NUMERICAL], pd.get_dummies(rows[CATEGORICAL])], axis=1).astype(dtype)
    y = (rows["classification"] == 1).astype(np.int64)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=SPLIT_SEED)
    X_all, y_all = SMOTE(k_neighbors=NEIGHBOURS, random_state=smote_seed).fit_resample(X_train, y_train)
    real = X_train.index.to_numpy()
    parents = _parents(X_train.to_numpy(), y_train.to_numpy(), X_all.to_numpy()[len(X_train) :], smote_seed)
    return GermanCredit(
        X_train=X_all.to_numpy(),
        y_train=y_all.to_numpy(),
        X_test=X_test.to_numpy(),
        y_test=y_test.to_numpy(),
        columns=X.columns.to_numpy().astype(str),
        train_rows=np.concatenate([np.stack([real, real], 1), real[parents]]),
        test_rows=X_test.index.to_numpy(),
    )


def in_words():
    """The raw file as a CSV file with a header, its codes replaced by what they mean."""
    return readable().to_csv(index=False, lineterminator="\n")


def _parents(X, y, synthetic, seed):
    """The two rows of X between which each synthetic row lies: (k,2), base and neighbour.

    SMOTE does not report them, so its draws are repeated here, and the rows that they give are compared with the rows
    that it gave. Raises UserError where they differ, as they would if a release drew in another order.
    """
    bad = np.flatnonzero(y == 0)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(X[bad]).kneighbors(X[bad], return_distance=False)
    random = np.random.RandomState(seed)
    draws = random.randint(0, len(bad) * NEIGHBOURS, size=len(synthetic))
    steps = random.uniform(size=len(synthetic))[:, None]
    base, other = bad[draws // NEIGHBOURS], bad[neighbours[draws // NEIGHBOURS, 1 + draws % NEIGHBOURS]]
    if not np.array_equal((X[base] + steps * (X[other] - X[base])).astype(X.dtype), synthetic):
        raise UserError("this release of imbalanced-learn draws in another order: install the one in constraints.txt")
    return np.stack([base, other], 1)


def main():
    options = ArgumentParser(description="Prepare German Credit for models/Xgboost.")
    options.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    options.add_argument("--smote_seed", type=whole, default=SMOTE_SEED, help="seed of SMOTE's draws")
    options = options.parse_args()
    made = vars(prepare(options.smote_seed))
    if not options.check:
        save_npz(PREPARED, compressed=True, **made)
        save_text(READABLE, in_words())
        print(f"written: {PREPARED.name}, {len(made['X_train'])} training and {len(made['X_test'])} test rows")
        print(f"written: {READABLE.name}, the raw rows in words")
        return
    if READABLE.read_bytes() != in_words().encode():
        raise UserError(f"{READABLE.name} is not what this command makes: it is restored by git")
    different = [name for name, array in vars(load()).items() if not np.array_equal(array, made[name])]
    if different:
        cause = f"SMOTE seed {options.smote_seed}, other versions than in constraints.txt, or a changed german.data"
        raise UserError(f"prepared.npz differs in {', '.join(different)}: made with {cause}; it is restored by git")
    print(f"prepared.npz and {READABLE.name} are what this command makes, bit by bit")


if __name__ == "__main__":
    run_command(main)
