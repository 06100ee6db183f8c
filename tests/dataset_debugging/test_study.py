"""The study of label errors: its noise, its measures, its sources, and the command on the smallest ones."""

from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from config import UserError
from dataset_debugging.label_noise import NOISES, Noise, with_noise
from dataset_debugging.study_detectors import FIVE_FOLDS, NAMES, OURS, WITHOUT, all_scores, area, found_at, neighbours
from dataset_debugging.study_label_errors import COLUMNS, main
from dataset_debugging.study_sources import HEADS, SOURCES, LinearHead, Source
from dataset_debugging.study_trainings import Trained
from explainer.label_errors import Moment


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
@pytest.mark.parametrize("classes", [2, 4])
def test_noise_makes_so_many_labels_wrong_and_leaves_the_others(noise, classes):
    generator = np.random.default_rng(0)
    y, P = generator.integers(0, classes, 400), generator.dirichlet(np.ones(classes), 400)
    noisy, wrong = with_noise(y, classes, noise, 3, P)
    np.testing.assert_array_equal(np.flatnonzero(noisy != y), wrong)
    assert len(wrong) == int(400 * noise.portion / (2 if noise.kind == "one-sided" else 1))
    assert noisy.min() >= 0 and noisy.max() < classes
    np.testing.assert_array_equal(noisy, with_noise(y, classes, noise, 3, P)[0])
    assert not np.array_equal(noisy, with_noise(y, classes, noise, 4, P)[0])
    if noise.kind == "one-sided":
        assert set(y[wrong] % 2) == {1} and (noisy[wrong] == y[wrong] - 1).all()
    if noise.kind == "boundary":
        hardest = np.argsort(P[np.arange(400), y])[:160]
        assert set(wrong) <= set(hardest)
        others = np.where(np.arange(classes) == y[:, None], -1, P)
        np.testing.assert_array_equal(noisy[wrong], others.argmax(1)[wrong])


def test_noise_that_cannot_be():
    with pytest.raises(UserError, match="'some'"):
        with_noise(np.zeros(10, int), 2, Noise("some", 0.2), 0)
    with pytest.raises(UserError, match="0 candidates"):
        with_noise(np.zeros(10, int), 2, Noise("one-sided", 0.3), 0)


def test_measures_are_counts_along_the_order():
    generator = np.random.default_rng(0)
    score, wrong = generator.random(50), np.arange(0, 50, 5)
    order, shares = np.argsort(-score), []
    for checked in range(51):
        shares.append(len(set(order[:checked]) & set(wrong)) / 10)
    assert area(score, wrong) == pytest.approx((np.array(shares[1:]) + shares[:-1]).mean() / 2)  # trapezes
    assert found_at(score, wrong, 0.2) == shares[10] and found_at(score, wrong, 1.0) == 1
    assert area(np.isin(np.arange(50), wrong).astype(float), wrong) == pytest.approx(1 - 0.2 / 2)


def test_nearest_neighbours_leave_the_point_itself_out():
    generator = np.random.default_rng(0)
    X = np.concatenate([generator.normal(0, 0.1, (30, 3)), generator.normal(5, 0.1, (30, 3))])
    y = np.repeat([0, 1], 30)
    y[4] = 1
    score = neighbours([Moment(X, y, np.ones((1, 3)))])
    assert score[4] == pytest.approx(1) and score[35:].max() == 0 and score.argmax() == 4


class Counted(Source):
    """A source that remembers which points its folds have trained on."""

    y, C, seen = np.repeat([0, 1], 20), 2, []

    def predict(self, labels, seed, rows, held):
        self.seen.append((set(rows), set(held)))
        return np.full((len(held), 2), 0.5)


def test_no_fold_has_seen_what_it_predicts():
    source = Counted()
    P = source.out_of_fold(source.y, 0, 5)
    assert (P == 0.5).all() and len(source.seen) == 5
    for rows, held in source.seen:
        assert not rows & held and rows | held == set(range(40)) and len(held) == 8


@pytest.mark.parametrize("name", ["wine", "cancer"])
def test_a_linear_head_is_scikit_learns_and_every_detector_judges_it(name):
    source = LinearHead(*HEADS[name]())
    noisy, wrong = with_noise(source.y, source.C, Noise("uniform", 0.2), 0)
    moments = source.train(noisy, 0)
    model = LogisticRegression(max_iter=2000).fit(source.X, noisy)
    clean = LogisticRegression(max_iter=2000).fit(source.X, source.y)
    np.testing.assert_allclose(source.clean, clean.predict_proba(source.X), atol=1e-4)
    found = all_scores(moments, source.out_of_fold(noisy, 0, 5), 0)
    assert set(found) == set(NAMES) - {WITHOUT}
    own = model.predict_proba(source.X)[np.arange(len(noisy)), noisy]
    np.testing.assert_allclose(found["cleanlab, in sample"].score, 1 - own, atol=1e-4)
    np.testing.assert_allclose(found["Loss"].score, -np.log(own), rtol=2e-3)
    areas = {detector: area(scored.score, wrong) for detector, scored in found.items()}
    assert areas["Noise model over the training"] > 0.85 and areas[FIVE_FOLDS] > 0.8
    assert [found[name].trainings for name in ("Loss", FIVE_FOLDS, "Random")] == [1, 5, 0]


