"""Copies of points, classes of one point, the order of rows and the memory limit in the label-error finder."""

import numpy as np
import pytest
import torch
import xgboost
from sklearn.datasets import load_breast_cancer, load_iris
from test_label_errors import digits, fitted, found

from config import UserError
from explainer.attribution.fitting import fit_head
from explainer.attribution.rows import Rows
from explainer.label_errors import DETECTORS, Moment, find_label_errors, left_out_margins, scored, table_duplicates
from explainer.label_errors.duplicates import COARSE, duplicates
from explainer.label_errors.noise import VOTES, doubted, votes
from explainer.label_errors.scores import _without_copies
from explainer.label_errors.tables import boosted


def typo(k, seed=0, classes=2):
    """Clear clusters of 60 points, and k points of the first with a label of their own, which is the last."""
    generator = np.random.default_rng(seed)
    X = np.concatenate([generator.normal(size=(60, 2)) + 5 * c for c in range(classes)])
    return np.concatenate([X, generator.normal(size=(k, 2))]), np.repeat(np.arange(classes + 1), [60] * classes + [k])


def by_trees(X, y, **more):
    booster, _ = boosted(X.astype(np.float32), y)
    return find_label_errors(left_out_margins(booster, X, y), y, votes=(), neighbours=0, **more)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_mistyped_class_is_first_on_every_route(k, classes):
    X, y = typo(k, classes=classes)
    y = np.array(["a", "b", "c", "mistyped"])[np.where(y == classes, 3, y)]
    numbers = np.unique(y, return_inverse=True)[1]
    P = np.full((2, len(y), classes + 1), 1 / (classes + 1))
    tables = [
        by_trees(X, numbers),
        find_label_errors(X, y, neighbours=1),
        find_label_errors(X, y, [X[:, :1], X], votes=(), neighbours=0),
        find_label_errors(X, y, [X], probabilities=P, neighbours=0),
    ]
    for table in tables:
        assert set(table["index"][:k]) == set(range(len(y) - k, len(y)))
        assert np.isfinite(table["score"]).all()
        assert table["proposed_label"][0] in (0, "a")


@pytest.mark.parametrize("key", DETECTORS)
def test_every_detector_ranks_points_of_a_class_of_one(key):
    X, y = typo(1)
    score = scored(key, [fitted(X, y, 3)])
    assert np.isfinite(score).all() and (-score).argsort()[:3].tolist().count(120) == 1


def test_a_class_that_no_point_has():
    X, y = typo(1)
    score, P = doubted([X], np.where(y == 2, 3, y), 4, counts=())
    assert np.isfinite(score).all() and (P[:, 2] < 1e-3).all() and np.allclose(P.sum(1), 1)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("depth", [0, 2])
def test_margins_without_copies_are_those_of_leaves_filled_without_them(copies, depth):
    X, y = typo(2)
    X, y = np.repeat(X, copies, 0).astype(np.float32), np.repeat(y, copies)
    chosen = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2, "eta": 0.3, "lambda": 2.0, "nthread": 1}
    chosen |= {"min_child_weight": 1e-6} if depth else {"min_child_weight": 9, "gamma": 1e9}  # the last class is 0
    first = xgboost.train(chosen, xgboost.DMatrix(X, y), 1)
    refresh = {**chosen, "process_type": "update", "updater": "refresh", "refresh_leaf": True}
    closed, ids = left_out_margins(first, X, y), table_duplicates(X)
    for i in range(0, len(y), 37 if copies == 1 else 41):
        kept = ids != ids[i]
        assert (~kept).sum() == copies
        again = xgboost.train(refresh, xgboost.DMatrix(X[kept], y[kept]), 1, xgb_model=first.copy())
        expected = again.predict(xgboost.DMatrix(X[i : i + 1]), output_margin=True)[0]
        np.testing.assert_allclose(closed[i], expected, atol=1e-4)


def test_trees_without_splits_stay_at_nothing():
    X, y = typo(1)
    chosen = {"objective": "multi:softprob", "num_class": 3, "max_depth": 4, "eta": 0.3, "nthread": 1}
    chosen["min_child_weight"] = 3
    booster = xgboost.train(chosen, xgboost.DMatrix(X, y), 40)
    empty = [tree.strip() in ("0:leaf=0", "0:leaf=-0") for tree in booster.get_dump()]
    assert all(empty[2::3][20:])  # of the class of one point
    before, after = (left_out_margins(booster[:k], X, y)[:, 2] for k in (20, 40))
    np.testing.assert_array_equal(before, after)


