"""What tree models are trained on: weights, categories, names of losses and columns, regressions, sampled rows."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.utils.class_weight import compute_sample_weight
from tree_models import CLASSIFIERS, SCORE, THREE, TWO, W, X, boosted, same_margin, silent

from explainer.attribution import GroupInfluence, InfluenceFunction
from explainer.attribution.trees import TreeHead

WEIGHTED = [name for name in CLASSIFIERS if name not in ("xgboost", "gradient boosting")]


@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_weights_of_samples_are_in_the_loss_or_warned_of(name, y):
    silent(CLASSIFIERS[name]().fit(X, y), X, y)
    heavy = np.where(y == 0, 1.0, 5.0) * W
    model = CLASSIFIERS[name]().fit(X, y, sample_weight=heavy)
    with pytest.warns(
        UserWarning, match=r"was not trained on these points with equal weights .* \(give sample_weight="
    ):
        InfluenceFunction.from_trees(model, X, y, damping=0.1)
    explainer = silent(model, X, y, sample_weight=heavy)
    head = TreeHead(model, X)
    same = InfluenceFunction.from_arrays(head.features(X), y, head.weight, head.bias, damping=0.1, sample_weight=heavy)
    np.testing.assert_allclose(explainer.self_influence(), same.self_influence())


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 1: 0.5, 2: 1.5}], ids=["balanced", "given"])
@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_classes_are_those_of_the_model(name, y, class_weight):
    if isinstance(class_weight, dict):
        class_weight = {label: weight for label, weight in class_weight.items() if label in y}
    model = CLASSIFIERS[name](class_weight=class_weight).fit(X, y, sample_weight=W)
    explainer = silent(model, X, y, sample_weight=W)
    by_label = class_weight
    if class_weight == "balanced" and "_validate_y_class_weight" in dir(
        model
    ):  # forests count samples by their weights
        by_label = {c: W.sum() / (len(set(y)) * W[y == c].sum()) for c in set(y.tolist())}
    head, both = TreeHead(model, X), W * compute_sample_weight(by_label, y)
    assert head.options(400, y, y, W)["sample_weight"] == pytest.approx(both)
    same = InfluenceFunction.from_arrays(head.features(X), y, head.weight, head.bias, damping=0.1, sample_weight=both)
    np.testing.assert_allclose(explainer.self_influence(), same.self_influence())
    other = silent(model, X, y, sample_weight=W, class_weight=class_weight)
    np.testing.assert_allclose(other.self_influence(), same.self_influence())


def test_weights_of_the_rarer_class():
    positive = xgboost.XGBClassifier(n_estimators=5, scale_pos_weight=3.0)
    assert weights_of(positive.fit(X, TWO), TWO) == pytest.approx(np.where(TWO, 3.0, 1.0))
    booster = xgboost.Booster(model_file=positive.get_booster().save_raw("ubj"))
    assert weights_of(booster, TWO) == pytest.approx(np.where(TWO, 3.0, 1.0))
    assert weights_of(positive.fit(X, TWO, sample_weight=W), TWO, W) == pytest.approx(np.where(TWO, 3.0, 1.0) * W)
    assert weights_of(boosted(scale_pos_weight=3.0).fit(X, TWO), TWO) == pytest.approx(np.where(TWO, 3.0, 1.0))
    for y in (TWO, 1 - TWO):
        rare = y == int(y.mean() < 0.5)
        expected = np.where(rare, (~rare).sum() / rare.sum(), 1.0)
        assert weights_of(boosted(is_unbalance=True).fit(X, y), y) == pytest.approx(expected)
    both = boosted(scale_pos_weight=2.0, class_weight={0: 5.0}).fit(X, TWO)
    assert weights_of(both, TWO) == pytest.approx(np.where(TWO, 2.0, 5.0))
    names = np.array(["a", "b"])[TWO]
    forest = RandomForestClassifier(9, max_depth=3, class_weight={"b": 4.0}, random_state=0).fit(X, names)
    assert weights_of(forest, names) == pytest.approx(np.where(TWO, 4.0, 1.0))
    each = RandomForestClassifier(9, max_depth=3, class_weight="balanced_subsample", random_state=0).fit(X, TWO)
    assert weights_of(each, TWO) == pytest.approx(compute_sample_weight("balanced", TWO))


def weights_of(model, y, sample_weight=None):
    """The weights in the loss of an explainer, which is made without a warning."""
    explainer, head = silent(model, X, y, sample_weight=sample_weight), TreeHead(model, X)
    residuals = explainer.residuals(slice(0, 400)).numpy()
    plain = InfluenceFunction.from_arrays(head.features(X), head.labels(y), head.weight, head.bias, damping=0.1)
    return (residuals / plain.residuals(slice(0, 400)).numpy())[:, 0]


@pytest.mark.parametrize("model", [
    xgboost.XGBClassifier(n_estimators=5, subsample=0.5, random_state=0),
    xgboost.XGBRFClassifier(n_estimators=5, random_state=0),
    GradientBoostingClassifier(n_estimators=5, subsample=0.5, random_state=0),
    GradientBoostingClassifier(n_estimators=5, n_iter_no_change=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, early_stopping=True, random_state=0),
    RandomForestClassifier(9, max_samples=0.3, random_state=0),
    RandomForestClassifier(9, bootstrap=False, random_state=0),
], ids=lambda model: type(model).__name__)  # fmt: skip
def test_rows_drawn_at_random_are_not_taken_for_weights(model):
    for seed in range(3):
        silent(model.set_params(random_state=seed).fit(X, THREE), X, THREE)


def test_other_points_and_margins_to_start_from_are_warned_of():
    model = xgboost.XGBClassifier(n_estimators=3)
    with pytest.warns(UserWarning, match="or other rows"):
        InfluenceFunction.from_trees(model.fit(X[:200], TWO[:200]), X, TWO, damping=0.1)
    with pytest.warns(UserWarning, match="margins to start from"):
        InfluenceFunction.from_trees(model.fit(X, TWO, base_margin=SCORE), X, TWO, damping=0.1)
    sampled = boosted(subsample=0.5, subsample_freq=1).fit(X, THREE)
    silent(sampled, X, THREE)
    with pytest.warns(UserWarning, match="equal weights"):
        model = boosted(subsample=0.7, subsample_freq=1).fit(X, TWO, sample_weight=1.0 + 9.0 * TWO)
        InfluenceFunction.from_trees(model, X, TWO, damping=0.1)


REGRESSORS = {
    "xgboost": lambda: xgboost.XGBRegressor(n_estimators=5, max_depth=3),
    "xgboost forest": lambda: xgboost.XGBRFRegressor(n_estimators=5, max_depth=3, subsample=1.0),
    "lightgbm": lambda: boosted("Regressor"),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=5, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingRegressor(max_iter=5, random_state=0),
    "random forest": lambda: RandomForestRegressor(9, max_depth=4, random_state=0),
    "extra trees": lambda: ExtraTreesRegressor(9, max_depth=4, random_state=0),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressions_of_squared_loss(name):
    model = REGRESSORS[name]().fit(X, SCORE, sample_weight=W)
    same_margin(model, X, model.predict(X))
    explainer = silent(model, X, SCORE, GroupInfluence, sample_weight=W)
    np.testing.assert_allclose(explainer.logits(X[:9])[:, 0], model.predict(X[:9]), rtol=1e-5, atol=1e-5)
    F = np.concatenate([TreeHead(model, X).features(X), np.ones((400, 1))], 1)
    head = np.append(TreeHead(model, X).weight[0], TreeHead(model, X).bias)
    gradients = F * (W * (F @ head - SCORE))[:, None]  # of a quadratic: the minimum without a point, by hand
    H = F.T @ (F * W[:, None]) / 400 + 0.1 * np.eye(len(head))
    step = np.linalg.solve(H, gradients[3]) / 400
    found = explainer.effect([3], X[:5], order=1)[:, 0]
    np.testing.assert_allclose(found, F[:5] @ step, rtol=1e-5, atol=1e-9)
    if name not in ("random forest", "xgboost forest"):
        with pytest.warns(UserWarning, match="equal weights"):
            InfluenceFunction.from_trees(model, X, SCORE, damping=0.1)


def test_labels_of_a_booster():
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, TWO), 3)
    expected = silent(booster, X, TWO).self_influence()
    for y in (TWO.astype(float), pd.Series(TWO), torch.tensor(TWO).float(), TWO[:, None], TWO.tolist(), TWO > 0):
        np.testing.assert_array_equal(silent(booster, X, y).self_influence(), expected)
    for y, said in (
        (TWO + 1, "the label of row .* is 2: give whole numbers from 0 to 1"),
        (TWO - 0.5, "the label of row 0 is .*0.5: give whole numbers"),
        (np.array(["a", "b"])[TWO], "y holds no numbers .*: give those it was fitted on"),
        (TWO[:9], "got 400 rows of X and 9 labels: give as many of each"),
        (np.ma.masked_equal(TWO, 1), "y is a masked array"),
    ):
        with pytest.raises(ValueError, match=said):
            InfluenceFunction.from_trees(booster, X, y, damping=0.1)


def test_boosters_of_a_squared_loss():
    booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(X, SCORE), 4)
    explainer = silent(booster, X, SCORE)
    np.testing.assert_allclose(explainer.logits(X)[:, 0], booster.predict(xgboost.DMatrix(X)), rtol=1e-5, atol=1e-5)
    assert explainer.head.kind == "regression" and explainer.classes is None


@pytest.mark.parametrize("options", [
    {"application": "binary"}, {"app": "binary", "metric": "auc"}, {"loss": "softmax", "num_class": 3},
    {"objective_type": "multiclass", "num_classes": 3}, {"objective": "mse"}, {"loss": "l2_root"}, {"app": "rmse"},
    {},
], ids=str)  # fmt: skip
def test_aliases_of_what_lightgbm_is_trained_on(options):
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is an optional package: pip install lightgbm")
    y = THREE if any("class" in key for key in options) else TWO if "binary" in options.values() else SCORE
    booster = lightgbm.train({**options, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, y), 4)
    for model in (booster, lightgbm.Booster(model_str=booster.model_to_string())):
        explainer = silent(model, X, y)
        np.testing.assert_allclose(explainer.logits(X).ravel(), model.predict(X, raw_score=True).ravel(), atol=1e-5)
        assert explainer.head.kind == ("regression" if y is SCORE else "binary" if y is TWO else "multiclass")


@pytest.mark.parametrize("options, loss", [
    ({"application": "multiclass_ova", "num_class": 3}, "multiclassova num_class:3 sigmoid:1"),
    ({"loss": "xentropy"}, "cross_entropy"), ({"objective": "mae"}, "regression_l1"), ({"app": "quantile"}, "quantile"),
    ({"objective": "regression", "reg_sqrt": True}, "regression sqrt"),
    ({"objective": lambda p, data: (p - data.get_label(), np.ones_like(p))}, "of its own"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_other_losses_of_lightgbm_are_refused_by_their_name(options, loss):
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is an optional package: pip install lightgbm")
    y = THREE if "num_class" in options else TWO
    booster = lightgbm.train({**options, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, y), 2)
    with pytest.raises(ValueError, match=f"Booster is trained on the loss {loss}"):
        TreeHead(booster, X)


def test_other_losses_outputs_and_models_are_refused_by_their_name():
    ranked = {"group": np.full(4, 100)}
    groups = np.repeat(np.arange(4), 100)
    both = np.stack([SCORE, SCORE], 1)
    own = {"objective": lambda y, p: (p - y, np.ones_like(p))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gblinear = xgboost.XGBClassifier(n_estimators=2, booster="gblinear").fit(X, TWO)
    for model, said in (
        (xgboost.XGBRanker(n_estimators=2).fit(X, TWO, qid=groups), "XGBRanker is trained on the loss rank:ndcg"),
        (boosted("Ranker").fit(X, TWO, **ranked), "LGBMRanker is trained on the loss lambdarank"),
        (xgboost.XGBClassifier(n_estimators=2, **own).fit(X, TWO), "XGBClassifier is trained on a loss of its own"),
        (xgboost.XGBRegressor(n_estimators=2, objective="count:poisson").fit(X, TWO), "on the loss count:poisson"),
        (xgboost.XGBRegressor(n_estimators=2).fit(X, both), "XGBRegressor has 2 outputs: give a model of one"),
        (
            xgboost.XGBRegressor(n_estimators=2, multi_strategy="multi_output_tree").fit(X, both),
            "XGBRegressor has 2 outputs: give a model of one",
        ),
        (gblinear, "gblinear is no plain additive model: train gbtree"),
        (GradientBoostingRegressor(n_estimators=2, loss="huber").fit(X, SCORE), "on the loss huber"),
        (GradientBoostingClassifier(n_estimators=2, loss="exponential").fit(X, TWO), "on the loss exponential"),
        (HistGradientBoostingRegressor(max_iter=2, loss="poisson").fit(X, TWO), "on the loss poisson"),
        (RandomForestRegressor(2, criterion="absolute_error", max_depth=2).fit(X, TWO), "on the loss absolute_error"),
        (RandomForestRegressor(2).fit(X, both), "RandomForestRegressor has 2 outputs: give a model of one"),
        (RandomForestRegressor(2), "RandomForestRegressor is not fitted: fit it first"),
        (HistGradientBoostingRegressor(), "HistGradientBoostingRegressor is not fitted: fit it first"),
        (xgboost.XGBRegressor(), "XGBRegressor is not fitted .*: fit it first"),
        (boosted("Regressor"), "LGBMRegressor is not fitted .*: fit it first"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            TreeHead(model, X)
        assert "\n" not in str(error.value)