@pytest.mark.parametrize(("name", "before"), [("CNN, digits", []), ("RNN, snippets", [0])])
def test_networks_train_on_the_noise_and_their_folds_on_a_part(name, before):
    options = Namespace(data_dir=None, vectors=None, device=torch.device("cpu"))
    options.size = {"num_of_samples": 24, "epochs": 2}
    source = SOURCES[name](options)
    noisy, _ = with_noise(source.y, 2, Noise("uniform", 0.2), 0)
    moments = source.train(noisy, 0)
    assert [moment.time for moment in moments][:-1] == [*before, 1] and len(noisy) == 24
    np.testing.assert_array_equal(moments[-1].labels, noisy)
    scores = all_scores(moments, None, 0)
    assert (WITHOUT in scores) == bool(before)
    if before:
        np.testing.assert_array_equal(scores[WITHOUT].score, all_scores(moments[1:], None, 0)[OURS].score)
    rows, held = np.arange(16), np.arange(16, 24)
    P = source.predict(noisy, 0, rows, held)
    assert P.shape == (8, 2) and np.allclose(P.sum(1), 1)
    other = noisy.copy()
    other[held] = 1 - other[held]  # what is held out has no part in the training
    np.testing.assert_array_equal(P, source.predict(other, 0, rows, held))
    other[rows] = 1 - other[rows]
    assert not np.allclose(P, source.predict(other, 0, rows, held))


def test_the_command_writes_its_table_and_goes_on(command, refused, tmp_path):
    arguments = ["--sources", "wine", "Xgboost", "--noises", "uniform 20%", "boundary 20%", "--seeds", 1]
    arguments += ["--path", tmp_path / "study", "--output", tmp_path]
    status, printed, errors = command(main, *arguments)
    assert status == 0 and "rows" in printed, errors
    path = tmp_path / "results" / "label_errors.csv"
    table = pd.read_csv(path)
    assert list(table.columns) == [name for name in COLUMNS if name != "seconds"] and len(table) == 4 * (len(NAMES) - 1)
    assert (table.groupby(["source", "noise"])["detector"].apply(list).map(set) == set(NAMES) - {WITHOUT}).all()
    assert table[table["detector"] == "Loss"]["area"].min() > 0.7
    assert (tmp_path / "figs" / "label_errors.png").exists()
    text = path.with_suffix(".md").read_text()
    assert "wine: 178 points, 13 features, 3 classes" in text and text.count("| Xgboost |") == 5  # and once as a column
    kept, first = sorted((tmp_path / "study").rglob("*.npz")), path.read_bytes()
    assert len(kept) == 4
    times = [file.stat().st_mtime_ns for file in kept]
    assert command(main, *arguments)[0] == 0 and path.read_bytes() == first
    assert [file.stat().st_mtime_ns for file in kept] == times
    read = Trained.load(kept[0])
    assert [read.moments[0].left_out is None for read in map(Trained.load, kept)] == [False, False, True, True]
    read.moments[0].features[0, 0] = np.nan  # what is judged is what was kept
    read.save(kept[0])
    assert "expected finite numbers" in refused(main, *arguments)
    np.savez(kept[0], rows=1)
    assert "delete that file" in refused(main, *arguments)


@pytest.mark.parametrize(
    "changed",
    [
        {"seconds": np.ones(3)},
        {"weight_1": np.ones((2, 3, 1))},
        {"weight_0": np.ones((2, 2))},
        {"bias_0": np.array([b"1", b"2"])},
        {"bias_1": None},
        {"labels": np.array([0, 1, 2, 1])},
        {"wrong": np.array([0, 4])},
        {"wrong": np.array([1, 1])},
        {"out_of_fold": np.full((4, 3), 0.3)},
        {"features_1": np.ones((3, 3))},
        {"times": np.zeros(0)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_trainings_whose_parts_do_not_fit_are_refused(changed, tmp_path):
    features, labels, weight = np.ones((4, 3)), np.array([0, 1, 0, 1]), np.ones((2, 3))
    moments = [Moment(features, labels, weight, np.zeros(2), time) for time in (1.0, 2.0)]
    path = tmp_path / "trained.npz"
    Trained(moments, np.array([1]), np.full((4, 2), 0.5), np.ones(2), "small").save(path)
    assert len(Trained.load(path).moments) == 2
    with np.load(path) as file:
        arrays = {**file, **changed}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match="delete that file"):
        Trained.load(path)
