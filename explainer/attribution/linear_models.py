"""Fitted linear classifiers of scikit-learn as heads: their labels, their penalty, and whether both fit together."""

import warnings

import numpy as np
import torch

from config import UserError
from explainer.attribution.checks import array

PROBABILITIES = 1e-3  # how far the head's may be from the estimator's own
STATIONARY = 0.05  # of the size that the gradient would have if all points pulled one way


def numbered(classes, y):
    """The numbers 0, 1, … of labels y among the classes of a scikit-learn model. Raises UserError for others."""
    classes, y = np.asarray(classes), np.asarray(y)
    try:
        labels = np.searchsorted(classes, y)
        known = np.array_equal(classes[np.minimum(labels, len(classes) - 1)], y)
    except TypeError:
        known = False
    if not known:
        raise UserError(f"y holds labels that are not of {list(classes)}: give those it was fitted on")
    return labels


class LinearModel:
    """A fitted logistic classifier. features (n,d), labels (n,) as numbers, weight (C,d), bias (C,) or None.

    penalty: the options decay and decay_intercept of its loss.
    """

    def __init__(self, estimator, X, y):
        """Raises UserError for estimators that have no logistic or softmax loss."""
        self.estimator, self.name = estimator, type(estimator).__name__
        if self.name not in ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier") or not hasattr(
            estimator, "coef_"
        ):
            raise UserError(
                f"{self.name}: give a fitted LogisticRegression or SGDClassifier(loss='log_loss'); of others take "
                "from_arrays with the features, the labels and the head, if its loss is logistic or softmax"
            )
        if getattr(estimator, "loss", "log_loss") != "log_loss":
            raise UserError(f"{self.name} is fitted with the loss {estimator.loss}: give one of log_loss")
        self.features = np.asarray(array(X, "X"), dtype=np.float64)
        self.labels = numbered(estimator.classes_, y)
        self.weight = estimator.coef_
        self.bias = np.reshape(estimator.intercept_, -1) if estimator.fit_intercept else None
        self.penalty = self._penalty()
        self._check_probabilities()

    def _penalty(self):
        """Of LogisticRegression C, in the sum of the losses; of SGDClassifier alpha; none for others than l2."""
        e, n = self.estimator, len(self.labels)
        if self.name == "SGDClassifier":
            return {"decay": e.alpha if e.penalty == "l2" else 0.0, "decay_intercept": False}
        C = np.unique(e.C_)[0] if hasattr(e, "C_") else e.C
        ratio = np.max(e.l1_ratio_) if hasattr(e, "l1_ratio_") else getattr(e, "l1_ratio", None)
        plain = getattr(e, "penalty", "l2") in ("l2", "deprecated") and not ratio
        decay = 1 / (C * n) if plain and np.isfinite(C) else 0.0
        return {"decay": decay, "decay_intercept": getattr(e, "solver", None) == "liblinear"}

    def _check_probabilities(self):
        few = self.features[:200]
        logits = few @ self.weight.T + (0 if self.bias is None else self.bias)
        logits = np.concatenate([np.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
        found = torch.as_tensor(logits).softmax(1).numpy()
        worst = np.abs(found - self.estimator.predict_proba(few)).max()
        if not worst <= PROBABILITIES:
            raise UserError(
                f"{self.name}'s probabilities differ from those of its logits by {worst:.2g}: several classes are "
                "fitted one against the rest; fit it with one softmax"
            )

    def warn_unless_stationary(self, explainer):
        """Warn where the head is not at the minimum of the loss that is expanded: that was another one."""
        head, size = explainer.head, 0.0
        gradient = explainer._at(head)[1] + explainer.decay[:, None] * head.weight
        for rows, F in explainer.rows.blocks(head.C):
            R = head.probabilities(head.logits(F)) - explainer._targets(rows).to(F.dtype)
            size = size + (F.abs().T @ R.abs()).double()
        share = float((gradient.abs() / (size / explainer.rows.n).clamp_min(1e-300)).max())
        if share > STATIONARY:
            warnings.warn(
                f"{self.name} is not at the minimum of its mean loss with the decay {explainer.decay.max():.3g}: the "
                f"gradient is {share:.0%} of what it could be; weights of classes or samples, an l1 penalty, or a fit "
                "that stopped early are not known here",
                stacklevel=3,
            )
