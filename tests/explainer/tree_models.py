"""What tree models of three libraries are made from, for the tests of trees as heads."""

import warnings

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)

from explainer.attribution import InfluenceFunction
from explainer.attribution.trees import TreeHead, margins

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(400, 4))
SCORE = X[:, 0] + X[:, 1] ** 2 + 0.3 * GENERATOR.normal(size=400)
TWO, THREE = (SCORE > 1.5).astype(int), np.digitize(SCORE, [0.3, 1.5])
W = GENERATOR.integers(1, 4, 400) / 2.0


def boosted(kind="Classifier", **options):
    module = pytest.importorskip("lightgbm", reason="lightgbm is an optional package: pip install lightgbm")
    return getattr(module, f"LGBM{kind}")(n_estimators=5, verbose=-1, n_jobs=1, **options)


def silent(model, rows, y, method=InfluenceFunction, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return method.from_trees(model, rows, y, damping=0.1, **options)


def same_margin(model, rows, expected):
    head = TreeHead(model, rows)
    found = head.features(rows) @ head.weight.T + head.bias
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(margins(model, rows), found, rtol=1e-5, atol=1e-5)
    return head


CLASSIFIERS = {
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=5, max_depth=3),
    "lightgbm": lambda **options: boosted(**options),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
    "histogram boosting": lambda **options: HistGradientBoostingClassifier(max_iter=5, random_state=0, **options),
    "extra trees": lambda **options: ExtraTreesClassifier(9, max_depth=4, random_state=0, **options),
    "random forest": lambda **options: RandomForestClassifier(9, max_depth=4, random_state=0, **options),
}
