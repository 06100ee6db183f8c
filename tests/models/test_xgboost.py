import json

import numpy as np
import pytest
import xgboost as xgb
from scipy.special import expit

from config import UserError
from explainer import rps_lje
from explainer.methods import points
from models.outputs import load_outputs
from models.Xgboost import train, trees, trial
from models.Xgboost.data.prepare import in_words, prepare
from models.Xgboost.utils_german import CATEGORICAL, NUMERICAL, RAW, READABLE, load, raw, readable

DATA = load()
BOOSTER = trees.fit(DATA.X_train, DATA.y_train, seed=0)


def test_prepared_arrays_are_made_again_to_the_bit():
    made = prepare()
    for name, array in vars(DATA).items():
        assert getattr(made, name).dtype == array.dtype
        np.testing.assert_array_equal(getattr(made, name), array)
    assert READABLE.read_text() == in_words()


def test_raw_file_is_the_original():
    assert RAW.stat().st_size == 79793
    rows = raw()
    assert rows.shape == (1000, 21) and (rows["classification"] == 1).sum() == 700


def test_every_code_has_a_meaning():
    rows = readable()
    assert not rows.isna().any().any()
    assert rows.loc[0, ["existingchecking", "purpose", "classification"]].tolist() == [
        "below 0 DM",
        "radio or television",
        "good",
    ]


def test_rows_of_the_published_split():
    assert DATA.X_train.shape == (1118, 61) and DATA.X_test.shape == (200, 61)
    assert DATA.test_rows[:6].tolist() == [507, 818, 452, 368, 242, 929]  # the official release's first test rows
    assert DATA.y_test[:6].tolist() == [0, 1, 1, 0, 0, 1]
    assert np.bincount(DATA.y_train).tolist() == [559, 559]


def test_one_hot_rows_are_the_raw_ones():
    rows = raw()
    for i in (0, 17, 799):
        values = dict(zip(DATA.columns, DATA.X_train[i]))
        original = rows.loc[DATA.train_rows[i, 0]]
        assert [values[name] for name in NUMERICAL] == original[NUMERICAL].tolist()
        assert all(values[f"{name}_{original[name]}"] == 1 for name in CATEGORICAL)
        assert sum(DATA.X_train[i, 7:]) == len(CATEGORICAL)


def test_synthetic_rows_lie_between_their_two_bad_parents():
    rows = raw()
    real = {row: DATA.X_train[i] for i, row in enumerate(DATA.train_rows[:800, 0])}
    for i in range(800, 1118):
        a, b = (real[row] for row in DATA.train_rows[i])
        low, high = np.minimum(a, b), np.maximum(a, b)
        assert (low <= DATA.X_train[i]).all() and (DATA.X_train[i] <= high).all()
        assert rows.loc[DATA.train_rows[i], "classification"].tolist() == [2, 2] and DATA.y_train[i] == 0
    assert (DATA.train_rows[:800, 0] == DATA.train_rows[:800, 1]).all()
    assert (DATA.train_rows[800:, 0] != DATA.train_rows[800:, 1]).all()


def test_leaf_values_in_one_pass_are_the_margins_of_single_trees():
    values = trees.leaf_values(BOOSTER, DATA.X_test)
    assert values.shape == (200, 80)
    data = xgb.DMatrix(DATA.X_test)
    for t in (0, 1, 40, 79):
        margin = BOOSTER.predict(data, iteration_range=(t, t + 1), output_margin=True)
        np.testing.assert_allclose(values[:, t], margin, atol=1e-7)


def test_probability_features_are_those_of_single_trees():
    features, weight = trees.features(BOOSTER, DATA.X_test, "probability")
    data = xgb.DMatrix(DATA.X_test)
    for t in (0, 79):
        np.testing.assert_allclose(features[:, t], BOOSTER.predict(data, iteration_range=(t, t + 1)), atol=1e-6)
    assert (features[:, 80] == 1).all()
    np.testing.assert_array_equal(weight[0], [1.0] * 80 + [-39.5])


