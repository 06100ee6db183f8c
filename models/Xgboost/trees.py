"""The gradient-boosted trees of the paper, and their trees as the features of a logistic head.

The booster's margin is the sum of one leaf value per tree, so the trees are a last hidden layer of d = T + 1 features
(the last is constant) under a fixed linear head. Two choices, both of shape (n, T+1):

probability  f_it = sigmoid(leaf value of tree t), head weight 1 and -(T-1)/2 on the constant: the published one. It
             follows the model's prediction (sigmoid is nearly linear at 0) and does not equal it.
margin       f_it = leaf value of tree t, head weight 1 and the base margin on the constant: equal to the prediction.
"""

import os
import subprocess
import sys

import numpy as np
import xgboost as xgb
from scipy.special import expit, logit

from config import UserError, shown
from explainer.attribution.xgboost_trees import leaf_values
from models.checksums import sealed
from models.files import load_bytes, save_bytes
from models.outputs import SavedOutputs
from models.Xgboost import trial

TREES = 80
PARAMETERS = {  # paper, appendix; reference/README.md lists them
    "objective": "binary:logistic",
    "learning_rate": 0.005,
    "gamma": 0.01,
    "colsample_bytree": 0.5,
    "min_child_weight": 3,
    "max_depth": 8,
    "base_score": 0.5,  # explicit: current XGBoost would estimate it from the labels
    "tree_method": "hist",
    "nthread": 1,  # refits run side by side, and one thread adds in one order
}
FEATURES = ("probability", "margin")
TRIAL = 60  # seconds in which a model without a checksum has to be parsed


def fit(X, y, seed):
    """Train the booster on X (n,61) and y (n,) in {0,1}."""
    return xgb.train({**PARAMETERS, "seed": seed}, xgb.DMatrix(X, label=y), TREES)


def predict(booster, X):
    """The model's probability of class 1, (n,)."""
    return booster.predict(xgb.DMatrix(X))


def accuracy(probability, y):
    """The share of points whose predicted class is their label."""
    return float(np.mean((probability > 0.5) == (y == 1)))


def features(booster, X, kind):
    """The trees as features (n,T+1), float32, and the head's weight (1,T+1)."""
    values = leaf_values(booster, X)
    n, T = values.shape
    constant = -0.5 * (T - 1) if kind == "probability" else logit(PARAMETERS["base_score"])
    columns = expit(values) if kind == "probability" else values
    weight = np.append(np.ones(T), constant)[None].astype(np.float32)
    return np.hstack([columns, np.ones((n, 1))]).astype(np.float32), weight


def saved_outputs(booster, data, y_train, kind):
    """What the explainers need of a trained booster. y_train: the labels that it was trained on, flips included."""
    parts = {}
    for part, X, y in (("train", data.X_train, y_train), ("test", data.X_test, data.y_test)):
        p = predict(booster, X)
        parts[f"intermediate_{part}"], weight = features(booster, X, kind)
        parts |= {f"pred_{part}": p, f"labels_{part}": y, f"outputs_{part}": np.stack([1 - p, p], 1)}
        parts[f"{part}_accuracy"] = accuracy(p, y)
    return SavedOutputs(**parts, weight=weight)


def load_booster(path, remedy):
    """The booster that `save` has written. Raises UserError, ending in the remedy, where it is missing or damaged.

    A file without a checksum is parsed in a process of its own first, since a damaged one can end the process.
    """
    data, _, checked = load_bytes(path, remedy)
    why = None if checked else _fault(data)
    if why:
        raise UserError(f"cannot read {shown(path)} ({why}): {remedy}")
    try:
        return xgb.Booster(model_file=bytearray(data))
    except (xgb.core.XGBoostError, ValueError) as error:
        raise UserError(f"cannot read {shown(path)}: {remedy}") from error


def _fault(data):
    """What is wrong with a model that nobody vouches for, None for nothing (`models.Xgboost.trial`)."""
    settings = {"input": data, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "timeout": TRIAL}
    try:
        done = subprocess.run([sys.executable, trial.__file__, str(os.getpid())], **settings)
    except subprocess.TimeoutExpired:
        return f"it is not parsed in {TRIAL} s"
    if done.returncode == 0:
        return None
    said = done.stdout.decode(errors="replace").strip()
    return said or f"parsing it ends its process with status {done.returncode}"


def save(booster, path, training=None):
    """Write the booster in XGBoost's own binary JSON (.ubj), with a checksum behind it.

    training: the fingerprint of the training that it belongs to.
    """
    save_bytes(path, sealed(bytes(booster.save_raw("ubj")), training))
