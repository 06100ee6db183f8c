"""Explanations at any settings, and importances for test points that were not saved."""

import dataclasses

import numpy as np
import pytest
from reference import saved_outputs

from explainer import METHODS
from explainer.agreement import best_explanations
from explainer.explanations import Explanations
from explainer.weights import calculate

SETTINGS = {"ours": {"lr": 0.01}, "IF": {}, "rep": {"lmbd": 0.003, "epoch": 3000}}


def test_weights_are_those_of_the_settings_asked_for():
    study = Explanations(saved_outputs(), SETTINGS)
    for lr, found in ((0.01, study.weights("ours")), (5.0, study.weights("ours", lr=5.0))):
        expected = calculate(study.outputs, "ours", lr=lr).arrays["weight_matrix"]
        np.testing.assert_array_equal(found["weight_matrix"], expected)
    small = study.weights("rep", lmbd=1e-4)
    assert small["settings"] == {"lmbd": 1e-4, "epoch": 3000} and small is study.weights("rep", lmbd=1e-4)
    assert study.weights("rep")["settings"] == SETTINGS["rep"]
    damped, cut = study.weights("ours", damping=0.1), study.weights("ours", rcond=0.1)  # the same value
    assert (damped["weight_matrix"] != cut["weight_matrix"]).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bias", ["ignore", "append"])
def test_new_test_points_are_treated_as_the_saved_ones(method, bias):
    outputs = saved_outputs(bias=np.array([0.7], np.float32))
    study = Explanations(outputs, {method: {**SETTINGS[method], "bias": bias}})
    rows = np.array([3, 11, 4])
    new = outputs.intermediate_test[rows], outputs.labels_test[rows]
    none = dataclasses.replace(outputs, intermediate_test=outputs.intermediate_test[:0], labels_test=np.zeros(0, int))
    found = METHODS[method].importance_of(study.weights(method), none, *new)
    np.testing.assert_allclose(found, study.importance(method, rows), rtol=1e-5, atol=1e-9)


def test_claims_count_sets_and_overlaps():
    study = Explanations(saved_outputs(), SETTINGS)
    table = study.claims(("no", "yes"), {"ours": ("lr", (0.01, 0.01)), "rep": ("lmbd", (1e-4, 10.0))}, k=2)
    for key, method in METHODS.items():
        tests = np.flatnonzero(study.outputs.labels_test == 1)
        sets = [tuple(sorted(best_explanations(study.importance(key, [t]), 2)[:, 0])) for t in tests]
        assert table.loc[method.label, "different sets, yes"] == f"{len(set(sets))} of {len(tests)}"
        share = max(map(sets.count, sets)) / len(sets)
        assert table.loc[method.label, "most frequent, yes"] == f"{share:.3f}"
    assert list(table["overlap over settings"])[:2] == ["1.000", "no setting"]
    assert 0 <= float(table.loc["RPS-l2", "overlap over settings"]) < 1
