"""scikit-learn's ensembles of trees: gradient boosting by its stages, forests by the mean of their trees."""

import inspect

import numpy as np

from config import UserError
from explainer.attribution.loss_weights import DEVIATIONS, TOLERANCE, mismatch
from explainer.attribution.pipelines import known_name

BOOSTED = ("GradientBoosting", "HistGradientBoosting")
FORESTS = ("RandomForest", "ExtraTrees")
NAMES = [f"{name}{kind}" for name in (*BOOSTED, *FORESTS) for kind in ("Classifier", "Regressor")]


def sklearn_trees(model):
    """`Stages` or `Forest` of a fitted model. Raises UserError for others."""
    name = known_name(model, NAMES)
    if name not in NAMES:
        raise UserError(
            f"{name} is not supported: give a model of XGBoost or LightGBM, or a GradientBoosting, "
            "HistGradientBoosting, RandomForest or ExtraTrees model of scikit-learn"
        )
    if not hasattr(model, "n_features_in_") or not (hasattr(model, "estimators_") or hasattr(model, "_predictors")):
        raise UserError(f"{name} is not fitted: fit it first")
    if getattr(model, "n_outputs_", 1) != 1:
        raise UserError(f"{name} has {model.n_outputs_} outputs: give a model of one")
    return Forest(model, name) if name.startswith(FORESTS) else Stages(model, name)


class Stages:
    """GradientBoosting and HistGradientBoosting: what each stage adds to each class."""

    def __init__(self, model, name):
        self.model, self.name, self.regression = model, name, name.endswith("Regressor")
        wanted = "squared_error" if self.regression else "log_loss"
        if model.loss != wanted:
            raise UserError(f"{name} is trained on the loss {model.loss}: give one of the logistic or squared loss")
        self.class_weight = getattr(model, "class_weight", None)

    def leaves(self, X):
        """(n,TC) from the differences of the staged margins, the prior in the first; and the class (TC,) of each."""
        staged = self.model.staged_predict if self.regression else self.model.staged_decision_function
        stages = [stage.reshape(X.shape[0], -1) for stage in staged(X)]
        steps = np.diff(np.stack([np.zeros_like(stages[0]), *stages]), axis=0)  # (T,n,C)
        T, n, C = steps.shape
        return steps.transpose(1, 0, 2).reshape(n, T * C), np.tile(np.arange(C), T)

    def margin(self, X):
        """The model's own margin (n,C)."""
        found = self.model.predict(X) if self.regression else self.model.decision_function(X)
        return found.reshape(len(found), -1)

    def outputs(self, X):
        """The model's own probabilities, or predictions of a regression."""
        return self.model.predict(X) if self.regression else self.model.predict_proba(X)

    def weights(self, labels):
        """None: the model has no weights but those of its classes."""

    def mismatch(self, X, labels, weights, bias, given):
        """By how much sums of weights in the model differ from those of these points, a share; None if unknown."""
        model = self.model
        if self.name.startswith("Hist"):
            return self._start(np.asarray(labels).reshape(-1), weights, given)
        if model.n_iter_no_change is not None:  # it has held out rows
            return None
        return _in_leaves(model.estimators_[0], X, weights, model.subsample)

    def _start(self, labels, weights, given):
        """Of histogram boosting, which keeps no weights: what it starts from, a mean or shares of the classes."""
        if getattr(self.model, "_fitted_with_sw", given) != given:
            return 1.0
        if self.model.do_early_stopping_:
            return None
        start = np.asarray(self.model._baseline_prediction, dtype=np.float64).reshape(-1)
        if self.regression:
            spread = max(float(np.std(labels.astype(np.float64))), 1e-300)
            off = abs(start[0] - np.average(labels.astype(np.float64), weights=weights)) / spread
            return float(off) if off > TOLERANCE else 0.0
        shares = np.bincount(labels, weights) / weights.sum()
        P = np.exp(start - start.max()) / np.exp(start - start.max()).sum()
        P = np.array([1 - 1 / (1 + np.exp(-start[0])), 1 / (1 + np.exp(-start[0]))]) if len(start) == 1 else P
        off = float(np.abs(P - shares).max())
        return off if off > TOLERANCE else 0.0


