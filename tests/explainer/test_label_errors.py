"""The scores of label errors: the noise model against a slow reference, and what each score finds."""

import numpy as np
import pytest
import torch
import xgboost
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.datasets import load_digits

from config import UserError
from explainer.attribution import InfluenceFunction
from explainer.attribution.fitting import fit_head
from explainer.attribution.heads import Head
from explainer.attribution.rows import Rows
from explainer.label_errors import DETECTORS, Moment, find_label_errors, judged, left_out_margins, scored
from explainer.label_errors.find import COLUMNS
from explainer.label_errors.noise import EQUAL, NOISE, PRIOR
from explainer.label_errors.scores import leave_one_out


def digits(classes=(3, 8), share=0.2, seed=0):
    """Features (n,64), given labels 0 ... C-1 with a share of wrong ones, which are wrong (n,), and the true labels."""
    X, y = load_digits(return_X_y=True)
    kept = np.isin(y, classes)
    X, y = X[kept] / 16, np.searchsorted(classes, y[kept])
    generator = np.random.default_rng(seed)
    wrong = np.zeros(len(y), bool)
    wrong[generator.permutation(len(y))[: int(share * len(y))]] = True
    return X, np.where(wrong, (y + generator.integers(1, len(classes), len(y))) % len(classes), y), wrong, y


def found(score, wrong):
    """The share of the wrong labels among as many points as there are wrong ones."""
    return wrong[np.argsort(-score, kind="stable")[: wrong.sum()]].mean()


def fitted(X, y, C, decay=1e-3):
    """A `Moment` whose head is at its minimum."""
    head = Head.of(torch.zeros(1 if C == 2 else C, X.shape[1]), torch.zeros(1 if C == 2 else C), torch.as_tensor(y))
    head = fit_head(Rows(torch.as_tensor(X), bias=True), head.targets(torch.as_tensor(y)), head, decay)
    return Moment(X, y, head.weight[:-1].T.numpy(), head.weight[-1].numpy())


def slow_rounds(X, y, ridge, rounds):
    """The model by a general optimizer, and every point's head really fitted on the others by one Newton step."""
    F = np.column_stack([(X - X.mean(0))[:, X.std(0) > 0] / X.std(0)[X.std(0) > 0], np.ones(len(X))])
    T, q = np.array([[1 - NOISE, NOISE], [NOISE, 1 - NOISE]]), np.eye(2)[y]
    for _ in range(rounds):
        t = q[:, 1]

        def objective(w, t=t):
            z = F @ w
            return np.sum(np.logaddexp(0, z) - t * z) + ridge / 2 * w @ w, F.T @ (expit(z) - t) + ridge * w

        w = minimize(objective, np.zeros(F.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}).x
        pi = np.empty(len(y))
        for i in range(len(y)):
            others = np.arange(len(y)) != i
            p = expit(F[others] @ w)
            H = (F[others] * (p * (1 - p))[:, None]).T @ F[others] + ridge * np.eye(F.shape[1])
            pi[i] = expit(F[i] @ (w - np.linalg.solve(H, F[others].T @ (p - t[others]) + ridge * w)))
        q = np.column_stack([1 - pi, pi]) * T[:, y].T
        q /= q.sum(1, keepdims=True)
        wrong = (q[y == 0, 1].sum() + q[y == 1, 0].sum()) / len(y)
        shared = EQUAL * len(y) / 2 * np.array([[1 - wrong, wrong], [wrong, 1 - wrong]])
        T = np.array([[q[y == k, c].sum() + PRIOR * (1 - NOISE if k == c else NOISE) for k in (0, 1)] for c in (0, 1)])
        T = (T + shared) / (T + shared).sum(1, keepdims=True)
    return q, T


def test_the_noise_model_is_its_slow_reference():
    X, y, *_ = digits()
    X, y = X[:120], y[:120]
    q, T = slow_rounds(X, y, 10.0, 3)
    result = judged(X, y, 2, ridge=10.0, rounds=3)
    np.testing.assert_allclose(result.q, q, atol=1e-5)
    np.testing.assert_allclose(result.noise, T, atol=1e-5)


@pytest.mark.parametrize("classes", [(3, 8), tuple(range(10))])
def test_the_noise_model_knows_wrong_labels_and_the_right_ones(classes):
    X, y, wrong, truth = digits(classes)
    result = judged(X, y, len(classes), ridge=1.0 if len(classes) > 2 else 10.0)
    q = result.q.numpy()
    np.testing.assert_allclose(q.sum(1), 1)
    np.testing.assert_allclose(result.noise.sum(1), 1)
    assert found(-np.log(q[np.arange(len(y)), y]), wrong) > 0.85
    assert (result.pi.numpy()[wrong].argmax(1) == truth[wrong]).mean() > 0.85
    assert 0.05 < (1 - q[np.arange(len(y)), y]).mean() < 0.25  # a head of so many features hides some of it


