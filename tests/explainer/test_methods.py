"""The file contracts of the official release, and what the arrays in those files mean."""

import numpy as np
import pytest
from reference import rps_lje_loop, saved_outputs

from config import UserError
from explainer import METHODS
from explainer.agreement import (
    best_explanations,
    distinct_explanations,
    overlap,
    quantile_table,
    top_k_correlations,
)
from explainer.weights import calculate, load_weights, save_weights, weights_path

SETTINGS = {"ours": {"lr": 1e-5}, "IF": {}, "rep": {"lmbd": 0.003, "epoch": 3000}}
SHAPES = {
    "ours": {"weight_matrix": (60, 1, 5), "self_influence": (60,)},
    "IF": {"weight_matrix": (60, 5, 1), "self_influence": (60, 1, 1), "jaccobian_test": (20, 1, 5)},
    "rep": {"weight_matrix": (60, 1)},
}
NAMES = {
    "ours": "ours_weight_matrix_with_lr_1e-05.npz",
    "IF": "influence_weight_matrix.npz",
    "rep": "representer_weight_matrix.npz",
}


def saved(folder, method, outputs, bias="ignore"):
    settings = SETTINGS[method]
    path = weights_path(folder, method, lr=settings.get("lr"))
    made = calculate(outputs, method, bias=bias, **settings)
    save_weights(path, made, bias=bias, outputs=outputs.fingerprint, **settings)
    return path, load_weights(folder, method, outputs, lr=settings.get("lr"))


@pytest.mark.parametrize("method", METHODS)
def test_files_have_the_official_names_keys_and_shapes(tmp_path, method):
    path, arrays = saved(tmp_path, method, saved_outputs())
    assert path == tmp_path / "calculated_weights" / NAMES[method]
    with np.load(path) as file:
        assert {key: file[key].shape for key in file.files if key != "settings"} == SHAPES[method]
    assert arrays["settings"] == {
        "bias": "ignore",
        "outputs": saved_outputs().fingerprint,
        **SETTINGS[method],
    }


@pytest.mark.parametrize("method", METHODS)
def test_files_of_the_official_release_are_read(tmp_path, method):
    path, arrays = saved(tmp_path, method, saved_outputs())
    del arrays["settings"]
    np.savez(path, **arrays)
    assert load_weights(tmp_path, method, saved_outputs(), lr=1e-5)["settings"] == {}


def test_settings_that_are_no_object_are_refused(tmp_path):
    path, arrays = saved(tmp_path, "IF", saved_outputs())
    for settings in ("3", "{"):
        np.savez(path, **{**arrays, "settings": np.array(settings)})
        with pytest.raises(UserError, match="has damaged settings: run python"):
            load_weights(tmp_path, "IF", saved_outputs())


