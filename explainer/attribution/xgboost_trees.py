"""The trees of XGBoost: the leaves that rows reach, the margin, the loss, and the weights the trees were grown with."""

import json

import numpy as np

from config import UserError
from explainer.attribution.loss_weights import mismatch

LOGISTIC = ("binary:logistic", "binary:logitraw", "multi:softprob", "multi:softmax")
SQUARED = ("reg:squarederror", "reg:linear")


def leaf_values(booster, X, saved=None):
    """The value of the leaf that each row reaches in each tree, (n,T), from one pass over the trees.

    saved: what `saved_trees` has read of the booster, if it has.
    """
    import xgboost

    return _values(booster, xgboost.DMatrix(X), _leaf_tables(saved or saved_trees(booster)), (0, 0))


def saved_trees(booster):
    """The trees as XGBoost saves them. Raises UserError for boosters that are no plain additive trees."""
    found = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    if "model" not in found or "trees" not in found["model"]:
        raise UserError(f"XGBoost's booster {found.get('name')} is no plain additive model: train gbtree")
    return found["model"]


def _leaf_tables(saved):
    # a leaf keeps its value where an inner node keeps its threshold
    return [np.array(tree["split_conditions"], np.float32) for tree in saved["trees"]]


def leaf_numbers(booster, data, rounds):
    """The leaf that each row of a DMatrix reaches in each tree, (n,T)."""
    if data.num_col() != booster.num_features():
        raise UserError(f"the rows have {data.num_col()} columns: give the {booster.num_features()} of the training")
    leaves = booster.predict(data, pred_leaf=True, iteration_range=rounds)
    return leaves.astype(np.int64).reshape(data.num_row(), -1)


def _values(booster, data, tables, rounds):
    leaves = leaf_numbers(booster, data, rounds)
    return np.stack([table[leaves[:, t]] for t, table in zip(range(leaves.shape[1]), tables)], axis=1)


class XGBoostTrees:
    """A Booster, or one of the scikit-learn classes: of these after early stopping only the trees they predict with.

    rounds: the range of them as `Booster.predict` takes it, (0, 0) for all. saved: `saved_trees`, of all.
    """

    def __init__(self, model):
        """Raises UserError for models of other losses, and boosters that are no plain additive trees."""
        if callable(getattr(model, "objective", None)):
            raise UserError(f"{type(model).__name__} is trained on a loss of its own: give one of a loss of XGBoost's")
        self.name, wrapped = type(model).__name__, hasattr(model, "get_booster")
        self.booster = model.get_booster() if wrapped else model
        best = self.booster.attr("best_iteration") if wrapped else None
        self.rounds = (0, 0) if best is None else (0, int(best) + 1)
        missing = getattr(model, "missing", None)
        self.missing = np.nan if missing is None else missing
        self.types = getattr(model, "feature_types", None)
        self.config = json.loads(self.booster.save_config())["learner"]
        self.loss = self.config["objective"]["name"]
        self.regression = self.loss in SQUARED
        if self.loss not in (*LOGISTIC, *SQUARED):
            raise UserError(f"{self.name} is trained on the loss {self.loss}: give one of the logistic or squared loss")
        self.saved = saved_trees(self.booster)
        shapes = [tree["tree_param"].get("size_leaf_vector", "1") for tree in self.saved["trees"][:1]]
        outputs = max([int(self.config["learner_model_param"].get("num_target", 1)), *map(int, shapes)])
        if outputs > 1:
            raise UserError(f"{self.name} has {outputs} outputs: give a model of one")
        if not self.saved["trees"]:
            raise UserError(f"{self.name} has no trees: train it for a round at least")
        self.tables = _leaf_tables(self.saved)
        self.groups = np.array(self.saved["tree_info"])

    def matrix(self, X):
        """The rows as XGBoost reads them, categories and what is missing included."""
        import xgboost

        return xgboost.DMatrix(X, missing=self.missing, feature_types=self.types, enable_categorical=True)

    def leaves(self, X):
        """The leaf values (n,T), float64, and the class (T,) that each adds to."""
        values = _values(self.booster, self.matrix(X), self.tables, self.rounds).astype(np.float64)
        return values, self.groups[: values.shape[1]]

    def margin(self, X):
        """The model's own margin (n,C)."""
        found = self.booster.predict(self.matrix(X), output_margin=True, iteration_range=self.rounds)
        return found.reshape(len(found), -1)

    def outputs(self, X):
        """The model's own probabilities; None where it predicts others than those."""
        if self.loss not in ("binary:logistic", "multi:softprob"):
            return None
        return self.booster.predict(self.matrix(X), iteration_range=self.rounds)

    def weights(self, labels):
        """The weights that the model itself gave its points (n,), by scale_pos_weight, or None."""
        positive = float(self.config["objective"].get("reg_loss_param", {}).get("scale_pos_weight", 1.0))
        if positive == 1.0 or self.loss.startswith("multi"):
            return None
        return np.where(np.asarray(labels, dtype=np.float64).reshape(-1) == 1.0, positive, 1.0)

    def mismatch(self, X, labels, weights, bias, given):
        """By how much the sums of weights in the first trees differ from those of these points, a share; None unknown.

        bias (C,): the margin before the first tree. given: whether weights of samples are among the weights (n,).
        """
        settings = self.config["gradient_booster"].get("tree_train_param", {})
        if settings.get("sampling_method", "uniform") != "uniform":
            return None
        data, C = self.matrix(X), len(bias)
        leaves = leaf_numbers(self.booster, data, (0, 1))
        if self.regression:
            curved = np.ones(1)
        elif C == 1:
            curved = 1 / (2 + np.exp(bias) + np.exp(-bias))
        else:
            P = np.exp(bias - bias.max()) / np.exp(bias - bias.max()).sum()
            curved = 2 * P * (1 - P)  # XGBoost doubles the curvature of softmax
        found = []
        for t in range(leaves.shape[1]):
            sums = np.array(self.saved["trees"][t]["sum_hessian"], np.float64) / curved[self.groups[t]]
            where, numbers = np.unique(leaves[:, t], return_inverse=True)
            found.append(mismatch(sums[where], numbers, weights, float(settings.get("subsample", 1.0))))
        return max(found)
