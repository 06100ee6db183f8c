"""Arrays, memmaps and shards; files of scores; approximate search; bad arrays and questions."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_attribution import Problem

from explainer.attribution import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, Solver, TracIn
from explainer.attribution.rows import Rows

METHODS = [RPSLJE, RPSL2, InfluenceFunction]


def scores(explainer, test, **more):
    return np.concatenate(list(explainer.influence(test, **more)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sources_of_any_kind_and_blocks_of_any_size_give_the_same(method, dtype, tmp_path):
    problem = Problem("multiclass", 3, n=101)
    F, F_test = (f.numpy().astype(dtype) for f in (problem.F, problem.F_test))
    rest = problem.y.numpy(), problem.weight.numpy(), problem.bias.numpy()
    np.save(tmp_path / "features.npy", F)
    (tmp_path / "shards").mkdir()
    for number, part in enumerate(np.split(F, [7, 7, 60])):
        np.save(tmp_path / "shards" / f"{number}.npy", part)
    whole = method.from_arrays(torch.from_numpy(F), *rest)
    expected = whole.self_influence(), scores(whole, F_test, target=1), whole.top_k(F_test, 4).indices
    sources = [
        F,
        np.load(tmp_path / "features.npy", mmap_mode="r"),
        tmp_path / "features.npy",
        str(tmp_path / "shards"),
    ]
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    for source in sources:
        for memory_limit in (500, 5000, 2**28):
            explainer = method.from_arrays(source, *rest, memory_limit=memory_limit)
            np.testing.assert_allclose(explainer.self_influence(), expected[0], rtol=tolerance, atol=tolerance * 1e-2)
            found = scores(explainer, F_test, target=1)
            np.testing.assert_allclose(found, expected[1], rtol=10 * tolerance, atol=tolerance * 1e-2)
            np.testing.assert_array_equal(explainer.top_k(F_test, 4).indices, expected[2])


def test_scores_are_written_to_a_file_of_numpy(tmp_path):
    problem = Problem("binary", 1)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, memory_limit=2000)
    written = explainer.influence(problem.F_test, out=tmp_path / "scores.npy")
    np.testing.assert_allclose(written, scores(explainer, problem.F_test), rtol=1e-6)
    assert isinstance(written, np.memmap) and written.dtype == np.float32
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), written)


def arrays(**changes):
    problem = Problem("multiclass", 3)
    given = {"features": problem.F, "labels": problem.y, "weight": problem.weight, "bias": problem.bias, **changes}
    return given


NAN = Problem("multiclass", 3).F.clone()


NAN[13, 2] = float("nan")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": NAN}, "the features of row 13 are not finite: mend or leave out that point"),
        ({"features": torch.zeros(0, 4)}, "got 0 rows of features: give at least one"),
        ({"features": torch.zeros(60, 4).long()}, "features are torch.int64: give float32 or float64"),
        ({"features": torch.zeros(60)}, r"features has the shape \(60,\): give rows"),
        ({"features": torch.zeros(60, 5)}, "the features have 5 columns and the head 4"),
        ({"features": "absent.npy"}, "cannot read absent.npy"),
        ({"labels": torch.zeros(59)}, "got 60 rows of features and 59 labels: give as many of each"),
        ({"labels": torch.zeros(60)}, "every label is 0.0: give points of two classes at least"),
        ({"labels": torch.arange(60)}, "the label of row 3 is 3: give whole numbers from 0 to 2"),
        ({"labels": torch.full((60,), 0.5)}, "the label of row 0 is 0.5: give whole numbers from 0 to 2"),
        ({"labels": torch.full((60, 3), 2)}, "the label of row 0 is .*: give 0 and 1"),
        ({"weight": torch.zeros(3, 4, 1)}, r"the head's weight has the shape \(3, 4, 1\)"),
        ({"weight": torch.full((3, 4), float("inf"))}, "holds numbers that are not finite: train the model again"),
        ({"bias": torch.zeros(2)}, "the head has 3 logits and 2 biases"),
        ({"head": "binary"}, "head binary with 3 logits"),
        ({"head": "linear"}, "head is 'linear': give one of binary"),
        ({"lr": 0}, "lr is 0: give a number above 0"),
        ({"decay": -1}, "decay is -1: give a number from 0 up"),
        ({"lmbd": 1}, "RPSLJE has no option 'lmbd': give some of"),
        ({"labels": torch.eye(3)[torch.arange(60) % 3]}, "the labels look one-hot: give class numbers"),
    ],
)
def test_bad_arrays(changes, said):
    with pytest.raises(ValueError, match=said):
        RPSLJE.from_arrays(**arrays(**changes))


def test_shards_of_unequal_width_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no .npy files"):
        RPSLJE.from_arrays(**arrays(features=tmp_path))
    np.save(tmp_path / "0.npy", np.zeros((30, 4)))
    np.save(tmp_path / "1.npy", np.zeros((30, 3)))
    with pytest.raises(ValueError, match="1.npy has 3 features, 0.npy has 4: make every shard of one width"):
        RPSLJE.from_arrays(**arrays(features=tmp_path))


def test_bad_questions(tmp_path):
    problem = Problem("multiclass", 3)
    explainer = RPSLJE.from_arrays(*problem.arrays)
    for call, said in (
        (lambda: explainer.top_k(problem.F_test, 61), "k is 61: give a whole number from 1 to 60"),
        (lambda: explainer.top_k(problem.F_test, 0), "k is 0"),
        (lambda: explainer.top_k(problem.F_test, 3.0), "k is 3.0"),
        (lambda: explainer.top_k(problem.F_test, order="up"), "order is 'up': give descending or ascending"),
        (lambda: explainer.top_k(problem.F_test, target="best"), "target is 'best': give predicted, label, or classes"),
        (lambda: explainer.top_k(problem.F_test, target="label"), "the test points have none"),
        (lambda: explainer.top_k(problem.F_test, target=3), "target: give a class from 0 to 2"),
        (lambda: explainer.top_k(problem.F_test, target=[0, 1]), "for each of 7 test points"),
        (lambda: explainer.top_k(problem.F_test, search="magic"), "search is 'magic': give exact or faiss"),
        (
            lambda: explainer.top_k(problem.F_test, search="faiss", search_settings={"cells": 3}),
            "give lists and probes",
        ),
        (lambda: explainer.top_k(problem.F_test, search="faiss", search_settings={"lists": 99}), "lists is 99: give a"),
        (lambda: explainer.top_k((problem.F_test, [1]), target="label"), "got 7 test points and 1 labels"),
        (lambda: explainer.top_k(problem.F_test, search="faiss", search_settings=[1]), "search_settings is"),
        (lambda: explainer.influence(problem.F_test, out=5), "out is 5: give a path"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect(range(60), problem.F_test), "all 60 training"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect("a", problem.F_test), "indices: got str"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect([1], problem.F_test, True), "order is True"),
        (lambda: TracIn.from_arrays(*problem.arrays, learning_rates=np.inf), "one above 0 for each"),
        (lambda: TracIn.from_arrays([problem.F] * 2, problem.y, [problem.weight] * 2, [problem.bias, None]), "shapes"),
        (lambda: explainer.top_k(NAN[:20]), "the features of test point 13 are not finite"),
        (lambda: explainer.top_k([(problem.F_test, None)]), "was made from arrays: give features"),
        (lambda: RPSL2.from_arrays(*problem.arrays, lmbd=-1), "lmbd is -1: give a number above 0"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect([60], problem.F_test), "from 0 to 59"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect([1], problem.F_test, 0), "order is 0: give 1, 2"),
        (lambda: TracIn.from_arrays(*problem.arrays, learning_rates=[1, 2]), "one above 0 for each of 1 checkpoints"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_an_approximate_search_says_how_much_it_finds():
    pytest.importorskip("faiss", reason="faiss is an optional package: pip install faiss-cpu")
    problem = Problem("multiclass", 3, n=2000, d=8, m=50)
    for method in METHODS:
        explainer = method.from_arrays(*problem.arrays)
        for order in ("descending", "ascending"):
            exact = explainer.top_k(problem.F_test, 5, order=order)
            all_cells = explainer.top_k(
                problem.F_test, 5, order=order, search="faiss", search_settings={"lists": 8, "probes": 8}
            )
            assert exact.recall is None and all_cells.recall > 0.99
            np.testing.assert_allclose(all_cells.values, exact.values, rtol=1e-3, atol=1e-5)
            few = explainer.top_k(
                problem.F_test, 5, order=order, search="faiss", search_settings={"lists": 40, "probes": 1}
            )
            found = (exact.indices[:, :, None] == few.indices[:, None, :]).any(2).mean()
            assert few.recall == pytest.approx(found) and few.recall < 1


@pytest.mark.parametrize("method", [*METHODS, GroupInfluence])
def test_what_is_given_is_never_changed(method):
    problem = Problem("multiclass", 3)
    before = [array.clone() for array in (*problem.arrays, problem.F_test)]
    explainer = method.from_arrays(*problem.arrays)
    explainer.self_influence(), explainer.top_k(problem.F_test, 5, order="ascending")
    list(explainer.influence(problem.F_test))
    assert all(torch.equal(a, b) for a, b in zip(before, (*problem.arrays, problem.F_test)))


def test_what_was_written_into_a_private_memmap_stays(tmp_path):
    problem = Problem("binary", 1)
    np.save(tmp_path / "features.npy", problem.F.numpy())
    mapped = np.load(tmp_path / "features.npy", mmap_mode="c")
    mapped[:, 0] = 7
    InfluenceFunction.from_arrays(mapped, *problem.arrays[1:], memory_limit=1000, damping=0.1)
    assert (mapped[:, 0] == 7).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": np.array(["a", "b"] * 30)}, "labels: got ndarray of <U1; give real numbers"),
        ({"labels": 1}, "got one label: give one for each point"),
        ({"features": np.zeros((60, 4), np.longdouble)}, "features: got ndarray of float128; give real"),
        ({"features": torch.eye(60).to_sparse()}, "features: got Tensor, sparse; give an array"),
        ({"features": [[1.0, 2.0], [1.0]]}, "features: got list of parts that differ in shape"),
        ({"features": np.ma.masked_less(np.eye(60, 4), 0)}, "features: got a masked array"),
        ({"weight": torch.zeros(3, 4, dtype=torch.complex64)}, "the head's weight: got Tensor, complex numbers"),
        (
            {"bias": torch.full((3,), torch.nan), "intercept": False},
            "the head's bias holds numbers that are not finite",
        ),
        ({"labels": torch.full((60, 3), 1 / 3)}, "the labels look like shares of the classes: give class numbers"),
        ({"intercept": None}, "intercept is None: give True or False"),
        ({"decay_intercept": "no"}, "decay_intercept is 'no': give True or False"),
        ({"device": "meta"}, "device is meta, which holds no numbers"),
        ({"solver": Solver}, "solver is <class .*: give one of auto"),
        ({"solver_settings": [1]}, r"solver_settings is \[1\]: give a dictionary"),
        ({"weight": None}, "the head's weight: got NoneType"),
        ({"decay": "much"}, "decay is 'much': give a number from 0 up"),
        ({"lr": float("nan")}, "lr is nan: give a number above 0"),
        ({"memory_limit": 0}, "memory_limit is 0: give a number above 0"),
        ({"seed": -1}, "seed is -1: give a whole number from 0 up"),
        ({"device": "moon"}, "device is 'moon' .*: give cpu"),
        ({"precision": "float32"}, "precision is 'float32': give torch.float32"),
        ({"solver": "cg", "solver_settings": {"depth": 3}}, r"solver_settings of cg: got \['depth'\]; give some of"),
    ],
)
def test_bad_types(options, said):
    with pytest.raises(ValueError, match=said):
        RPSLJE.from_arrays(**arrays(**options))


def test_frames_lists_and_foreign_bytes_are_read_as_the_numbers_they_hold():
    F, y, weight, bias = (x.numpy() for x in Problem("multiclass", 3).arrays)
    expected = RPSLJE.from_arrays(F, y, weight, bias).self_influence()
    for given in (
        (pd.DataFrame(F), pd.Series(y, index=np.arange(60) + 7), pd.DataFrame(weight), bias),
        (F.tolist(), y.tolist(), weight.tolist(), bias.tolist()),
        (F.astype(">f8"), y.astype(">i4"), weight.astype(">f8"), bias),
        (F, y.astype(np.uint16), weight, bias),
    ):
        np.testing.assert_allclose(RPSLJE.from_arrays(*given).self_influence(), expected, rtol=1e-6, atol=1e-9)


def test_lists_and_whole_numbers_are_test_points_as_well():
    problem = Problem("multiclass", 3)
    explainer = RPSLJE.from_arrays(*problem.arrays)
    whole = problem.F_test.round()
    expected = explainer.top_k(whole, 3)
    for given in (whole.tolist(), whole.long(), whole.long().numpy()):
        np.testing.assert_array_equal(explainer.top_k(given, 3).indices, expected.indices)


def test_scores_beyond_float32_are_no_explanation():
    problem = Problem("binary", 1)
    F = problem.F.float() * 1e19
    explainer = TracIn.from_arrays(F, problem.y, problem.weight / 1e19)
    with pytest.raises(ValueError, match="scores overflow float32: scale the features, or give precision"):
        explainer.top_k(F[:3] * 1e19, target=[0, 1, 0])


def test_labels_are_kept_as_they_were_given():
    problem = Problem("binary", 1)
    explainer = InfluenceFunction.from_arrays(*problem.arrays)
    before = explainer.self_influence()
    problem.y.fill_(0)
    np.testing.assert_array_equal(explainer.self_influence(), before)
    for target, said in ((None, "target is None"), (["a"] * 7, "target: got list of <U1; give real numbers")):
        with pytest.raises(ValueError, match=said):
            explainer.top_k(problem.F_test, target=target)


def test_rows_are_taken_in_the_order_asked_for_from_every_shard(tmp_path):
    F = Problem("binary", 1).F
    for number, part in enumerate(F.split(17)):
        np.save(tmp_path / f"{number}.npy", part.numpy())
    wanted = [59, 3, 17, 16, 3, 40]
    for source in (F, F.numpy(), tmp_path):
        taken = Rows(source, bias=True).take(wanted)
        torch.testing.assert_close(taken, torch.cat([F[wanted], torch.ones(6, 1, dtype=F.dtype)], 1))
    assert Rows(F).take([]).shape == (0, 4)