def test_one_sided_noise_is_seen_as_such():
    X, y, _, truth = digits(share=0)
    wrong = (truth == 1) & (np.random.default_rng(0).random(len(y)) < 0.3)
    T = judged(X, np.where(wrong, 0, y), 2).noise.numpy()
    assert 0.2 < T[1, 0] < 0.4 and T[0, 1] < 0.05


def test_features_need_no_scale_and_may_be_constant():
    X, y, *_ = digits()
    expected = judged(X, y, 2).q
    scaled = np.column_stack([X * 1000 + 5, np.full(len(X), 7.0)])
    np.testing.assert_allclose(judged(scaled, y, 2).q, expected, atol=1e-8)
    X[5, 3] = np.nan
    with pytest.raises(UserError, match="row 5"):
        judged(X, y, 2)


@pytest.mark.parametrize(("name", "value"), [("ridge", 0), ("ridge", float("nan")), ("rounds", 0), ("rounds", 1.5)])
def test_bad_settings(name, value):
    with pytest.raises(UserError, match=name):
        judged(np.eye(4), [0, 1, 0, 1], 2, **{name: value})


@pytest.mark.parametrize("classes", [(3, 8), (1, 4, 7)])
def test_the_loss_is_that_of_the_head(classes):
    X, y, *_ = digits(classes)
    moment = fitted(X, y, len(classes))
    Z = X @ moment.weight.T + moment.bias
    Z = np.column_stack([np.zeros(len(y)), Z]) if len(classes) == 2 else Z
    expected = np.logaddexp.reduce(Z, 1) - Z[np.arange(len(y)), y]
    np.testing.assert_allclose(scored("loss", [moment]), expected, atol=1e-10)


@pytest.mark.parametrize("classes", [(3, 8), (1, 4, 7)])
def test_leave_one_out_probabilities_are_those_of_refits(classes):
    X, y, *_ = digits(classes)
    decay, n = 1e-3, len(y)
    moment = fitted(X, y, len(classes), decay)
    explainer = InfluenceFunction.from_arrays(X, y, moment.weight, moment.bias, decay=decay)
    closed, refits = explainer.leave_one_out().probabilities, []
    tested = np.random.default_rng(0).permutation(n)[:40]
    for i in tested:
        kept = np.arange(n) != i
        rows = Rows(torch.as_tensor(X[kept]), bias=True)
        targets = explainer.head.targets(torch.as_tensor(y[kept]))
        head = fit_head(rows, targets, explainer.head, decay * n / (n - 1))
        refits.append(head.probabilities(head.logits(torch.as_tensor(np.append(X[i], 1.0))[None])).numpy()[0])
    refits = np.array(refits).reshape(closed[tested].shape)
    assert np.corrcoef(closed[tested].ravel(), refits.ravel())[0, 1] > 0.999
    damped = leave_one_out(moment)
    np.testing.assert_allclose(damped.sum(1), 1, atol=1e-12)


def test_without_the_anchor_is_leverage_times_residual():
    X, y, *_ = digits()
    moment = fitted(X, y, 2)
    F, theta = np.column_stack([X, np.ones(len(X))]), np.append(moment.weight[0], moment.bias)
    p = expit(F @ theta)
    H = (F * (p * (1 - p))[:, None]).T @ F / len(y)
    expected = np.einsum("id,de,ie->i", F, np.linalg.pinv(H, rcond=1.5e-8, hermitian=True), F) * np.abs(p - y) / len(y)
    score = scored("ours_signed", [moment])
    assert np.corrcoef(score, expected)[0, 1] > 0.9999 and (score >= 0).all()


def test_the_mean_over_moments_is_led_by_those_that_doubt():
    X, y, wrong, _ = digits()
    memorized = np.column_stack([np.random.default_rng(0).normal(size=X.shape), 20.0 * y])
    moments = [Moment(features, y, np.zeros((1, features.shape[1]))) for features in (X, memorized)]
    early, late, both = (found(scored("noise", some), wrong) for some in (moments[:1], moments[1:], moments))
    assert late < 0.5 < early - 0.2 and both > early - 0.05


@pytest.mark.parametrize("key", DETECTORS)
def test_every_score_beats_chance_and_leaves_what_it_is_given(key):
    X, y, wrong, _ = digits()
    moment = fitted(X, y, 2)
    before = [np.copy(array) for array in moment[:4]]
    score = scored(key, [moment])
    assert score.shape == y.shape and np.isfinite(score).all()
    assert found(score, wrong) > 0.5
    for array, known in zip(moment[:4], before):
        np.testing.assert_array_equal(array, known)


def test_bad_moments():
    X, y, *_ = digits()
    moment = fitted(X, y, 2)
    with pytest.raises(UserError, match="detector"):
        scored("best", [moment])
    with pytest.raises(UserError, match="no moment"):
        scored("loss", [])
    with pytest.raises(UserError, match="different labels"):
        scored("noise", [moment._replace(labels=1 - y), moment])


