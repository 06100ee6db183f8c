"""Heads of scikit-learn: their decay, their labels, and what is refused or warned of."""

import warnings

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier

from explainer.attribution import RPSLJE, InfluenceFunction


def test_heads_of_scikit_learn():
    x = np.random.default_rng(1).normal(size=(50, 6))
    classes = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    y = np.array(["a", "b", "c"])[classes]
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(x, y)
    explainer = InfluenceFunction.from_sklearn(model, x, y)
    np.testing.assert_allclose(explainer.logits(x), model.decision_function(x), rtol=1e-6, atol=1e-8)
    assert explainer.decay.tolist() == pytest.approx([1 / 50] * 6 + [0])
    found, refits = explainer.leave_one_out().logits, []
    for i in range(50):  # LogisticRegression sums the losses: without a point its C stays
        kept = np.arange(50) != i
        refits.append(
            LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(x[kept], y[kept]).decision_function(x)[i]
        )
    whole = model.decision_function(x)
    assert np.corrcoef((found - whole).reshape(-1), (np.array(refits) - whole).reshape(-1))[0, 1] > 0.99
    bare = LogisticRegression(fit_intercept=False).fit(x, y)
    assert InfluenceFunction.from_sklearn(bare, x, y).parameters.shape == (6, 3)
    with pytest.raises(ValueError, match="y holds labels that are not of"):
        InfluenceFunction.from_sklearn(model, x, np.full(50, "z"))
    with pytest.raises(ValueError, match="object: give a fitted LogisticRegression"):
        InfluenceFunction.from_sklearn(object(), x, y)
    with pytest.raises(ValueError, match="y holds labels that are not of"):
        InfluenceFunction.from_sklearn(model, x, [None] * 50)
    best = explainer.top_k((x[:6], y[:6]), 1, target="label")
    np.testing.assert_array_equal(best.classes, classes[:6])


FITS = {
    "liblinear": (LogisticRegression(C=0.05, solver="liblinear", tol=1e-10, max_iter=10000), 1 / 3.5, True),
    "no penalty": (LogisticRegression(C=np.inf, tol=1e-10, max_iter=10000), 0.0, False),
    "cross-validated": (
        LogisticRegressionCV(
            Cs=[0.1], l1_ratios=(0.0,), scoring="accuracy", use_legacy_attributes=False, tol=1e-10, max_iter=10000
        ),
        1 / 7,
        False,
    ),
    "SGD": (SGDClassifier(loss="log_loss", alpha=0.1, max_iter=5000, tol=None, random_state=0), 0.1, False),
}


@pytest.mark.parametrize("name", FITS)
def test_the_decay_is_that_of_the_penalty(name):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(70, 4))
    y = (x[:, 0] + 1 + generator.normal(size=70) > 0).astype(int)
    estimator, decay, intercept = FITS[name]
    estimator.fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer = RPSLJE.from_sklearn(estimator, x, y, lr=1e-4)
    assert explainer.decay.tolist() == pytest.approx([decay] * 4 + [decay if intercept else 0])
    tolerance = 0.05 if name == "SGD" else 1e-6
    np.testing.assert_allclose(
        explainer.reproduced_logits(x)[:, 0], estimator.decision_function(x), rtol=tolerance, atol=tolerance
    )


def test_heads_that_are_at_no_minimum_of_the_loss_are_warned_of_or_refused():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(70, 4))
    y = (x[:, 0] + 1.5 > 0).astype(int) + (x[:, 1] > 0)
    weights = np.where(y == 1, 1.0, 4.0)
    for estimator in (
        LogisticRegression().fit(x, y, sample_weight=weights),
        LogisticRegression(l1_ratio=1, solver="saga", C=0.1).fit(x, y),
    ):
        with pytest.warns(UserWarning, match="is not at the minimum of its mean loss"):
            InfluenceFunction.from_sklearn(estimator, x, y)
    for estimator, said in (
        (SGDClassifier(loss="log_loss", random_state=0), "probabilities differ .* one against the rest"),
        (SGDClassifier(loss="modified_huber", random_state=0), "fitted with the loss modified_huber"),
        (LinearDiscriminantAnalysis(), "LinearDiscriminantAnalysis: give a fitted LogisticRegression"),
    ):
        with pytest.raises(ValueError, match=said):
            InfluenceFunction.from_sklearn(estimator.fit(x, y), x, y)