def test_margin_features_reproduce_the_prediction_and_probability_features_do_not():
    for kind, low, high in (("margin", 0, 1e-6), ("probability", 0.01, 1)):
        features, weight = trees.features(BOOSTER, DATA.X_test, kind)
        difference = np.abs(expit(features @ weight[0]) - trees.predict(BOOSTER, DATA.X_test)).max()
        assert low <= difference <= high


def test_saved_outputs_and_model_are_written_and_agree(tmp_path):
    outputs = train.train(tmp_path)
    read = load_outputs(tmp_path, "Xgboost")
    assert read.intermediate_train.shape == (1118, 81) and read.pred_test.shape == (200,)
    booster = xgb.Booster(model_file=tmp_path / "model" / "xgb.ubj")
    np.testing.assert_array_equal(trees.predict(booster, DATA.X_test), read.pred_test)
    assert outputs.test_accuracy == np.mean((read.pred_test > 0.5) == (DATA.y_test == 1))


def test_training_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        train.train(tmp_path / name, seed=3)
    for file in ("saved_outputs.npz", "xgb.ubj"):
        assert (tmp_path / "a" / "model" / file).read_bytes() == (tmp_path / "b" / "model" / file).read_bytes()


@pytest.mark.filterwarnings("ignore:H has rank")
def test_explanations_do_not_change_the_trees_outputs(tmp_path):
    outputs = train.train(tmp_path)
    before = outputs.intermediate_train.copy()
    p = points(outputs)
    rps_lje(p.F, p.y, p.theta, 0.01)
    np.testing.assert_array_equal(outputs.intermediate_train, before)


def test_a_model_without_a_checksum_is_tried_in_another_process(tmp_path):
    path, raw = tmp_path / "xgb.ubj", bytes(BOOSTER.save_raw("ubj"))
    path.write_bytes(raw)
    np.testing.assert_array_equal(
        trees.predict(trees.load_booster(path, ""), DATA.X_test), trees.predict(BOOSTER, DATA.X_test)
    )
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="cannot read .*: mend it"):
        trees.load_booster(path, "mend it")


def test_one_flipped_bit_of_a_model_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "xgb.ubj"
    trees.save(BOOSTER, path)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(trees, "xgb", None)
    with pytest.raises(UserError, match="is damaged or of another format: mend it"):
        trees.load_booster(path, "mend it")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["left_children"].__setitem__(0, 10**6), "a tree that is none"),
        (lambda tree: tree["right_children"].__setitem__(0, 0), "a tree that is none"),
        (lambda tree: tree["right_children"].__setitem__(0, -1), "a node with one child"),
        (lambda tree: tree["split_indices"].__setitem__(0, 61), "a split by a column that is not there"),
        (lambda tree: tree["split_conditions"].__setitem__(0, float("nan")), "a value that is not finite"),
        (lambda tree: tree["default_left"].pop(), "a tree whose parts have different lengths"),
    ],
)
def test_trees_that_a_prediction_would_leave(change, said):
    learner = json.loads(bytes(BOOSTER.save_raw("json")))["learner"]
    assert trial.fault(learner) == ""
    change(learner["gradient_booster"]["model"]["trees"][3])
    assert trial.fault(learner) == said


def test_bad_arguments(refused):
    assert "--features: invalid choice: 'leaf'" in refused(train.main, "--features", "leaf")
    assert "--seed: got -1; give a whole number" in refused(train.main, "--seed", -1)
    assert "unrecognized arguments: --sead" in refused(train.main, "--sead", 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"y_test": np.array(1)},
        {"X_test": DATA.X_test[:0]},
        {"X_test": DATA.X_test[:, 1:]},
        {"X_train": DATA.X_train.astype(str)},
        {"test_rows": DATA.test_rows[:, None]},
        {"train_rows": DATA.train_rows + 1000},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_prepared_arrays_of_another_form_are_refused(changed, tmp_path, monkeypatch):
    path = tmp_path / "prepared.npz"
    monkeypatch.setattr("models.Xgboost.utils_german.PREPARED", path)
    np.savez(path, **vars(DATA) | changed)
    with pytest.raises(UserError, match="run python models/Xgboost/data/prepare.py"):
        load()