@pytest.mark.parametrize("classes", [(3, 8), (1, 4, 7)])
def test_margins_without_a_point_are_those_of_trees_whose_leaves_are_filled_without_it(classes):
    X, y, *_ = digits(classes)
    C = len(classes)
    chosen = {"objective": "binary:logistic"} if C == 2 else {"objective": "multi:softprob", "num_class": C}
    chosen |= {"max_depth": 3, "eta": 0.3, "lambda": 2.0, "nthread": 1}
    booster = xgboost.train(chosen, xgboost.DMatrix(X, y), 6)
    found, end = left_out_margins(booster, X, y), booster.predict(xgboost.DMatrix(X), output_margin=True)
    assert found.shape == (len(y), 1 if C == 2 else C)
    expected, tested = [], np.random.default_rng(0).permutation(len(y))[:25]
    refresh = {**chosen, "process_type": "update", "updater": "refresh", "refresh_leaf": True}
    for i in tested:
        kept = np.arange(len(y)) != i
        again = xgboost.train(refresh, xgboost.DMatrix(X[kept], y[kept]), 6, xgb_model=booster.copy())
        expected.append(again.predict(xgboost.DMatrix(X[[i]]), output_margin=True).reshape(-1))
    changes = [z - end.reshape(found.shape)[tested] for z in (found[tested], np.array(expected))]
    assert np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1] > 0.95  # the others' derivatives move as well
    first = xgboost.train(chosen, xgboost.DMatrix(X, y), 1)  # of one round it is exact
    again = xgboost.train(refresh, xgboost.DMatrix(X[1:], y[1:]), 1, xgb_model=first.copy())
    np.testing.assert_allclose(
        left_out_margins(first, X, y)[0],
        again.predict(xgboost.DMatrix(X[:1]), output_margin=True).reshape(-1),
        atol=1e-4,
    )


def test_trees_of_other_points_are_refused():
    X, y, *_ = digits()
    chosen = {"objective": "binary:logistic", "nthread": 1}
    booster = xgboost.train(chosen, xgboost.DMatrix(X, y), 5)
    with pytest.raises(UserError, match="from those of these points and labels"):
        left_out_margins(booster, X, 1 - y)
    booster = xgboost.train({**chosen, "subsample": 0.5}, xgboost.DMatrix(X, y), 5)
    with pytest.raises(UserError, match="without sampled rows"):
        left_out_margins(booster, X, y)
    booster = xgboost.train({**chosen, "num_parallel_tree": 2}, xgboost.DMatrix(X, y), 5)
    with pytest.raises(UserError, match="num_parallel_tree"):
        left_out_margins(booster, X, y)


@pytest.mark.parametrize("classes", [(3, 8), tuple(range(10))])
def test_the_table_of_label_errors(classes):
    X, y, wrong, truth = digits(classes)
    names = np.array([f"digit {c}" for c in classes])
    table = find_label_errors(X, names[y], neighbours=3)
    assert table.columns.tolist() == COLUMNS and table["rank"].tolist() == list(range(1, len(y) + 1))
    assert sorted(table["index"]) == list(range(len(y))) and table["score"].is_monotonic_decreasing
    assert (table["given_label"] == names[y][table["index"]]).all() and table["loo_probability"].between(0, 1).all()
    top = table.head(wrong.sum())
    assert wrong[top["index"]].mean() > 0.8
    right = wrong[top["index"]]
    assert (top["proposed_label"] == names[truth][top["index"]])[right].mean() > 0.8
    first = table.iloc[0]
    assert len(set(first["supporting"]) | set(first["opposing"]) | {first["index"]}) == 7
    assert find_label_errors(X, y, explained=2)["opposing"].map(len).tolist() == [5, 5] + [0] * (len(y) - 2)
    share = {
        column: np.mean([np.mean(truth[points] == y[i]) for points, i in zip(table[column][:40], table["index"])])
        for column in ("supporting", "opposing")
    }
    assert share["supporting"] > 0.6 and share["opposing"] < 0.1, share


def test_earlier_moments_find_what_the_last_one_has_memorized():
    X, y, wrong, _ = digits()
    memorized = np.column_stack([np.random.default_rng(0).normal(size=X.shape), 20.0 * y])
    shares = []
    for moments in ((), (X,)):
        table = find_label_errors(memorized, y, moments, neighbours=0)
        shares.append(wrong[table["index"][: wrong.sum()]].mean())
    assert shares[0] < 0.4 and shares[1] > 0.75


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda X, y: (X[:5], y), "got 5 rows of features and .* labels"),
        (lambda X, y: (X, np.zeros(len(y))), "every label is 0.0: give points of two classes"),
        (lambda X, y: (X, np.arange(len(y))), "classes of .* points: give labels"),
        (lambda X, y: (X, np.where(y == 1, np.nan, 0.0)), "labels are missing, the first of row"),
        (lambda X, y: (X[:, 0], y), r"features have the shape \(\d+,\): give \(n, d\)"),
        (lambda X, y: (X, np.column_stack([y, y])), "give one for each point"),
        (lambda X, y: (np.where(np.arange(len(y))[:, None] == 7, np.inf, X), y), "row 7 of features is not finite"),
    ],
)
def test_bad_tables(change, said):
    X, y, *_ = digits()
    with pytest.raises(UserError, match=said):
        find_label_errors(*change(X, y))
