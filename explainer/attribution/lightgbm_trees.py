"""The trees of LightGBM: the leaves that rows reach, the margin, the loss, and the weights they were grown with."""

import re

import numpy as np

from config import UserError
from explainer.attribution.loss_weights import mismatch
from explainer.attribution.pipelines import check_names

LOGISTIC = ("binary", "multiclass")


class LightGBMTrees:
    """A Booster, or one of the scikit-learn classes: with as many of its trees as it predicts with.

    What it was trained on is read off the model as LightGBM writes it, where aliases are resolved.
    """

    def __init__(self, model):
        """Raises UserError for models of other losses."""
        self.name = type(model).__name__
        self.booster = model.booster_ if hasattr(type(model), "booster_") else model
        self.class_weight = getattr(model, "class_weight", None)
        text = self.booster.model_to_string()
        self.settings = dict(re.findall(r"^\[(\w+): (.*)\]$", text, re.MULTILINE))
        found = re.search(r"^objective=(.*)$", text, re.MULTILINE)
        self.loss = found.group(1).strip() if found else "of its own"
        self.regression = self.loss == "regression"
        if self.loss.split()[0] not in LOGISTIC and not self.regression:
            raise UserError(f"{self.name} is trained on the loss {self.loss}: give one of the logistic or squared loss")
        self.C = self.booster.num_model_per_iteration()
        self.first = [_tree(text, t) for t in range(self.C)]
        names = self.booster.feature_name()
        self.names = None if all(re.fullmatch(r"Column_\d+", name) for name in names) else names

    def _check(self, X):
        if self.names is not None and hasattr(X, "columns"):  # LightGBM would take the columns as they come
            check_names(self.names, X.rename(columns=lambda name: str(name).replace(" ", "_")))

    def leaves(self, X):
        """The leaf values (n,T), float64, and the class (T,) that each adds to."""
        self._check(X)
        leaves = np.asarray(self.booster.predict(X, pred_leaf=True)).reshape(X.shape[0], -1)
        columns = []
        for t, column in enumerate(leaves.T):
            reached, where = np.unique(column, return_inverse=True)
            columns.append(np.array([self.booster.get_leaf_output(t, int(leaf)) for leaf in reached])[where])
        return np.stack(columns, 1), np.arange(leaves.shape[1]) % self.C

    def margin(self, X):
        """The model's own margin (n,C)."""
        self._check(X)
        found = np.asarray(self.booster.predict(X, raw_score=True))
        return found.reshape(len(found), -1)

    def outputs(self, X):
        """The model's own probabilities, or predictions of a regression."""
        return np.asarray(self.booster.predict(X))

    def weights(self, labels):
        """The weights of labels (n,) by is_unbalance or scale_pos_weight, or None."""
        if not self.loss.startswith("binary"):
            return None
        positive = np.asarray(labels).reshape(-1) > 0
        ones = positive.sum()
        weight = float(self.settings.get("scale_pos_weight", 1.0))
        if self.settings.get("is_unbalance") == "1" and 0 < ones < len(positive):
            rate = ones / (len(positive) - ones)
            return np.where(positive, max(1.0, 1 / rate), max(1.0, rate))  # the rarer label is given more
        return None if weight == 1.0 else np.where(positive, weight, 1.0)

    def mismatch(self, X, labels, weights, bias, given):
        """As of `XGBoostTrees`."""
        s = self.settings
        if s.get("data_sample_strategy", "bagging") != "bagging" or "1" != s.get("pos_bagging_fraction", "1"):
            return None
        if s.get("neg_bagging_fraction", "1") != "1":
            return None
        share = float(s.get("bagging_fraction", 1.0)) if s.get("bagging_freq", "0") != "0" else 1.0
        leaves = np.asarray(self.booster.predict(X, pred_leaf=True, num_iteration=1)).reshape(X.shape[0], -1)
        curved = self._curved(labels, weights)
        found = [
            mismatch(sums / curved[c], leaves[:, c], weights, share)
            for c, sums in enumerate(self.first)
            if sums is not None
        ]
        return max(found) if found else None

    def _curved(self, labels, weights):
        """The curvature (C,) of each class's loss before the first tree, where LightGBM starts at the shares."""
        if self.regression:
            return np.ones(1)
        average = self.settings.get("boost_from_average", "1") != "0"
        own = self.weights(labels)
        weights = weights if own is None else weights / own  # LightGBM starts without those of its own settings
        P = np.bincount(np.asarray(labels).reshape(-1), weights, minlength=max(2, self.C)) / weights.sum()
        if self.C == 1:
            return np.array([P[1] * P[0] if average else 0.25])
        P = P if average else np.full(self.C, 1 / self.C)
        return np.maximum(P * (1 - P), 1e-300) * self.C / (self.C - 1)


def _tree(text, t):
    """The sums of curvatures in the leaves of tree t, or None where it has not several."""
    part = text[text.find(f"\nTree={t}\n") :].split("\n\n")[0]
    found = re.search(r"^leaf_weight=(.+)$", part, re.MULTILINE)
    return None if found is None else np.array(found.group(1).split(), dtype=np.float64)