class Forest:
    """Random forests and extra trees: the mean of what their trees say.

    Of a classifier the margin is taken as z_c = C p_c - 1: see `explainer.attribution.trees`.
    """

    def __init__(self, model, name):
        self.model, self.name, self.regression = model, name, name.endswith("Regressor")
        if self.regression and model.criterion not in ("squared_error", "friedman_mse"):
            raise UserError(f"{name} is trained on the loss {model.criterion}: give one of squared_error")
        self.class_weight = getattr(model, "class_weight", None)
        if self.class_weight == "balanced_subsample":
            self.class_weight = "balanced"  # in the mean over the rows drawn for each tree
        taken = inspect.signature(getattr(model, "_validate_y_class_weight", lambda y: None)).parameters
        self.counts_weights = "sample_weight" in taken  # whether "balanced" counts the samples by their weights

    def leaves(self, X):
        """Each tree's shares of the classes (n,TC), or its prediction (n,T); and the class of each."""
        rows = _float32(X)
        if self.regression:
            found = np.stack([tree.predict(rows) for tree in self.model.estimators_], 1)
            return found, np.zeros(found.shape[1], dtype=int)
        shares = np.stack([tree.predict_proba(rows) for tree in self.model.estimators_], 1)  # (n,T,C)
        return shares.reshape(len(shares), -1), np.tile(np.arange(shares.shape[2]), shares.shape[1])

    def scale(self, C):
        """Of the head: the mean over the trees, times C of a classifier."""
        return (1 if self.regression else C) / len(self.model.estimators_)

    def margin(self, X):
        """The mean (n,1) of a regression, C p - 1 (n,C) of a classifier."""
        if self.regression:
            return self.model.predict(X).reshape(-1, 1)
        return len(self.model.classes_) * self.model.predict_proba(X) - 1

    def outputs(self, X):
        """None: what it says is the margin."""

    def weights(self, labels):
        """None: the model has no weights but those of its classes."""

    def mismatch(self, X, labels, weights, bias, given):
        """By how much the trees' sums of weights differ from those of these points, a share; None if unknown."""
        if not self.model.bootstrap:
            return _in_leaves(self.model.estimators_[:1], X, weights)
        roots = np.stack(
            [tree.tree_.value[0, 0] for tree in self.model.estimators_]
        )  # shares of the classes, or a mean
        labels = np.asarray(labels).reshape(-1)
        Y = labels.astype(np.float64)[:, None] if self.regression else np.eye(roots.shape[1])[labels]
        found = (roots if self.regression else roots / roots.sum(1, keepdims=True)).mean(0)
        expected = np.average(Y, axis=0, weights=weights)
        spread = np.sqrt(np.average((Y - expected) ** 2, axis=0, weights=weights)).max() + 1e-300
        sizes = [tree.tree_.n_node_samples[0] for tree in self.model.estimators_]  # distinct ones, fewer than drawn
        chance = DEVIATIONS * np.sqrt(np.mean(weights**2) / np.mean(weights) ** 2 / sum(sizes))
        off = np.abs(found - expected).max() / spread
        leaves = np.concatenate([tree.tree_.weighted_n_node_samples for tree in self.model.estimators_])
        if (weights == 1).all() and np.abs(leaves - np.round(leaves)).max() > TOLERANCE:
            return max(float(off), TOLERANCE)
        return float(off) if off > TOLERANCE + chance else 0.0


def _in_leaves(trees, X, weights, share=1.0):
    """By how much the sums of weights in the leaves of some trees differ from those of these points, a share."""
    rows, found = _float32(X), []
    for tree in trees:
        where, numbers = np.unique(tree.apply(rows), return_inverse=True)
        found.append(mismatch(tree.tree_.weighted_n_node_samples[where], numbers, weights, share))
    return max(found)


def _float32(X):
    """Rows as scikit-learn's trees read them."""
    if hasattr(X, "toarray"):
        return X.astype(np.float32)
    return np.asarray(X, dtype=np.float32)
