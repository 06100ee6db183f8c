"""The measures of explanations, on heads whose answers are known."""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from explainer.attribution import RPSL2, RPSLJE, InfluenceFunction
from explainer.evaluation import Evaluation, area, found_at


@pytest.fixture(params=[2, 3], ids=["binary", "multiclass"])
def evaluation(request):
    X, y = make_classification(
        200, 8, n_informative=5, n_classes=request.param, n_clusters_per_class=1, class_sep=0.7, random_state=0
    )
    return Evaluation(X[:160], y[:160], X[160:], y[160:], decay=0.01)


def test_the_head_is_that_of_scikit_learn(evaluation):
    from sklearn.linear_model import LogisticRegression

    X = np.hstack([evaluation.F, np.ones((160, 1))])  # the bias is penalized as well
    C = 1 / (160 * 0.01)
    model = LogisticRegression(C=C, fit_intercept=False, tol=1e-12, max_iter=100000).fit(X, evaluation.labels)
    theta = evaluation.head.weight.numpy().T
    np.testing.assert_allclose(theta, model.coef_, atol=1e-5)


@pytest.mark.parametrize("method", [RPSLJE, InfluenceFunction])
def test_expansions_predict_removals_and_rps_l2_does_not(evaluation, method):
    settings = {"lr": 1e-4} if method is RPSLJE else {}
    explainer = evaluation.explainer(method, **settings)
    assert evaluation.leave_out_correlation(explainer, 30) > 0.99
    assert evaluation.leave_out_correlation(explainer, 30, k=8) > 0.97
    assert evaluation.datamodeling_score(explainer, 30) > 0.8
    other = evaluation.explainer(RPSL2, lmbd=0.003)
    assert evaluation.leave_out_correlation(other, 30) < 0.9


def test_removals_are_refits_on_the_rest(evaluation):
    falls = evaluation.without([[3, 5]], "logit")
    kept = np.setdiff1d(np.arange(160), [3, 5])
    other = Evaluation(
        evaluation.F[kept], evaluation.labels[kept], evaluation.F_test, evaluation.classes, 0.01 * 160 / 158
    )
    np.testing.assert_allclose(
        falls[0], evaluation.support(evaluation.head, "logit") - evaluation.support(other.head, "logit"), atol=1e-6
    )


def test_curves_of_found_points():
    flipped = np.array([3, 1])
    assert found_at(np.array([3, 1, 0, 2]), flipped, 0.5) == 1.0 and area(np.array([3, 1, 0, 2]), flipped) == 0.75
    assert found_at(np.array([0, 2, 1, 3]), flipped, 0.5) == 0.0 and area(np.array([0, 2, 1, 3]), flipped) == 0.25


def test_the_table_has_every_measure(evaluation):
    methods = {"RPS-LJE": (RPSLJE, {"lr": 1e-3}), "RPS-l2": (RPSL2, {})}
    stabilities = {"stability": {"RPS-LJE": [{"lr": 1e-3}, {"lr": 1e-2}]}}
    table = evaluation.table(methods, stabilities, number=10, halves=10)
    assert list(table.index) == list(methods) and table.shape[1] == 7
    assert table.loc["RPS-LJE", "mislabelled found at 20 %"] > 0.35 and table.loc["RPS-LJE", "stability"] > 0.9
    assert np.isnan(table.loc["RPS-l2", "stability"]) and 0 < table.loc["RPS-l2", "different sets"] <= 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda e: Evaluation(np.eye(4), [0, 1, 0, 1], np.eye(4), [0, 1, 0, 1], 0),
            "decay is 0: give a number above 0",
        ),
        (lambda e: Evaluation(np.eye(4), [0, 1, 0, 1], np.eye(3), [0, 1, 0]), r"the shapes \(4, 4\) and \(3, 3\)"),
        (lambda e: Evaluation(np.eye(2), [0, 1], np.eye(2), [0, 2]), "go beyond those of the labels: give 0 to 1"),
        (lambda e: Evaluation(np.eye(2) * np.nan, [0, 1], np.eye(2), [0, 1]), "the features of row 0 are not finite"),
        (lambda e: Evaluation(np.eye(2), [0, 0.5], np.eye(2), [0, 1]), "give one whole number for each point"),
        (lambda e: Evaluation(np.eye(2), [0, 0], np.eye(2), [0, 0]), "the labels go from 0 to 0: give 0, 1"),
        (lambda e: Evaluation(np.eye(2), [-1, 1], np.eye(2), [0, 0]), "the labels go from -1 to 1: give 0, 1"),
        (lambda e: e.explainer(RPSLJE, decay=1), "decay is that of the fitted head"),
        (lambda e: e.explainer(RPSLJE, class_weight="balanced"), "class_weight: the heads are fitted to the plain"),
        (lambda e: e.table({"RPS-LJE": RPSLJE}), "methods: give {name"),
        (
            lambda e: e.leave_out_correlation(
                RPSLJE.from_arrays(e.F[:9], e.labels[:9], np.ones((1, 8)), head="binary")
                if e.head.kind == "binary"
                else RPSLJE.from_arrays(e.F[:9], e.labels[:9], np.ones((3, 8)))
            ),
            "the explainer has 9 training points",
        ),
        (lambda e: e.stability(RPSLJE, [{"lr": 0.1}]), "got 1 settings: give two at least"),
        (lambda e: e.leave_out_correlation(e.explainer(RPSLJE), number=0), "number is 0: give a whole number from 2"),
        (lambda e: e.leave_out_correlation(e.explainer(RPSLJE), k=e.n), "k is .*: give a whole number from 1 to"),
        (lambda e: e.datamodeling_score(e.explainer(RPSLJE), number=1), "number is 1: give a whole number from 2"),
        (lambda e: e.mislabelled_found(RPSLJE, portion=0), "portion is 0: give a number"),
    ],
)
def test_bad_measurements(evaluation, call, said):
    with pytest.raises(ValueError, match=said):
        call(evaluation)
