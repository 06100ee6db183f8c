"""Additive tree models as a linear head: exact features, so that the decomposition reproduces the model's margin.

A boosted model's margin is a constant plus one leaf value per tree, so the leaf values are a last hidden layer (n,d)
under a head of ones and zeros: tree t adds to the logit of the class that it was grown for. Supported are classifiers
of the logistic or softmax loss and regressions of the squared loss: of XGBoost (Booster and the scikit-learn classes),
LightGBM, and scikit-learn's GradientBoosting and HistGradientBoosting.

A random forest (RandomForestClassifier, ExtraTreesClassifier) averages probabilities: its margin is here taken as
z_c = C p_c - 1, of the class c of C, the first-order expansion of log(C p_c) where all classes are equally likely; for
two classes z_1 - z_0 = 4 (p_1 - 1/2). Its features are each tree's p_c. A forest's regression is the mean of its trees.

Every head is checked against the model's own margin on the rows that it is made with. Weights of classes that the model
itself has (class_weight, scale_pos_weight, is_unbalance) are part of the loss; weights of samples are given.
"""

import warnings

import numpy as np

from config import UserError
from explainer.attribution.checks import first_line
from explainer.attribution.lightgbm_trees import LightGBMTrees
from explainer.attribution.linear_models import numbered
from explainer.attribution.loss_weights import as_many, class_weights, product, sample_weights
from explainer.attribution.pipelines import Steps, of_library, of_torch, targets
from explainer.attribution.sklearn_trees import Forest, Stages, sklearn_trees
from explainer.attribution.xgboost_trees import XGBoostTrees

TOLERANCE = 1e-5  # of the margin, against the largest margin: float32 sums over many trees


class TreeHead:
    """A tree model's features and head. weight (C,d), bias (C,), as `Attributor.from_arrays` takes them.

    classes: the labels of a scikit-learn model; None of a Booster and of regressions. trees: what reads the model.
    """

    def __init__(self, model, X):
        """model: alone, or as the last step of a pipeline or the best of a search. X: rows that the head is checked
        on, such as the training data.

        Raises UserError for models that are not supported, and where the trees do not sum to the model's margin, as
        with DART's dropped trees.
        """
        self.steps = Steps(model)
        self.trees = read(self.steps.model)
        self.regression, self.name = self.trees.regression, type(self.steps.model).__name__
        self.classes = None if self.regression else getattr(self.steps.model, "classes_", None)
        X = self.steps.rows(X)
        F, groups = self._read(X)
        margin = np.asarray(self.trees.margin(X), np.float64)
        self._check_outputs(margin, X)
        C = margin.shape[1]
        scale = self.trees.scale(C) if isinstance(self.trees, Forest) else 1.0
        self.weight = scale * (groups[None, :] == np.arange(C)[:, None]).astype(np.float64)
        rest = margin - F @ self.weight.T
        self.bias = np.median(rest, 0)
        worst = np.abs(rest - self.bias).max()
        if not worst <= TOLERANCE * max(1.0, np.abs(margin).max()):
            raise UserError(
                f"the trees do not sum to the margin of {self.name}: they differ by up to {worst:.2g}; "
                "only plain additive trees have exact features"
            )

    def features(self, X):
        """The features (n,d) of rows X, float64. Raises UserError for rows that the trees cannot read."""
        return self._read(self.steps.rows(X))[0]

    def labels(self, y):
        """Labels y as class numbers, or as they are: of a Booster, and the targets of a regression."""
        if self.classes is not None:
            return numbered(self.classes, y)
        found = targets(y)
        whole = not self.regression and (found == np.round(found)).all()
        return found.astype(np.int64) if whole else found

    def options(self, n, y, labels, sample_weight=None, class_weight=None):
        """The options of an explainer: head and weights. y, sample_weight: as given to the model's `fit`; labels: y as
        numbers. class_weight: in place of the model's own. Raises UserError for weights that are none.
        """
        as_many(n, y)
        found = {"head": "regression"} if self.regression else {}
        own, given = getattr(self.trees, "class_weight", None), sample_weights(sample_weight, n)
        counted = given if getattr(self.trees, "counts_weights", False) else None
        if class_weight is not None and self.regression:
            raise UserError(f"class_weight of {self.name}, a regression: give sample_weight")
        if class_weight is not None:
            parts = [class_weights(class_weight, y, counted, asked=True)]
        else:
            encoded = isinstance(self.trees, Stages)  # histogram boosting takes the numbers of the classes
            parts = [class_weights(own, labels if encoded else y, counted), self.trees.weights(labels)]
        weights = product(given, *parts)
        return found if weights is None else {**found, "sample_weight": weights}

    def warn_unless_weighed(self, X, labels, weights, given):
        """Warn where the trees were grown with other weights (n,) than these, as far as the model tells.

        given: whether weights of samples are among them.
        """
        labels = np.asarray(of_torch(labels)).reshape(-1).astype(np.float64 if self.regression else np.int64)
        weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
        off = self.trees.mismatch(self.steps.rows(X), labels, weights, self.bias, given)
        if off:
            warnings.warn(
                f"{self.name} was not trained on these points with equal weights or those given: what it keeps of them "
                f"differs by {off:.0%}; it had weights of samples (give sample_weight=), margins to start from, a loss "
                "of its own, or other rows, which are not known here",
                stacklevel=3,
            )

    def _read(self, X):
        try:
            return self.trees.leaves(X)
        except UserError:
            raise
        except Exception as error:  # of three libraries
            what = first_line(error)
            raise UserError(f"the trees cannot read the rows ({what}): give rows like those of the training") from error

    def _check_outputs(self, margin, X):
        """Raise UserError where the model's probabilities are not the sigmoid or softmax of its margin."""
        known = self.trees.outputs(X)
        if known is None:
            return
        known = np.asarray(known, np.float64).reshape(len(margin), -1)
        Z = margin - margin.max(1, keepdims=True)
        found = np.exp(Z) / np.exp(Z).sum(1, keepdims=True) if margin.shape[1] > 1 else 1 / (1 + np.exp(-margin))
        found = margin if self.regression else found
        worst = np.abs(found - known[:, -found.shape[1] :]).max() / max(1.0, np.abs(known).max())
        if not worst <= 1e-4:
            what = "predictions" if self.regression else "probabilities"
            raise UserError(
                f"the {what} of {self.name} differ from those of its margin by {worst:.2g}: give a model of plain "
                "boosting (of LightGBM: sigmoid=1, and no rf)"
            )


def read(model):
    """What reads a model's trees. Raises UserError for models that are not supported or not fitted."""
    package = of_library(model)
    try:
        if package == "xgboost":
            return XGBoostTrees(model)
        return LightGBMTrees(model) if package == "lightgbm" else sklearn_trees(model)
    except UserError:
        raise
    except (AttributeError, ValueError) as error:
        raise UserError(f"{type(model).__name__} is not fitted ({first_line(error)}): fit it first") from error


def margins(model, X):
    """The model's own margin (n,C), C = 1 for two classes and a regression (a random forest's classifier: C = 2)."""
    steps = Steps(model)
    return read(steps.model).margin(steps.rows(X))