def test_weights_of_copies_give_the_margins_of_the_points_themselves():
    X, y, *_ = digits((1, 4, 7))
    margins = []
    for k in (1, 3):
        again, labels = np.repeat(X, k, 0), np.repeat(y, k)
        weights = np.full(len(labels), 1 / k)
        booster, _ = boosted(again, labels, weights=weights)
        margins.append(left_out_margins(booster, again, labels, weights=weights)[::k])
    np.testing.assert_allclose(*margins, atol=1e-3)


def conflicting(seed=0):
    """Digits of three classes with wrong labels, and how often each is there."""
    X, y, wrong, _ = digits((1, 4, 7), seed=seed)
    return X[:300], y[:300], wrong[:300]


@pytest.mark.parametrize("jitter", [0.0, 1e-9])
def test_a_set_repeated_is_the_set(jitter):
    X, y, wrong = conflicting()
    table = find_label_errors(X, y, [X[:, 20:]], neighbours=0)
    generator = np.random.default_rng(0)
    order = generator.permutation(900)
    again = np.repeat(X, 3, 0)[order] * (1 + jitter * generator.normal(size=(900, X.shape[1])))
    other = find_label_errors(again, np.repeat(y, 3)[order], [again[:, 20:]], neighbours=0)
    score = np.empty(300)
    score[table["index"]] = table["score"]
    np.testing.assert_allclose(other["score"], score[order[other["index"]] // 3], atol=1e-6)
    shares = [found(score, wrong), np.repeat(wrong, 3)[order][other["index"]][: 3 * wrong.sum()].mean()]
    assert shares[0] == pytest.approx(shares[1], abs=0.01) and shares[0] > 0.8


def test_what_is_repeated_in_part_does_not_vouch_for_itself():
    X, y, wrong = conflicting()
    times = np.where(np.arange(300) % 2, 1, 4)
    where = np.repeat(np.arange(300), times)
    alone, together = (doubted([X[where]], y[where], 3, duplicates=ids)[0] for ids in (None, where))
    shares = [wrong[where][np.argsort(-score)][: wrong[where].sum()].mean() for score in (alone, together)]
    plain = doubted([X], y, 3)[0]
    np.testing.assert_allclose(together, plain[where], atol=0.02)
    assert shares[1] > shares[0] + 0.1


def test_copies_whose_labels_differ_are_suspicious():
    X, y, _ = digits((1, 4, 7), share=0)[:3]
    again, labels = np.concatenate([X, X[:5]]), np.concatenate([y, (y[:5] + 1) % 3])
    table = find_label_errors(again, labels, neighbours=4)
    assert set(table["index"][:5]) == set(range(len(y), len(y) + 5))
    for _, row in table.head(5).iterrows():
        assert row["index"] - len(y) not in row["supporting"] + row["opposing"]


def test_leave_one_out_without_copies_is_a_refit_without_them():
    X, y, *_ = digits((1, 4, 7), share=0.1)
    where = np.concatenate([np.arange(150), np.arange(30), np.arange(30)])
    X, y, decay = X[where], y[where], 1e-2
    moment = fitted(X, y, 3, decay)
    from explainer.attribution import InfluenceFunction

    explainer = InfluenceFunction.from_arrays(X, y, moment.weight, moment.bias, decay=decay)
    closed = _without_copies(explainer, where).softmax(1).numpy()
    refits = []
    for i in range(0, 40, 3):
        kept = where != where[i]
        rows, targets = Rows(torch.as_tensor(X[kept]), bias=True), explainer.head.targets(torch.as_tensor(y[kept]))
        head = fit_head(rows, targets, explainer.head, decay * len(y) / kept.sum())
        refits.append(head.logits(torch.as_tensor(np.append(X[i], 1.0))[None]).softmax(1)[0].numpy())
    assert np.corrcoef(closed[:40:3].ravel(), np.ravel(refits))[0, 1] > 0.999


@pytest.mark.parametrize("key", ["loo", "ours_signed", "noise"])
def test_detectors_see_copies_as_one(key):
    X, y, *_ = digits((1, 4, 7))
    moment = fitted(X, y, 3)
    again = moment._replace(features=np.repeat(X, 3, 0), labels=np.repeat(y, 3))
    once, thrice = scored(key, [moment]), scored(key, [again])[::3]
    np.testing.assert_allclose(thrice, once, rtol=1e-3, atol=1e-6)


def test_which_rows_are_copies():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(50, 6))
    ids = duplicates(np.concatenate([X, X[:7], X[:3] + 1e-9 * generator.normal(size=(3, 6))]))
    assert (ids[50:57] == ids[:7]).all() and (ids[57:] == ids[:3]).all() and len(set(ids)) == 50
    half = torch.as_tensor(X).bfloat16()
    short = half.double().numpy()
    assert len(set(duplicates(np.concatenate([short, short * (1 + 2**-8)]), dtype=torch.bfloat16))) == 50
    with_gaps = np.where(generator.random(X.shape) < 0.2, np.nan, X)
    assert len(set(duplicates(np.concatenate([with_gaps, with_gaps])))) == 50
    coarse = np.arange(40 * COARSE)[:, None] % 4 * np.ones(2)  # different points of equal values
    for some in (coarse, coarse[1:]):
        assert len(set(duplicates(some))) == len(some)
    line = np.linspace(0, 1, 5000)[:, None]
    assert len(set(duplicates(line))) == 5000 and len(set(duplicates(np.column_stack([line, line**2])))) == 5000
    assert len(set(duplicates(np.zeros((30, 2)), X[:30]))) == 30  # of units that are dead at one moment


def test_rows_in_another_order_and_the_same_call_give_the_same_list(monkeypatch):
    monkeypatch.setattr("explainer.label_errors.noise.VOTERS", 100)  # drawn among the points
    X, y = load_iris(return_X_y=True)
    generator = np.random.default_rng(0)
    y[generator.permutation(150)[:15]] = 2
    tables = [find_label_errors(X, y, [X[:, :2]], neighbours=0) for _ in range(2)]
    assert tables[0].equals(tables[1])
    for order in (np.arange(150)[::-1], generator.permutation(150)):
        other = find_label_errors(X[order], y[order], [X[order, :2]], neighbours=0)
        score, again = np.empty(150), np.empty(150)
        score[tables[0]["index"]], again[order[other["index"]]] = tables[0]["score"], other["score"]
        np.testing.assert_array_equal(again, score)


@pytest.mark.parametrize("classes", [(3, 8), (1, 4, 7)])
def test_a_memory_limit_changes_nothing(classes):
    X, y, *_ = digits(classes)
    X, y = X[:90], y[:90]
    whole, small = (find_label_errors(X, y, [X], memory_limit=limit, neighbours=3) for limit in (2**28, 20000))
    np.testing.assert_allclose(small["score"], whole["score"], rtol=1e-7)
    for column in ("index", "proposed_label", "supporting", "opposing"):
        assert small[column].tolist() == whole[column].tolist()
    booster, _ = boosted(X, y)
    np.testing.assert_array_equal(*(left_out_margins(booster, X, y, memory_limit=limit) for limit in (2**28, 10000)))
    shares = (votes(X, y, len(classes), VOTES, limit).numpy() for limit in (2**28, 10000))
    np.testing.assert_allclose(*shares, atol=1e-12)


def test_memory_does_not_grow_with_the_trees():
    """What is held of each row and tree: nothing; the C margins and the leaves of one round are."""
    import tracemalloc

    X, y = load_breast_cancer(return_X_y=True)
    X, y, peaks = np.repeat(X, 4, 0) + np.random.default_rng(0).normal(size=(2276, 30)), np.repeat(y, 4), []
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, xgboost.DMatrix(X, y), 60)
    ids = np.arange(len(y))
    for rounds in (10, 60):
        tracemalloc.start()
        left_out_margins(booster[:rounds], X, y, duplicates=ids, memory_limit=10**5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 0.2 * len(y) * 50 * 16, peaks


def test_other_models_and_labels_are_refused():
    X, y, *_ = digits()
    booster, _ = boosted(X, y)
    for change, said in (
        ({"model": object()}, "got a object: give a model of XGBoost"),
        ({"y": y[:5]}, "give .* whole numbers from 0 to 1"),
        ({"y": y + 0.5}, "give .* whole numbers from 0 to 1"),
        ({"y": y.astype(str)}, "give .* whole numbers from 0 to 1"),
        ({"weights": [1.0]}, "weights .*: give a number from 0 for each"),
        ({"duplicates": [1.0]}, "duplicates have the shape"),
        ({"memory_limit": 0}, "memory_limit is 0"),
    ):
        with pytest.raises(UserError, match=said):
            left_out_margins(**{"model": booster, "X": X, "y": y, **change})


def test_moments_are_taken_as_tensors_and_refused_in_one_line():
    X, y, *_ = digits()
    moment = fitted(X, y, 2)
    tensors = Moment(*(torch.as_tensor(part) for part in moment[:4]))
    for key in DETECTORS:
        np.testing.assert_array_equal(scored(key, [tensors]), scored(key, [moment]))
    for change, said in (
        ({"labels": y[:3]}, "rows of features and 3 labels"),
        ({"labels": y + 2}, "give whole numbers from 0 to 1"),
        ({"weight": np.zeros((1, 3))}, "features: give"),
        ({"features": X * np.nan}, "not finite"),
    ):
        with pytest.raises(UserError, match=said):
            scored("loss", [moment._replace(**change)])
