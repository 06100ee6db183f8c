"""Pipelines, searches, tables, text and sparse rows of scikit-learn; arrays of every kind."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from explainer.attribution import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction
from explainer.attribution.rows import Rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)) * [1, 10, 0.1, 1] + [0, 5, 1, 0]
SCORE = X[:, 0] + X[:, 1] / 10 - 0.5 + RNG.normal(size=90)
Y = np.array(["no", "yes"])[(SCORE > 0).astype(int)]
FRAME = pd.DataFrame(X[:, :2], columns=["width", "height"]).assign(colour=RNG.choice(["red", "green", "blue"], 90))
EXACT = {"tol": 1e-10, "max_iter": 20000}


def mixed(sparse_output=False):
    columns = [
        ("numbers", StandardScaler(), ["width", "height"]),
        ("names", OneHotEncoder(sparse_output=sparse_output, handle_unknown="ignore"), ["colour"]),
    ]
    return ColumnTransformer(columns, sparse_threshold=1.0 if sparse_output else 0.0)


def silent(method, *args, source="from_sklearn", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return getattr(method, source)(*args, **options)


def test_the_steps_before_the_last_read_every_row():
    model = make_pipeline(StandardScaler(), "passthrough", PCA(3), LogisticRegression(C=0.5, **EXACT)).fit(X, Y)
    explainer = silent(RPSLJE, model, X, Y)
    F = model[:-1].transform(X)
    same = RPSLJE.from_sklearn(model[-1], F, Y)
    np.testing.assert_allclose(explainer.logits(X[:9])[:, 0], model.decision_function(X[:9]), rtol=1e-10)
    np.testing.assert_allclose(explainer.self_influence(), same.self_influence(), rtol=1e-10)
    found = explainer.top_k((X[:9], Y[:9]), 3, target="label")
    np.testing.assert_array_equal(found.indices, same.top_k((F[:9], Y[:9]), 3, target="label").indices)
    nested = Pipeline([("first", StandardScaler()), ("rest", Pipeline([("model", LogisticRegression(**EXACT))]))])
    search = GridSearchCV(nested, {"rest__model__C": [0.1, 1.0]}, cv=3).fit(X, Y)
    explainer = silent(InfluenceFunction, search, X, Y)
    np.testing.assert_allclose(explainer.logits(X)[:, 0], search.decision_function(X), rtol=1e-10)
    assert explainer.decay[0] == pytest.approx(1 / (90 * search.best_params_["rest__model__C"]))
    np.testing.assert_allclose(pickle.loads(pickle.dumps(explainer)).logits(X), explainer.logits(X))
    np.testing.assert_allclose(copy.deepcopy(explainer).logits(X), explainer.logits(X))


@pytest.mark.parametrize("sparse_output", [False, True])
def test_tables_of_mixed_columns(sparse_output):
    model = make_pipeline(mixed(sparse_output), LogisticRegression(class_weight="balanced", **EXACT)).fit(FRAME, Y)
    explainer = silent(GroupInfluence, model, FRAME, Y)
    assert sparse.issparse(explainer.rows.parts[0]) == sparse_output
    np.testing.assert_allclose(explainer.logits(FRAME)[:, 0], model.decision_function(FRAME), rtol=1e-10)
    unseen = FRAME[:3].assign(colour="black")
    np.testing.assert_allclose(explainer.logits(unseen)[:, 0], model.decision_function(unseen), rtol=1e-10)
    with pytest.raises(ValueError, match="the pipeline's step 'columntransformer' cannot read the rows .*: give rows"):
        explainer.top_k(FRAME[["width", "height"]], 1)
    ridge = make_pipeline(mixed(), Ridge(2.0)).fit(FRAME, SCORE)
    explainer = silent(GroupInfluence, ridge, FRAME, SCORE)
    kept, F = np.arange(90) != 4, ridge[0].transform(FRAME)
    change = Ridge(2.0).fit(F[kept], SCORE[kept]).predict(F) - ridge.predict(FRAME)
    np.testing.assert_allclose(explainer.effect([4], FRAME, order="newton")[:, 0], change, rtol=1e-6, atol=1e-9)


def test_trees_at_the_end_of_a_pipeline():
    columns = ColumnTransformer([("names", OrdinalEncoder(), ["colour"])], remainder="passthrough")
    model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5, random_state=0)).fit(FRAME, Y)
    explainer = silent(InfluenceFunction, model, FRAME, Y, source="from_trees", damping=0.1)
    np.testing.assert_allclose(explainer.logits(FRAME[:9])[:, 0], model.decision_function(FRAME[:9]), rtol=1e-6)
    assert explainer.top_k((FRAME[:9], Y[:9]), 2, target="label").classes.tolist() == [int(y == "yes") for y in Y[:9]]
    forest = make_pipeline(mixed(), RandomForestRegressor(5, max_depth=3, random_state=0)).fit(FRAME, SCORE)
    search = GridSearchCV(forest, {"randomforestregressor__max_depth": [2, 3]}, cv=3).fit(FRAME, SCORE)
    explainer = silent(InfluenceFunction, search, FRAME, SCORE, source="from_trees", damping=0.1)
    np.testing.assert_allclose(explainer.logits(FRAME)[:, 0], search.predict(FRAME), rtol=1e-6)


def test_text_stays_sparse():
    words = np.array("a good fine great poor bad dull film plot cast".split())
    texts = [" ".join(words[RNG.integers(0, 10, 6)]) for _ in range(90)]
    y = np.array([text.count("good") + text.count("fine") > text.count("bad") for text in texts])
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=2.0, **EXACT)).fit(texts, y)
    explainer = silent(RPSLJE, model, texts, y)
    assert sparse.issparse(explainer.rows.parts[0])
    np.testing.assert_allclose(explainer.logits(texts[:7])[:, 0], model.decision_function(texts[:7]), rtol=1e-10)
    dense = RPSLJE.from_sklearn(model[-1], model[0].transform(texts).toarray(), y)
    np.testing.assert_allclose(explainer.self_influence(), dense.self_influence(), rtol=1e-10)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array, sparse.csr_array])
@pytest.mark.parametrize("method", [RPSLJE, InfluenceFunction, GroupInfluence, RPSL2])
def test_sparse_rows_are_those_of_the_dense_array(method, kind):
    dense = np.where(RNG.random((90, 6)) < 0.4, RNG.normal(size=(90, 6)), 0.0)
    model = LogisticRegression(**EXACT).fit(kind(dense), Y)
    limit = {"memory_limit": 2000}  # blocks of a few rows
    found, expected = silent(method, model, kind(dense), Y, **limit), silent(method, model, dense, Y)
    assert sparse.issparse(found.rows.parts[0])
    np.testing.assert_allclose(found.self_influence(), expected.self_influence(), rtol=1e-9, atol=1e-14)
    test = kind(dense[:5])
    scores, same = (np.concatenate(list(e.influence(rows))) for e, rows in ((found, test), (expected, dense[:5])))
    np.testing.assert_allclose(scores, same, rtol=1e-9, atol=1e-14)
    arrays = method.from_arrays(kind(dense), Y == "yes", model.coef_, model.intercept_)
    same = method.from_arrays(dense, Y == "yes", model.coef_, model.intercept_)
    np.testing.assert_allclose(arrays.self_influence(), same.self_influence(), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(arrays.logits(test), same.logits(dense[:5]))


def test_wrappers_without_one_head_are_refused():
    base = LogisticRegression()
    for model, said in (
        (
            CalibratedClassifierCV(base, cv=2).fit(X, Y),
            "CalibratedClassifierCV averages calibrated models: give one of",
        ),
        (OneVsRestClassifier(base).fit(X, Y), "OneVsRestClassifier has a model for each class: give one of"),
        (FixedThresholdClassifier(base).fit(X, Y), "FixedThresholdClassifier moves the threshold alone"),
        (TransformedTargetRegressor(Ridge()).fit(X, SCORE), "TransformedTargetRegressor transforms the targets"),
        (GridSearchCV(base, {"C": [1, 2]}, refit=False).fit(X, Y), "GridSearchCV has no best_estimator_: fit it with"),
        (GridSearchCV(base, {"C": [1, 2]}), "GridSearchCV has no best_estimator_"),
        (make_pipeline(StandardScaler(), PCA(2)).fit(X), "last step 'pca' does not predict: end it with an estimator"),
        (make_pipeline(StandardScaler(), base), "LogisticRegression is not fitted: fit it first"),
    ):
        for source in ("from_sklearn", "from_trees"):
            said = (
                said if source == "from_sklearn" or "not fitted" not in said else "LogisticRegression is not supported"
            )
            with pytest.raises(ValueError, match=said) as error:
                getattr(InfluenceFunction, source)(model, X, Y)
            assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="column 0 of the rows is 'height', of the training's 'width'"):
        frame = FRAME[["width", "height"]]
        InfluenceFunction.from_sklearn(base.fit(frame, Y), frame[["height", "width"]], Y)
    with pytest.raises(ValueError, match="the rows are no numbers .*: give those it was fitted on"):
        InfluenceFunction.from_sklearn(base.fit(X[:, :3], Y), FRAME, Y)


KINDS = {
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "columns backwards": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "other byte order": lambda x: x.astype(">f8"),
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "read-only, backwards": lambda x: np.frombuffer(np.ascontiguousarray(x[::-1]).tobytes()).reshape(x.shape)[::-1],
    "every other": lambda x: np.repeat(x, 2, 0)[::2],
    "objects": lambda x: x.astype(object),
    "columns first": np.asfortranarray,
    "tensor": torch.tensor,
    "table": pd.DataFrame,
    "lists": np.ndarray.tolist,
    "half": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_every_kind(kind):
    x = (RNG.integers(-8, 8, size=(90, 4)) / 4).astype(np.float64)  # quarters, which half floats hold
    y = (x[:, 0] + x[:, 1] > 0.3).astype(int)
    model = LogisticRegression(**EXACT).fit(x, y)
    expected = InfluenceFunction.from_sklearn(model, x, y)
    given = KINDS[kind](x)
    for explainer in (
        silent(InfluenceFunction, model, given, y),
        InfluenceFunction.from_arrays(given, y, model.coef_, model.intercept_, decay=1 / 90, decay_intercept=False),
    ):
        rtol = 1e-3 if explainer.rows.dtype == torch.float32 else 1e-10
        np.testing.assert_allclose(explainer.self_influence(), expected.self_influence(), rtol=rtol, atol=1e-7)
        np.testing.assert_allclose(explainer.logits(given[:4]), expected.logits(x[:4]), rtol=rtol, atol=1e-6)
        part = explainer.rows.take([5, 2])[:, :4]
        np.testing.assert_allclose(part.numpy(), x[[5, 2]])


def test_files_of_another_byte_order_stay_on_the_disk(tmp_path):
    x = RNG.normal(size=(50, 3))
    np.save(tmp_path / "x.npy", x.astype(">f4"))
    rows = Rows(str(tmp_path / "x.npy"))
    assert isinstance(rows.parts[0], np.memmap) and rows.dtype == torch.float32
    np.testing.assert_allclose(torch.cat([block for _, block in rows.blocks()]).numpy(), x, rtol=1e-6)
    np.testing.assert_allclose(rows.take([7, 1]).numpy(), x[[7, 1]], rtol=1e-6)
    for source, said in (
        (np.array([["a", 1.0]], dtype=object), "features: got an array of objects .*; give real numbers"),
        (sparse.csr_matrix(np.eye(3, dtype=complex)), "features: got a sparse matrix of complex128"),
        (sparse.csr_matrix(np.eye(3, dtype=int)), "features are torch.int64: give float32 or float64"),
        (np.ma.masked_less(x, 0), "features: got a masked array; fill or leave out what is masked"),
    ):
        with pytest.raises(ValueError, match=said):
            Rows(source)
