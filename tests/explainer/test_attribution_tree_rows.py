"""Rows as tree models take them: categories, names of columns, arrays of every kind."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
from scipy.sparse import csr_matrix
from sklearn.ensemble import HistGradientBoostingClassifier
from tree_models import CLASSIFIERS, TWO, X, boosted, same_margin, silent

from explainer.attribution.trees import TreeHead
from explainer.label_errors import left_out_margins


def table(n=400, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"number": rng.normal(size=n), "a colour": rng.choice(["red", "green", "blue"], n)})
    frame["size"] = pd.Categorical(rng.choice([10, 20, 40], n))
    y = ((frame["a colour"] == "red") ^ (frame["number"] + (frame["size"] == 40) > 0)).astype(int).to_numpy()
    frame["a colour"] = frame["a colour"].astype("category")
    return frame, y


def test_categories_of_xgboost():
    frame, y = table()
    model = xgboost.XGBClassifier(n_estimators=6, max_depth=3, enable_categorical=True).fit(frame, y)
    expected = model.predict(frame, output_margin=True)
    same_margin(model, frame, expected)
    other = frame.iloc[:50].copy()  # the same values under other codes, as a smaller table has them
    other["a colour"] = pd.Categorical(other["a colour"].astype(str), categories=["red", "blue", "green"])
    explainer = silent(model, frame, y)
    np.testing.assert_allclose(explainer.logits(other)[:, 0], expected[:50], rtol=1e-5, atol=1e-5)
    one = frame[:1].assign(**{"a colour": frame["a colour"][:1].cat.remove_unused_categories()})
    np.testing.assert_allclose(explainer.logits(one)[:, 0], expected[:1], rtol=1e-5, atol=1e-5)
    with_missing = frame.assign(number=frame["number"].mask(frame["number"] > 1))
    model.fit(with_missing, y)
    same_margin(model, with_missing, model.predict(with_missing, output_margin=True))
    codes = np.stack([frame["number"], frame["a colour"].cat.codes], 1)
    typed = xgboost.XGBClassifier(n_estimators=6, feature_types=["q", "c"], enable_categorical=True).fit(codes, y)
    same_margin(typed, codes, typed.predict(codes, output_margin=True))
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(frame, y, enable_categorical=True), 6)
    same_margin(booster, frame, booster.predict(xgboost.DMatrix(frame, enable_categorical=True), output_margin=True))


def test_categories_after_early_stopping():
    frame, y = table()
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, learning_rate=1.0, enable_categorical=True)
    model.fit(frame[:100], y[:100], eval_set=[(frame[100:], 1 - y[100:])], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    other = frame.copy()
    other["a colour"] = pd.Categorical(other["a colour"].astype(str), categories=["red", "blue", "green"])
    same_margin(model, other, model.predict(frame, output_margin=True))  # slices of boosters lose the categories


def test_left_out_margins_of_categories():
    frame, y = table()
    model = xgboost.XGBClassifier(n_estimators=4, max_depth=3, enable_categorical=True, max_cat_to_onehot=9)
    model.fit(frame, y)
    codes = pd.get_dummies(frame, columns=["a colour", "size"]).astype(float)
    same = xgboost.XGBClassifier(n_estimators=4, max_depth=3, tree_method="hist").fit(codes, y)
    np.testing.assert_allclose(
        model.predict(frame, output_margin=True), same.predict(codes, output_margin=True), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(left_out_margins(model, frame, y), left_out_margins(same, codes, y), atol=1e-3)


def test_categories_of_lightgbm_and_histogram_boosting():
    frame, y = table()
    model = boosted(min_child_samples=5).fit(frame, y)
    head = same_margin(model, frame, model.predict(frame, raw_score=True))
    other = frame.iloc[:50].assign(
        **{"a colour": pd.Categorical(frame["a colour"][:50].astype(str), categories=["red", "blue", "green"])}
    )
    np.testing.assert_allclose(head.features(other), head.features(frame)[:50])
    with pytest.raises(ValueError, match="column 0 of the rows is 'size', of the training's 'number': give the same"):
        head.features(frame[["size", "a colour", "number"]])
    hist = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(frame, y)
    same_margin(hist, frame, hist.decision_function(frame))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_columns_in_another_order_are_refused(name):
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = CLASSIFIERS[name]().fit(frame, TWO)
    head = TreeHead(model, frame)
    for wrong, said in (
        (frame[list("badc")], "column 0 of the rows is 'b', of the training's 'a'"),
        (frame.rename(columns={"c": "e"}), "column 2 of the rows is 'e', of the training's 'c'"),
        (frame[list("abc")], "the rows have 3 columns: give the 4"),
    ):
        with pytest.raises(ValueError, match=said):
            head.features(wrong)
        with pytest.raises(ValueError, match=said):
            TreeHead(model, wrong)


ROWS = {
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "columns first": np.asfortranarray,
    "objects": lambda x: x.astype(object),
    "tensor": torch.tensor,
    "sparse": csr_matrix,
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_arrays_of_every_kind(name, rows):
    rng = np.random.default_rng(3)
    x = (rng.integers(1, 9, size=(100, 4)) / 4).astype(np.float64)  # without zeros, which XGBoost takes as missing
    y = (x[:, 0] > x[:, 1]).astype(int)
    head = TreeHead(CLASSIFIERS[name]().fit(x, y), x)
    if (name, rows) == ("histogram boosting", "sparse"):
        with pytest.raises(ValueError, match="the trees cannot read the rows"):
            head.features(ROWS[rows](x))
        return
    np.testing.assert_array_equal(head.features(ROWS[rows](x)), head.features(x))
    half = x.astype(np.float16)  # quarters, which it holds
    np.testing.assert_array_equal(head.features(half), head.features(x))
    np.testing.assert_array_equal(head.features(torch.tensor(x).bfloat16()), head.features(x))


def test_rows_that_are_no_numbers_are_refused():
    head = TreeHead(CLASSIFIERS["xgboost"]().fit(X, TWO), X)
    for rows, said in (
        (np.ma.masked_greater(X, 1), "the rows are a masked array: fill what is masked"),
        (X.astype(str), "the rows are an array of <U32: give numbers"),
        (np.array([["a", 1, 2, 3]], dtype=object), "the rows are an array of object: give numbers"),
        (X.astype(complex), "the rows are an array of complex128: give numbers"),
        ([[1.0, 2.0], [1.0]], "the rows differ in length"),
        ("rows.npy", r"the rows are an array of|have the shape \(\)"),
    ):
        with pytest.raises(ValueError, match=said):
            head.features(rows)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_heads_are_copied_and_pickled(name):
    head = TreeHead(CLASSIFIERS[name]().fit(X, TWO), X)
    for again in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        np.testing.assert_array_equal(again.features(X), head.features(X))
