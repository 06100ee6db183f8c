"""Fitted linear models of scikit-learn as heads: their labels, penalty and weights, and whether these fit together."""

import warnings

import numpy as np
import torch

from config import UserError
from explainer.attribution.checks import first_line
from explainer.attribution.loss_weights import as_many, class_weights, product, sample_weights, weighted_counts
from explainer.attribution.pipelines import Steps, known_name, targets

OUTPUTS = 1e-3  # how far the head's probabilities may be from the estimator's own; of predictions, relative to them
STATIONARY = 0.05  # of the size that the gradient would have if all points pulled one way
BLOCK = 2**22  # entries of the rows that are worked on at once

LOGISTIC = ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier")
RIDGES = ("Ridge", "RidgeCV", "RidgeClassifier", "RidgeClassifierCV")
SQUARED = (*RIDGES, "LinearRegression", "SGDRegressor")
SPARSE_FITS = (
    "Lasso LassoCV LassoLars LassoLarsCV LassoLarsIC Lars LarsCV ElasticNet ElasticNetCV MultiTaskLasso "
    "MultiTaskElasticNet MultiTaskLassoCV MultiTaskElasticNetCV OrthogonalMatchingPursuit"
).split()


def numbered(classes, y):
    """The numbers 0, 1, … of labels y among the classes of a scikit-learn model. Raises UserError for others."""
    if isinstance(y, np.ma.MaskedArray):
        raise UserError("y is a masked array: leave out the points whose labels are masked")
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
    """A fitted linear model with a logistic, softmax or squared loss, as the inputs of an explainer.

    weight (C,d), bias (C,) or None: the head. classes: the labels it was fitted on; None for a regression.
    regression: whether the loss is squared.
    """

    def __init__(self, estimator):
        """estimator: one of LOGISTIC or SQUARED, alone or as the last step of pipelines and searches.

        Raises UserError for estimators of other losses, and those with an l1 penalty alone.
        """
        self.steps = Steps(estimator)
        self.estimator = e = self.steps.model
        self.name = known_name(e, (*LOGISTIC, *SQUARED, *SPARSE_FITS))
        self.regression = self.name in SQUARED
        self._check_kind()
        self.classes = getattr(e, "classes_", None)
        self.weight = np.atleast_2d(np.asarray(e.coef_, dtype=np.float64))
        bias = np.reshape(np.asarray(e.intercept_, dtype=np.float64), -1)
        self.bias = np.broadcast_to(bias, len(self.weight)).copy() if e.fit_intercept else None

    def _check_kind(self):
        e, name = self.estimator, self.name
        if name in SPARSE_FITS:
            raise UserError(f"{name} is fitted with an l1 penalty, whose minimum has no second order: give a Ridge")
        if name not in LOGISTIC and name not in SQUARED:
            raise UserError(
                f"{name}: give a fitted LogisticRegression, SGDClassifier(loss='log_loss'), Ridge, RidgeClassifier, "
                "LinearRegression or SGDRegressor; of others take from_arrays with the features, the labels and the "
                "head, if its loss is logistic, softmax or squared"
            )
        if not hasattr(e, "coef_"):
            raise UserError(f"{name} is not fitted: fit it first")
        wanted = "squared_error" if name == "SGDRegressor" else "log_loss"
        if name.startswith("SGD") and e.loss != wanted:
            raise UserError(f"{name} is fitted with the loss {e.loss}: give one of {wanted}")
        if getattr(e, "positive", False):
            raise UserError(f"{name} is fitted with positive=True, a bound on its minimum: fit it without")

    def features(self, X):
        """Features (n,d), float64, of rows X: an array, or a CSR matrix where they are sparse."""
        X = self.steps.rows(X)
        try:
            X = X.astype(np.float64) if hasattr(X, "toarray") else np.asarray(X, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"the rows are no numbers ({first_line(error)}): give those it was fitted on") from error
        if X.shape[1] != self.weight.shape[1]:
            d = self.weight.shape[1]
            raise UserError(f"the rows have {X.shape[1]} columns: give the {d} that {self.name} was fitted on")
        return X

    def labels(self, y):
        """Labels as the head takes them: class numbers, or targets (n,) or (n,C) of a regression.

        A RidgeClassifier's targets are -1 and 1, for each class if there are several.
        """
        if self.classes is None:
            return targets(y)
        numbers = numbered(self.classes, y)
        if numbers.ndim > 1 and numbers.shape[1:] != (1,):
            raise UserError(f"{self.name} is fitted on several labels of each point: give one of a single label")
        numbers = numbers.reshape(-1)
        if not self.regression:
            return numbers
        return 2.0 * (numbers if len(self.weight) == 1 else np.eye(len(self.classes))[numbers]) - 1

    def options(self, X, y, sample_weight=None, class_weight=None):
        """The options of an explainer: penalty, head and weights. X, y: the training data, as given to `fit`.

        class_weight: in place of the estimator's own. Raises UserError for weights that are none.
        """
        n, e = X.shape[0], self.estimator
        as_many(n, y)
        found = self.penalty(n)
        given = sample_weights(sample_weight, n)
        asked = class_weight is not None
        if asked and self.classes is None:
            raise UserError(f"class_weight of {self.name}, a regression: give sample_weight")
        class_weight = class_weight if asked else getattr(e, "class_weight", None)
        counted = given if self.name.startswith("Logistic") and weighted_counts() else None
        weights = product(given, None if class_weight is None else class_weights(class_weight, y, counted, asked))
        if self.regression:
            found["head"] = "regression"
        if weights is not None:
            found["sample_weight"] = weights
        return found

    def penalty(self, n):
        """The options decay and decay_intercept, of a loss that is the mean over n points."""
        e = self.estimator
        if self.name in RIDGES:
            alpha = e.alpha_ if hasattr(e, "alpha_") else e.alpha
            return {"decay": self._one(alpha, "alpha") / n, "decay_intercept": False}
        if self.name == "LinearRegression" or getattr(e, "penalty", "l2") is None:
            return {"decay": 0.0, "decay_intercept": False}
        if self.name.startswith("SGD"):
            return {"decay": e.alpha * (1 - self.share_of_l1), "decay_intercept": False}
        decay = (1 - self.share_of_l1) / (self._one(e.C_ if hasattr(e, "C_") else e.C, "C") * n)
        scaled = getattr(e, "solver", None) == "liblinear"
        return {"decay": decay, "decay_intercept": decay / e.intercept_scaling**2 if scaled else False}

    def _one(self, value, name):
        values = np.unique(np.asarray(value, dtype=np.float64))
        if len(values) != 1:
            raise UserError(f"{self.name} has a {name} for each class or target: give one fitted with a single {name}")
        return float(values[0])

    @property
    def share_of_l1(self):
        """The share of the l1 penalty in the estimator's."""
        e = self.estimator
        penalty = getattr(e, "penalty", "l2")
        if penalty is None or self.name in RIDGES or self.name == "LinearRegression":
            return 0.0
        if penalty in ("l1", "l2"):
            return float(penalty == "l1")
        ratio = getattr(e, "l1_ratio_", None)
        ratio = getattr(e, "l1_ratio", None) if ratio is None else ratio
        ratios = np.asarray([0.0 if part is None else part for part in np.reshape(ratio, -1)], dtype=np.float64)
        return float(ratios.max()) if len(ratios) else 0.0

    def check(self, X):
        """Raise UserError where the estimator's probabilities or predictions are not those of the head."""
        few = X[:200]
        few = few.toarray() if hasattr(few, "toarray") else few
        Z = self._logits(few)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of columns without names
            try:
                if self.regression:
                    own = (self.estimator.predict if self.classes is None else self.estimator.decision_function)(few)
                    known, found = np.reshape(own, Z.shape), Z
                else:
                    known, found = self.estimator.predict_proba(few), _probabilities(Z)
            except ValueError as error:
                what = first_line(error)
                raise UserError(f"{self.name} cannot read the rows ({what}): give those it was fitted on") from error
        worst = np.abs(found - known).max() / max(1.0, np.abs(known).max())
        if worst <= OUTPUTS:
            return
        if self.regression:
            raise UserError(f"{self.name}'s predictions differ from those of its coefficients by {worst:.2g}")
        raise UserError(
            f"{self.name}'s probabilities differ from those of its logits by {worst:.2g}: several classes are "
            "fitted one against the rest; fit it with one softmax"
        )

    def _logits(self, F):
        return np.asarray(F @ self.weight.T) + (0 if self.bias is None else self.bias)

    def warn_unless_stationary(self, X, labels, weights, decay):
        """Warn where the head is not at the minimum of the loss that is expanded: that was another one.

        X (n,d), labels and weights (n,) as an explainer has them. decay: of the d parameters, then the bias's if it
        is explained.
        """
        said = self._said()
        share = self._share(X, labels, weights, decay)
        if said or share > STATIONARY:
            why = said or "weights of classes or samples (give sample_weight=) or other rows than those of the fit"
            warnings.warn(
                f"{self.name} is not at the minimum of its mean loss with the decay {max(decay):.3g}: the gradient is "
                f"{share:.0%} of what it could be; {why}",
                stacklevel=3,
            )

    def _said(self):
        """What the estimator says of a fit to another loss than the one that is expanded, or None."""
        e = self.estimator
        if self.share_of_l1:
            return "it is fitted with an l1 penalty, which is not part of the loss that is expanded"
        if getattr(e, "early_stopping", False):
            return f"early_stopping has held out {e.validation_fraction:.0%} of the points from its fit"
        if self.name == "LogisticRegressionCV" and not e.refit:
            return "it is the mean of the heads of the folds: fit it with refit=True"
        return None

    def _share(self, X, labels, weights, decay):
        d, n = self.weight.shape[1], X.shape[0]
        gradient, size = np.zeros((2, d + 1, len(self.weight)))
        step = max(1, BLOCK // (d + 1))
        Y = self._targets(labels, n)
        for start in range(0, n, step):
            F = X[start : start + step]
            Z = self._logits(F)
            R = (Z if self.regression else _probabilities(Z)[:, -len(self.weight) :]) - Y[start : start + step]
            R = R if weights is None else R * np.asarray(weights)[start : start + step, None]
            gradient[:d] += F.T @ R
            gradient[d] += R.sum(0)
            R = np.abs(R) + (1e-6 * np.abs(Z) if self.regression else 0)  # a perfect fit leaves rounding alone
            size[:d] += abs(F).T @ R
            size[d] += R.sum(0)
        theta = np.vstack([self.weight.T, np.zeros(len(self.weight)) if self.bias is None else self.bias])[: len(decay)]
        pull = gradient[: len(decay)] / n + np.asarray(decay)[:, None] * theta
        return float((np.abs(pull) / np.maximum(size[: len(decay)] / n, 1e-300)).max())

    def _targets(self, labels, n):
        if self.regression or len(self.weight) == 1:
            return np.asarray(labels, dtype=np.float64).reshape(n, -1)
        return np.eye(len(self.weight))[labels]


def _probabilities(Z):
    Z = np.concatenate([np.zeros_like(Z), Z], 1) if Z.shape[1] == 1 else Z
    return torch.as_tensor(Z).softmax(1).numpy()
