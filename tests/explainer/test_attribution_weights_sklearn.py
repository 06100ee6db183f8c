"""Linear models of scikit-learn: penalties, weights of samples and classes, squared losses, against refits."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import (
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.svm import LinearSVC

from explainer.attribution import RPSLJE, GroupInfluence, InfluenceFunction

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(80, 4)) + [0.5, 0, 0, 1]
SCORE = X @ [1.0, -1.0, 0.5, 0.2] + GENERATOR.normal(size=80) - 0.8
TWO = np.array(["no", "yes"])[(SCORE > 0).astype(int)]
ROUGH = np.where(np.arange(80) % 6 == 1, TWO[::-1], TWO)  # far from separable, as a fit without a penalty needs
THREE = np.array([7, 3, 5])[np.digitize(SCORE, [-1.0, 0.8])]  # not in the order of the score
NUMBERS = SCORE + 3
BOTH = np.stack([NUMBERS, np.sin(SCORE)], 1)
W = GENERATOR.integers(0, 4, 80) / 2.0
EXACT = {"tol": 1e-10, "max_iter": 20000}


def silent(method, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return method.from_sklearn(*args, **options)


def total_weights(y, class_weight, sample_weight):
    """What scikit-learn multiplies the losses by, by its own functions."""
    from sklearn.utils.class_weight import compute_sample_weight

    weights = np.ones(len(y)) if sample_weight is None else sample_weight
    if isinstance(class_weight, str) and sample_weight is not None:
        sums = {label: sample_weight[y == label].sum() for label in np.unique(y)}
        class_weight = {label: sample_weight.sum() / (len(sums) * part) for label, part in sums.items()}
    return weights * compute_sample_weight(class_weight, y)


def slope(estimator, y, weights, effects, outputs):
    """The slope of estimated changes of the outputs against those of refits without a point, and their correlation."""
    found, expected = [], []
    for i in range(0, 80, 5):
        kept = np.arange(80) != i
        refit = clone(estimator).fit(X[kept], y[kept], sample_weight=weights[kept])
        expected.append(outputs(refit) - outputs(estimator))
        found.append(effects(i))
    found, expected = np.reshape(found, -1), np.reshape(expected, -1)
    return (found @ expected) / (expected @ expected), np.corrcoef(found, expected)[0, 1]


LOGISTIC = {
    "liblinear 0.1": (LogisticRegression(C=0.5, solver="liblinear", intercept_scaling=0.1, **EXACT), TWO),
    "liblinear 1": (LogisticRegression(C=0.5, solver="liblinear", class_weight="balanced", **EXACT), TWO),
    "liblinear 10": (LogisticRegression(C=0.05, solver="liblinear", intercept_scaling=10, **EXACT), TWO),
    "liblinear without": (LogisticRegression(C=0.1, solver="liblinear", fit_intercept=False, **EXACT), TWO),
    "liblinear dual": (
        LogisticRegression(C=0.3, solver="liblinear", dual=True, intercept_scaling=3, random_state=0, **EXACT),
        TWO,
    ),
    "lbfgs": (LogisticRegression(C=0.2, class_weight={"yes": 3.0}, **EXACT), TWO),
    "three classes": (LogisticRegression(C=0.5, class_weight={7: 0.5, 3: 2.0, 5: 4.0}, **EXACT), THREE),
    "balanced": (LogisticRegression(C=2, class_weight="balanced", **EXACT), THREE),
    "newton-cholesky": (LogisticRegression(C=0.3, solver="newton-cholesky", **EXACT), THREE),
    "saga": (LogisticRegression(C=0.3, solver="saga", l1_ratio=0, random_state=0, **EXACT), TWO),
    "no penalty": (LogisticRegression(C=np.inf, class_weight="balanced", **EXACT), ROUGH),
    "cross-validated": (
        LogisticRegressionCV(
            Cs=[0.3],
            l1_ratios=(0.0,),
            scoring="accuracy",
            use_legacy_attributes=False,
            class_weight="balanced",
            **EXACT,
        ),
        TWO,
    ),
}


@pytest.mark.parametrize("sample_weight", [None, W], ids=["equal", "weighted"])
@pytest.mark.parametrize("name", LOGISTIC)
def test_newton_effects_are_those_of_refits(name, sample_weight):
    estimator, y = LOGISTIC[name]
    estimator = clone(estimator).fit(X, y, sample_weight=sample_weight)
    explainer = silent(GroupInfluence, estimator, X, y, sample_weight=sample_weight)
    weights = total_weights(y, estimator.class_weight, sample_weight)
    refit = clone(estimator).set_params(class_weight=None)
    if name == "cross-validated":
        refit = LogisticRegression(C=0.3, **EXACT)
    refit.fit(X, y, sample_weight=weights)

    def outputs(model):
        return model.decision_function(X).reshape(80, -1)

    np.testing.assert_allclose(outputs(estimator), outputs(refit), atol=1e-4)
    found = slope(refit, y, weights, lambda i: explainer.effect([i], X, order="newton"), outputs)
    assert found == pytest.approx((1, 1), abs=0.07 if name == "no penalty" else 0.04)
    alone = explainer.leave_one_out().logits.reshape(80, -1)
    np.testing.assert_allclose(
        alone[10], explainer.logits(X)[10] + explainer.effect([10], X[10:11], order="newton")[0], rtol=1e-5, atol=1e-8
    )


def test_penalties_of_the_old_parameter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = LogisticRegression(penalty=None, C=0.1, **EXACT).fit(X, TWO)
        ridge = LogisticRegression(penalty="l2", C=0.1, l1_ratio=0.5, **EXACT).fit(X, TWO)
        saga = LogisticRegression(penalty="elasticnet", C=0.1, l1_ratio=0.0, solver="saga", **EXACT).fit(X, TWO)
    assert silent(InfluenceFunction, none, X, TWO).decay.tolist() == [0.0] * 5
    for estimator in (ridge, saga):
        decay = silent(InfluenceFunction, estimator, X, TWO).decay.tolist()
        assert decay == pytest.approx([1 / 8] * 4 + [0])


SQUARED = {
    "ridge": (Ridge(alpha=3.0), NUMBERS),
    "two targets": (Ridge(alpha=3.0), BOTH),
    "no intercept": (Ridge(alpha=3.0, fit_intercept=False), NUMBERS),
    "cross-validated": (RidgeCV(alphas=[0.5, 5.0]), NUMBERS),
    "least squares": (LinearRegression(), NUMBERS),
    "least squares of two": (LinearRegression(), BOTH),
    "classes": (RidgeClassifier(alpha=2.0, class_weight={"yes": 3.0}), TWO),
    "three classes": (RidgeClassifier(alpha=2.0, class_weight="balanced"), THREE),
    "classes, cross-validated": (RidgeClassifierCV(alphas=[4.0]), TWO),
}


@pytest.mark.parametrize("sample_weight", [None, W], ids=["equal", "weighted"])
@pytest.mark.parametrize("name", SQUARED)
def test_of_squared_losses_they_are_exactly_those(name, sample_weight):
    estimator, y = SQUARED[name]
    estimator = clone(estimator).fit(X, y, sample_weight=sample_weight)
    explainer = silent(GroupInfluence, estimator, X, y, sample_weight=sample_weight)
    weights, Y = np.ones(80) if sample_weight is None else sample_weight, y
    if hasattr(estimator, "classes_"):
        weights = weights * total_weights(y, estimator.class_weight, None)
        Y = 2.0 * (y[:, None] == estimator.classes_) - 1
        Y = Y[:, 1] if Y.shape[1] == 2 else Y
    alpha = getattr(estimator, "alpha_", getattr(estimator, "alpha", 0.0))
    refit = Ridge(alpha, fit_intercept=estimator.fit_intercept) if alpha else LinearRegression()
    refit.fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(explainer.logits(X), refit.predict(X).reshape(80, -1), atol=1e-8)
    kept = np.arange(80) >= 7
    smaller = clone(refit).fit(X[kept], Y[kept], sample_weight=weights[kept])
    change = (smaller.predict(X) - refit.predict(X)).reshape(80, -1)
    np.testing.assert_allclose(explainer.effect(np.arange(7), X, order="newton"), change, rtol=1e-5, atol=1e-8)
    alone = np.arange(80) != 3
    without = clone(refit).fit(X[alone], Y[alone], sample_weight=weights[alone]).predict(X[3:4]).reshape(-1)
    np.testing.assert_allclose(explainer.leave_one_out().logits.reshape(80, -1)[3], without, rtol=1e-7)


@pytest.mark.parametrize("average", [False, True])
def test_stochastic_gradients_have_the_same_minimum(average):
    settings = {"alpha": 0.05, "max_iter": 3000, "tol": None, "random_state": 0, "average": average}
    settings.update(learning_rate="invscaling", eta0=0.05, power_t=0.3)
    weights = np.random.default_rng(1).uniform(0.5, 2, 80)
    classifier = SGDClassifier(loss="log_loss", class_weight="balanced", **settings).fit(X, TWO, sample_weight=weights)
    found = silent(InfluenceFunction, classifier, X, TWO, sample_weight=weights)
    both = weights * total_weights(TWO, "balanced", None)  # which counts every sample once
    same = LogisticRegression(C=1 / (0.05 * 80), **EXACT).fit(X, TWO, sample_weight=both)
    exact = silent(InfluenceFunction, same, X, TWO, sample_weight=both)
    assert found.decay.tolist() == pytest.approx(exact.decay.tolist())
    assert np.corrcoef(found.self_influence(), exact.self_influence())[0, 1] > 0.99
    np.testing.assert_allclose(found.reproduced_logits(X), same.decision_function(X)[:, None], atol=0.06)
    regression = SGDRegressor(**settings).fit(X, NUMBERS, sample_weight=weights)
    found = silent(GroupInfluence, regression, X, NUMBERS, sample_weight=weights)
    same = Ridge(alpha=0.05 * 80).fit(X, NUMBERS, sample_weight=weights)
    np.testing.assert_allclose(found.reproduced_logits(X)[:, 0], same.predict(X), atol=1e-6)  # one Newton step
    assert SGDRegressor(penalty=None).fit(X, NUMBERS).penalty is None
    free = InfluenceFunction.from_sklearn(SGDRegressor(penalty=None, **settings).fit(X, NUMBERS), X, NUMBERS)
    assert free.decay.tolist() == [0.0] * 5


def test_class_weights_that_are_given_replace_those_of_the_estimator():
    estimator = LogisticRegression(class_weight={"yes": 3.0}, **EXACT).fit(X, TWO)
    own = silent(RPSLJE, estimator, X, TWO).self_influence()
    given = silent(
        RPSLJE, estimator, pd.DataFrame(X), pd.Series(TWO), class_weight={"no": 1, "yes": 3}
    ).self_influence()
    by_sample = RPSLJE.from_arrays(
        X,
        TWO == "yes",
        estimator.coef_,
        estimator.intercept_,
        decay=1 / 80,
        decay_intercept=False,
        sample_weight=np.where(TWO == "yes", 3.0, 1.0),
    )
    np.testing.assert_allclose(given, own)
    np.testing.assert_allclose(by_sample.self_influence(), own)
    with pytest.warns(UserWarning, match="not at the minimum of its mean loss .* sample_weight="):
        InfluenceFunction.from_sklearn(estimator, X, TWO, class_weight={"no": 30.0})


def test_fits_to_other_losses_are_warned_of_by_their_name():
    weights = np.where(TWO == "yes", 6.0, 1.0)
    numbers = np.where(NUMBERS > 3, 6.0, 1.0)
    for estimator, y, said in (
        (LogisticRegression().fit(X, TWO, sample_weight=weights), TWO, "weights of classes or samples"),
        (Ridge().fit(X, NUMBERS, sample_weight=numbers), NUMBERS, "weights of classes or samples"),
        (LogisticRegression(l1_ratio=1, solver="saga", max_iter=5000).fit(X, TWO), TWO, "an l1 penalty"),
        (LogisticRegression(C=1e6, l1_ratio=0.5, solver="saga", max_iter=9000).fit(X, TWO), TWO, "an l1 penalty"),
        (SGDRegressor(penalty="elasticnet", random_state=0).fit(X, NUMBERS), NUMBERS, "an l1 penalty"),
        (SGDClassifier("log_loss", early_stopping=True, random_state=0).fit(X, TWO), TWO, "held out 10%"),
    ):
        with pytest.warns(UserWarning, match=f"is not at the minimum of its mean loss .*{said}"):
            InfluenceFunction.from_sklearn(estimator, X, y)
    perfect = LinearRegression().fit(X, X @ [1.0, 2.0, 3.0, 4.0])  # no residuals to tell by
    silent(InfluenceFunction, perfect, X, X @ [1.0, 2.0, 3.0, 4.0])


def test_estimators_and_weights_that_are_refused():
    fitted = LogisticRegression().fit(X, TWO)
    for estimator, y, options, said in (
        (Lasso().fit(X, NUMBERS), NUMBERS, {}, "Lasso is fitted with an l1 penalty.*give a Ridge"),
        (ElasticNet().fit(X, NUMBERS), NUMBERS, {}, "ElasticNet is fitted with an l1 penalty"),
        (HuberRegressor().fit(X, NUMBERS), NUMBERS, {}, "HuberRegressor: give a fitted LogisticRegression"),
        (LinearSVC().fit(X, TWO), TWO, {}, "LinearSVC: give a fitted"),
        (Ridge(), NUMBERS, {}, "Ridge is not fitted: fit it first"),
        (LogisticRegression(), TWO, {}, "LogisticRegression is not fitted: fit it first"),
        (SGDRegressor("huber").fit(X, NUMBERS), NUMBERS, {}, "fitted with the loss huber: give one of squared_error"),
        (LinearRegression(positive=True).fit(X, NUMBERS), NUMBERS, {}, "positive=True, a bound on its minimum"),
        (Ridge(alpha=[1.0, 2.0]).fit(X, BOTH), BOTH, {}, "Ridge has a alpha for each class or target|an alpha for"),
        (RidgeClassifier().fit(X, BOTH > 2), BOTH > 2, {}, "y holds labels that are not of|several labels of each"),
        (fitted, TWO, {"sample_weight": W[:9]}, r"sample_weight has the shape \(9,\): give one for each of 80 points"),
        (fitted, TWO, {"sample_weight": -W}, "sample_weight of row .* is -.*: give finite numbers from 0 up"),
        (fitted, TWO, {"sample_weight": W * np.nan}, "sample_weight of row 0 is nan"),
        (fitted, TWO, {"sample_weight": "much"}, "sample_weight: got str"),
        (fitted, TWO, {"class_weight": "much"}, "class_weight is 'much': give balanced"),
        (fitted, TWO, {"class_weight": [1.0, 2.0, 3.0]}, "class_weight has 3 entries: give one for each of 2 classes"),
        (fitted, TWO, {"class_weight": {"yse": 2.0}}, "class_weight has the key 'yse': give labels that y holds"),
        (fitted, TWO, {"class_weight": {"yes": -2.0}}, r"class_weight is \[1.0, -2.0\]: give finite numbers from 0 up"),
        (Ridge().fit(X, NUMBERS), NUMBERS, {"class_weight": "balanced"}, "class_weight of Ridge, a regression: give"),
        (fitted, TWO[:70], {}, "got 80 rows of X and 70 labels: give as many of each"),
        (fitted, np.ma.masked_equal(TWO, "no"), {}, "y is a masked array"),
        (fitted, TWO, {"alpha": 1}, "InfluenceFunction has no option 'alpha': give some of"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            InfluenceFunction.from_sklearn(estimator, X, y, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the rows have 3 columns: give the 4 that LogisticRegression was fitted on"):
        InfluenceFunction.from_sklearn(fitted, X[:, :3], TWO)
    with pytest.raises(ValueError, match="the rows have 3 columns: give the 4 that LogisticRegression was fitted on"):
        InfluenceFunction.from_sklearn(fitted, X, TWO).top_k(X[:2, :3], 1)
