"""Trees as features: they sum to the model's margin, of every supported library."""

import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.sparse import csr_matrix
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.svm import SVC

from explainer.attribution import RPSLJE, InfluenceFunction
from explainer.attribution.trees import TreeHead, margins
from explainer.label_errors import left_out_margins


def lightgbm(**options):
    module = pytest.importorskip("lightgbm", reason="lightgbm is an optional package: pip install lightgbm")
    return module.LGBMClassifier(verbose=-1, **options)


MODELS = {
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=7, max_depth=3),
    "xgboost forest": lambda: xgboost.XGBRFClassifier(n_estimators=7, max_depth=3),
    "lightgbm": lambda: lightgbm(n_estimators=7),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=7, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=7, random_state=0),
    "random forest": lambda: RandomForestClassifier(n_estimators=7, max_depth=4, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(n_estimators=7, max_depth=4, random_state=0),
}


def table(classes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    z = X[:, 0] + X[:, 1] ** 2 + 0.3 * rng.normal(size=200)
    return X, np.searchsorted(np.quantile(z, np.arange(1, classes) / classes), z)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_the_trees_sum_to_the_margin(name, classes):
    X, y = table(classes)
    model = MODELS[name]().fit(X[:150], y[:150])
    head = TreeHead(model, X[:150])
    found = head.features(X[150:]) @ head.weight.T + head.bias  # of rows that it was not checked on
    np.testing.assert_allclose(found, margins(model, X[150:]), rtol=1e-5, atol=1e-6)
    explainer = RPSLJE.from_trees(model, X[:150], y[:150], damping=0.01)
    np.testing.assert_allclose(explainer.logits(X[150:]), margins(model, X[150:]), rtol=1e-5, atol=1e-6)
    if "forest" not in name and "extra" not in name:
        agreeing = (explainer.top_k(X[150:], 3).classes == model.predict(X[150:])).mean()
        assert agreeing == 1.0


def test_names_of_classes_and_a_booster_of_its_own():
    X, y = table(2)
    model = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, np.array(["no", "yes"])[y])
    named = InfluenceFunction.from_trees(model, X, np.array(["no", "yes"])[y], damping=0.01).self_influence()
    plain = InfluenceFunction.from_trees(
        GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, y), X, y, damping=0.01
    )
    np.testing.assert_allclose(named, plain.self_influence(), rtol=1e-6)
    booster = xgboost.train({"objective": "binary:logistic", "base_score": 0.3}, xgboost.DMatrix(X, label=y), 5)
    head = TreeHead(booster, X)
    assert head.bias == pytest.approx([np.log(0.3 / 0.7)], abs=1e-6) and head.features(X).shape == (200, 5)


def test_early_stopping_explains_the_trees_that_predict():
    X, y = table(2)
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, learning_rate=1.0)
    model.fit(X[:100], y[:100], eval_set=[(X[100:], y[100:])], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    head = TreeHead(model, X)
    found = head.features(X) @ head.weight.T + head.bias
    np.testing.assert_allclose(found[:, 0], model.predict(X, output_margin=True), rtol=1e-5, atol=1e-6)
    booster = model.get_booster()  # predicts with all of its trees
    head = TreeHead(booster, X)
    assert head.features(X).shape[1] == booster.num_boosted_rounds() > model.best_iteration + 1
    found = head.features(X) @ head.weight.T + head.bias
    expected = booster.predict(xgboost.DMatrix(X), output_margin=True)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
def test_a_number_that_the_model_takes_as_missing_is_missing(kind):
    X, y = table(2)
    X[np.random.default_rng(1).random(X.shape) < 0.2] = -999.0
    X = kind(X)
    model = xgboost.XGBClassifier(n_estimators=7, missing=-999.0).fit(X, y)
    head, expected = TreeHead(model, X), model.predict(X, output_margin=True)
    found = head.features(X) @ head.weight.T + head.bias
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(margins(model, X)[:, 0], expected, rtol=1e-5, atol=1e-6)
    with_nan = np.where(np.asarray(X) == -999.0, np.nan, X)
    same = xgboost.XGBClassifier(n_estimators=7).fit(with_nan, y)
    np.testing.assert_allclose(left_out_margins(model, X, y), left_out_margins(same, with_nan, y))


def test_models_without_exact_features_are_refused():
    X, y = table(2)
    with pytest.raises(ValueError, match="trained on the loss reg:absoluteerror: give one of the logistic or squared"):
        TreeHead(xgboost.XGBRegressor(n_estimators=3, objective="reg:absoluteerror").fit(X, y), X)
    with pytest.raises(ValueError, match="the rows have 3 columns: give the 5 of the training"):
        TreeHead(MODELS["xgboost"]().fit(X, y), X[:, :3])
    with pytest.raises(ValueError, match=r"the rows have the shape \(5,\): give"):
        TreeHead(MODELS["xgboost"]().fit(X, y), X[0])
    with pytest.raises(ValueError, match="the trees cannot read the rows .*: give rows like those of the training"):
        TreeHead(MODELS["histogram boosting"]().fit(X, y), csr_matrix(X))
    with pytest.raises(ValueError, match="the trees cannot read the rows .*: give rows like those of the training"):
        TreeHead(MODELS["xgboost"]().fit(pd.DataFrame(X, columns=list("abcde")), y), X)
    with pytest.raises(ValueError, match="XGBClassifier is not fitted"):
        TreeHead(xgboost.XGBClassifier(), X)
    with pytest.raises(ValueError, match="RandomForestClassifier is not fitted"):
        TreeHead(RandomForestClassifier(), X)
    with pytest.raises(ValueError, match="has 2 outputs: give a model of one"):
        TreeHead(RandomForestClassifier(3, random_state=0).fit(X, np.stack([y, y], 1)), X)
    with pytest.raises(ValueError, match="AdaBoostClassifier is not supported"):
        TreeHead(AdaBoostClassifier(n_estimators=3, random_state=0).fit(X, y), X)
    with pytest.raises(ValueError, match="SVC is not supported: give a model of XGBoost"):
        TreeHead(SVC().fit(X, y), X)
    dart = xgboost.train(
        {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.9}, xgboost.DMatrix(X, label=y), 9
    )
    with pytest.raises(ValueError, match="dart is no plain additive model|do not sum to the margin"):
        TreeHead(dart, X)


@pytest.mark.parametrize(
    "options", [{"sigmoid": 3.0}, {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}]
)
def test_margins_that_are_not_the_probabilities_are_refused(options):
    X, y = table(2)
    model = lightgbm(n_estimators=5, **options).fit(X, y)
    with pytest.raises(ValueError, match="differ from those of its margin by .*: give a model of plain boosting"):
        TreeHead(model, X)


def test_labels_of_test_points_are_those_of_the_model():
    X, y = table(3)
    names = np.array(["a", "b", "c"])[y]
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, names)
    explainer = InfluenceFunction.from_trees(model, X, names, damping=0.1)
    np.testing.assert_array_equal(explainer.top_k((X[:9], names[:9]), 1, target="label").classes, y[:9])
