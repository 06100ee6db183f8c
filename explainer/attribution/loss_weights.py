"""The weights that a fitted model gave its points: of samples times of classes, as scikit-learn has them."""

import inspect

import numpy as np
import torch

from config import UserError
from explainer.attribution.checks import array

TOLERANCE = 0.01  # of a sum of weights, against what it should be
DEVIATIONS = 6  # standard deviations of a sum over sampled rows that pass for chance


def as_many(n, y):
    """Raise UserError unless there are n labels y."""
    found = np.shape(y)[:1]
    if found != (n,):
        raise UserError(f"got {n} rows of X and {found[0] if found else 1} labels: give as many of each")


def sample_weights(given, n):
    """Weights (n,) as float64, or None. Raises UserError for others than n finite numbers from 0 up."""
    if given is None:
        return None
    given = array(given, "sample_weight")
    weights = np.asarray(given.double().cpu() if isinstance(given, torch.Tensor) else given, dtype=np.float64)
    if weights.size != n or weights.reshape(-1).shape[0] != n or weights.ndim > 2:
        raise UserError(f"sample_weight has the shape {weights.shape}: give one for each of {n} points")
    weights = weights.reshape(-1)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        row = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0])
        raise UserError(f"sample_weight of row {row} is {weights[row]:.4g}: give finite numbers from 0 up")
    return weights


def class_weights(given, y, counted=None, asked=False):
    """The weight of each point's class, (n,), or None. y (n,): labels; given: by label, or "balanced".

    counted: weights of samples by which "balanced" counts the classes, or None for one each. asked: whether they are
    the user's, rather than of a model that was fitted with them. Raises UserError for weights that are none, and for
    those of labels that the user's y does not hold.
    """
    if given is None:
        return None
    classes, numbers = np.unique(np.asarray(y).reshape(-1), return_inverse=True)
    if isinstance(given, str):
        if not given.startswith("balanced"):  # balanced_subsample: in the rows drawn for each tree of a forest
            raise UserError(f"class_weight is {given!r}: give balanced, or a weight for each label")
        sums = np.bincount(numbers, counted)
        if not (sums > 0).all():
            raise UserError('class_weight is "balanced" and a class has no weight at all: give other weights')
        return (sums.sum() / (len(classes) * sums))[numbers]
    if hasattr(given, "items"):
        unknown = [label for label in given if label not in classes.tolist()]
        if asked and unknown:
            raise UserError(f"class_weight has the key {unknown[0]!r}: give labels that y holds")
        given = [given.get(label, 1.0) for label in classes.tolist()]
    weights = np.asarray(array(given, "class_weight"), dtype=np.float64).reshape(-1)
    if len(weights) != len(classes):
        raise UserError(f"class_weight has {len(weights)} entries: give one for each of {len(classes)} classes")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise UserError(f"class_weight is {weights.tolist()}: give finite numbers from 0 up")
    return weights[numbers]


def weighted_counts():
    """Whether scikit-learn's "balanced" counts the samples of LogisticRegression by their weights, as of 1.6."""
    from sklearn.utils.class_weight import compute_class_weight

    return "sample_weight" in inspect.signature(compute_class_weight).parameters


def product(*weights):
    """The product of weights (n,), or None where all are."""
    present = [part for part in weights if part is not None]
    return np.prod(present, axis=0) if present else None


def mismatch(found, leaves, weights, share=1.0):
    """By how much sums of weights over leaves differ from those found in the model: a share of them, 0 if by chance.

    found: by leaf number. leaves (n,): the leaf of every point. weights (n,). share: of the rows drawn at random.
    """
    expected = share * np.bincount(leaves, weights, minlength=len(found))
    squares = np.bincount(leaves, weights**2, minlength=len(found))
    chance = DEVIATIONS * np.sqrt(share * (1 - share) * squares)
    off = np.abs(found[: len(expected)] - expected)
    scale = np.maximum(np.maximum(expected, found[: len(expected)]), 1e-300)
    return float(np.where(off > TOLERANCE * scale + chance, off / scale, 0.0).max())
