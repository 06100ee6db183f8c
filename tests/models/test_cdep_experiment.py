"""Sweeps over methods: kept trainings, the table and the figure, refusals."""

import json

import pandas as pd
import pytest

from models.CDEP import experiment

QUICK = "--dataset decoydigits --seeds 2 --best --epochs 1 --methods none cdep".split()


def test_a_sweep_keeps_its_trainings_and_writes_its_table(command, tmp_path):
    status, printed, _ = command(experiment.main, *QUICK)
    assert status == 0 and "| CDEP, l1, Shapley | 10 |" in printed
    table = pd.read_csv(tmp_path / "models/CDEP/results/decoydigits_best.csv")
    assert len(table) == 8 and set(table["label"]) == {"none", "CDEP, softmax", "CDEP, l1", "CDEP, l1, Shapley"}
    assert (tmp_path / "models/CDEP/results/decoydigits_best.png").exists()
    kept = sorted((tmp_path / "models/CDEP/saved_models/experiment_decoydigits").glob("*/result.json"))
    assert len(kept) == 8
    marked = json.loads(kept[0].read_text()) | {"test_accuracy": 0.125}
    kept[0].write_text(json.dumps(marked))
    status, printed, _ = command(experiment.main, *QUICK)
    again = pd.read_csv(tmp_path / "models/CDEP/results/decoydigits_best.csv")
    assert (again["test_accuracy"] == 0.125).sum() == 1, "a training that is there is not made again"
    mean = again[again["label"] == "none"]["test_accuracy"].mean()
    assert f"| none | 0 | {mean:.3f} ±" in printed


def test_a_folder_of_other_settings_is_refused(command, refused):
    command(experiment.main, *QUICK)
    said = refused(experiment.main, *[word if word != "1" else "2" for word in QUICK])
    assert "was made with epochs 1, now 2: delete that folder" in said


@pytest.mark.parametrize("dataset", experiment.SWEEPS)
def test_every_sweep_has_its_best_lambda_among_them(dataset):
    sweep, common = experiment.SWEEPS[dataset]
    for settings, lambdas, best in sweep.values():
        assert best in lambdas and experiment.Settings(**settings, **common)
