"""Sweeps over methods: kept trainings, the table and the figure, refusals."""

import json

import pandas as pd
import pytest

from models.CDEP import experiment
from models.files import load_json

QUICK = "--dataset decoydigits --seeds 2 --best --epochs 1 --methods none cdep".split()


def test_a_sweep_keeps_its_trainings_and_writes_its_table(command, tmp_path):
    status, printed, _ = command(experiment.main, *QUICK)
    assert status == 0 and "| CDEP, l1, Shapley | 10 |" in printed
    table = pd.read_csv(tmp_path / "models/CDEP/results/decoydigits_1_epochs_best.csv")
    assert len(table) == 8 and set(table["label"]) == {"none", "CDEP, softmax", "CDEP, l1", "CDEP, l1, Shapley"}
    assert (tmp_path / "models/CDEP/results/decoydigits_1_epochs_best.png").exists()
    kept = sorted((tmp_path / "models/CDEP/saved_models/experiment_decoydigits_1_epochs").glob("*/result.json"))
    assert len(kept) == 8
    marked = load_json(kept[0], "") | {"test_accuracy": 0.125}
    kept[0].write_text(json.dumps(marked))
    status, printed, _ = command(experiment.main, *QUICK)
    again = pd.read_csv(tmp_path / "models/CDEP/results/decoydigits_1_epochs_best.csv")
    assert (again["test_accuracy"] == 0.125).sum() == 1, "a training that is there is not made again"
    mean = again[again["label"] == "none"]["test_accuracy"].mean()
    assert f"| none | 0 | {mean:.3f} ±" in printed


def test_a_folder_of_other_settings_is_refused(command, refused, tmp_path):
    command(experiment.main, *QUICK)
    kept = sorted((tmp_path / "models/CDEP/saved_models/experiment_decoydigits_1_epochs").glob("*/result.json"))[0]
    result = load_json(kept, "")
    kept.write_text(json.dumps(result | {"lr": 0.5}))
    assert "was made with lr 0.5, now 0.001: delete that folder" in refused(experiment.main, *QUICK)
    kept.write_text(json.dumps(result | {"data": "other"}))
    assert "was made with data other, now" in refused(experiment.main, *QUICK)
    kept.write_text(json.dumps({name: value for name, value in result.items() if name != "test_accuracy"}))
    assert "lacks some of tests, test_accuracy" in refused(experiment.main, *QUICK)
    kept.write_text(json.dumps(result | {"train_accuracy": float("nan")}))
    assert "lacks some of tests, test_accuracy" in refused(experiment.main, *QUICK)


def test_some_methods_are_enough_and_go_where_they_are_told(command, tmp_path):
    arguments = "--dataset decoydigits --seeds 1 --epochs 1 --methods rrr --output".split()
    assert command(experiment.main, *arguments, tmp_path / "mine")[0] == 0
    text = (tmp_path / "mine" / "decoydigits_1_epochs.md").read_text()
    assert "--epochs 1 --methods rrr`" in text and text.count("| RRR |") == 3
    assert (tmp_path / "mine" / "decoydigits_1_epochs.png").exists()


@pytest.mark.parametrize("dataset", experiment.SWEEPS)
def test_every_sweep_has_its_best_lambda_among_them(dataset):
    sweep, common = experiment.SWEEPS[dataset]
    for settings, lambdas, best in sweep.values():
        assert best in lambdas and experiment.Settings(**settings, **common)