def test_missing_weights_name_their_command(tmp_path):
    command = f"run python explainer/calculate_ours_weights.py --model CNN --saved_path {tmp_path} --lr 0.01"
    with pytest.raises(UserError, match=f"not found.*{command}"):
        load_weights(tmp_path, "ours", saved_outputs(), lr=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_other_types_shapes_and_ranges_are_refused(tmp_path, method):
    path, arrays = saved(tmp_path, method, saved_outputs())
    del arrays["settings"]
    for name, array in arrays.items():
        damaged = [
            array[..., None],
            array.astype(str),
            array.astype(complex),
            np.where(array == array[0], np.nan, array),
        ]
        damaged += [array[:-1]] + [array.take(range(4), axis) for axis, size in enumerate(array.shape) if size == 5]
        for other in damaged:
            np.savez(path, **{**arrays, name: other})
            with pytest.raises(UserError, match=f"{name}.*(expected|another length).*: remake"):
                load_weights(tmp_path, method, saved_outputs(), 1e-5, "remake")


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_another_model_are_refused(tmp_path, method):
    saved(tmp_path, method, saved_outputs())
    with pytest.raises(UserError, match="was made from other saved outputs"):
        load_weights(tmp_path, method, saved_outputs(seed=1), lr=1e-5)
    with pytest.raises(UserError, match="of another length than 50 training points"):
        load_weights(tmp_path, method, saved_outputs(n=50), lr=1e-5)


def test_importance_is_each_equation_for_one_pair_of_points(tmp_path):
    outputs = saved_outputs()
    F, f_t = outputs.intermediate_train, outputs.intermediate_test
    for t in (0, 1, 2, 3):
        sign = 1 if outputs.labels_test[t] == 1 else -1
        arrays = {method: saved(tmp_path, method, outputs)[1] for method in METHODS}
        W = rps_lje_loop(*(a.astype(float) for a in (F, outputs.labels_train, outputs.weight[0])), lr=1e-5)
        p_t = 1 / (1 + np.exp(-f_t[t] @ outputs.weight[0]))
        expected = {
            "ours": sign * W[7] @ f_t[t],
            "IF": -(p_t - outputs.labels_test[t]) * f_t[t] @ arrays["IF"]["weight_matrix"][7, :, 0],
            "rep": sign * arrays["rep"]["weight_matrix"][7, 0] * F[7] @ f_t[t],
        }
        for method, value in expected.items():
            importance = METHODS[method].importance(arrays[method], outputs, [t])
            assert importance.shape == (60, 1)
            np.testing.assert_allclose(importance[7, 0], value, rtol=1e-4)


def test_appending_the_bias_is_a_constant_feature(tmp_path):
    plain, bias = saved_outputs(), np.array([0.7], np.float32)
    ones = {}
    for name, n in (("intermediate_train", 60), ("intermediate_test", 20)):
        ones[name] = np.hstack([getattr(plain, name), np.ones((n, 1), np.float32)])
    explicit = saved_outputs(**ones, weight=np.append(plain.weight, bias)[None])
    for method in METHODS:
        appended = saved(tmp_path / "a", method, saved_outputs(bias=bias), bias="append")[1]
        by_hand = saved(tmp_path / "b", method, explicit)[1]
        np.testing.assert_allclose(appended["weight_matrix"], by_hand["weight_matrix"], rtol=1e-5)
        a = METHODS[method].importance(appended, saved_outputs(bias=bias), [3])
        np.testing.assert_allclose(a, METHODS[method].importance(by_hand, explicit, [3]), rtol=1e-4, atol=1e-9)


def test_a_bias_that_is_not_there_cannot_be_appended():
    with pytest.raises(UserError, match="hold no bias"):
        calculate(saved_outputs(), "IF", bias="append")


def test_correlations_on_the_union_of_the_best():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 50, 4))
    found = top_k_correlations(a, b)
    union = sorted(set(np.argsort(-a[:, 2])[:5]) | set(np.argsort(-b[:, 2])[:5]))
    assert found["Pearson"][2] == pytest.approx(np.corrcoef(a[union, 2], b[union, 2])[0, 1])
    assert (top_k_correlations(a, 3 * a + 1).to_numpy() > 1 - 1e-12).all()
    table = quantile_table("RNN", {"ours": found})
    assert table.loc[0.5, ("Spearman", "published")] == 1
    assert table.loc[0.5, ("Pearson", "ours")] == sorted(found["Pearson"])[1]


def test_best_explanations_are_the_largest_importances():
    importance = np.random.default_rng(1).normal(size=(30, 6))
    expected = np.argsort(-importance, axis=0)[:4]
    np.testing.assert_array_equal(best_explanations(importance, 4), expected)


def test_distinct_explanations_are_counted_by_class():
    best = np.array([[1, 2, 3, 7, 7], [2, 1, 4, 8, 8]])  # 2 best of 5 test points
    table = distinct_explanations(best, np.array([0, 0, 0, 1, 1]))
    assert table["different sets"].tolist() == [2, 1] and table["test points"].tolist() == [3, 2]
    np.testing.assert_allclose(table["most frequent"], [2 / 3, 1])


def test_overlap_is_the_shared_part_over_pairs_of_settings():
    a, b, c = np.array([[1, 2], [3, 4]]), np.array([[3, 2], [1, 9]]), np.array([[5, 6], [7, 8]])
    assert overlap([a, a]) == 1 and overlap([a, c]) == 0
    assert overlap([a, b, c]) == pytest.approx((0.75 + 0 + 0) / 3)  # test point 0 shares both, 1 shares one of two
