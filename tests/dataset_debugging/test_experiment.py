"""The engine, on the XGBoost experiment at the smallest scale: contracts, resuming after a kill, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from config import seed
from dataset_debugging import accuracies, experiment, runs, stages
from dataset_debugging.accuracies import refit_seed
from dataset_debugging.experiment_dataset_debugging_Xgboost import EXPERIMENT, German
from explainer.label_errors import left_out_margins
from models.Xgboost import trees

SCRIPT = Path(experiment.__file__).with_name("experiment_dataset_debugging_Xgboost.py")
SMALL = ["--num_of_run", "1", "--average_over_runs", "1", "--methods", "ours", "random"]


def arrays(folder):
    """Every array of a run, by file and key."""
    found = {}
    for path in sorted(folder.rglob("*.np[yz]")):
        loaded = np.load(path)
        for key in loaded.files if path.suffix == ".npz" else [""]:
            found[f"{path.relative_to(folder)}:{key}"] = loaded[key] if key else loaded
    return found


def start(path, *more):
    command = [sys.executable, str(SCRIPT), *SMALL, "--path", str(path), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted")
    process = start(path)
    assert "1 run done until accuracies" in process.communicate(timeout=200)[0]
    return path


def test_files_are_those_of_the_contract(uninterrupted):
    run = uninterrupted / "0"
    order = np.load(run / "orders" / "order_ours.npz")
    assert sorted(order["order"]) == list(range(1118)) and order["fraction_fixed"].shape == (20,)
    flips = np.load(run / "orders" / "random_flipping_order.npy")
    np.testing.assert_array_equal(flips, np.random.RandomState(seed("flip", 0)).permutation(1118))
    assert np.load(run / "accuracies" / "accuracies_ours.npy").shape == (20,)
    assert (run / "calculated_weights" / "ours_weight_matrix_with_lr_1e-05.npz").exists()
    assert (run / "DONE").exists() and not list(run.rglob(".*"))
    noted = json.loads((run / "run.json").read_text())
    assert noted["arguments"]["flip_portion"] == 0.3 and noted["seeds"]["train"] == seed("train", 0)
    assert set(noted["seconds"]) == {"train", "weights", "orders", "accuracies"} and "xgboost" in noted["packages"]


def test_labels_are_flipped_and_accuracies_are_refits(uninterrupted):
    run, data = uninterrupted / "0", trees_data()
    flipped = np.load(run / "orders" / "random_flipping_order.npy")[:335]
    labels = np.load(run / "model" / "saved_outputs.npz")["labels_train"]
    np.testing.assert_array_equal(np.flatnonzero(labels != data.y_train), np.sort(flipped))
    order = np.load(run / "orders" / "order_ours.npz")["order"]
    y = data.y_train.copy()
    wrong = [i for i in flipped if i not in set(order[: int(0.35 * 1118)])]
    y[wrong] = 1 - y[wrong]
    booster = trees.fit(data.X_train, y, refit_seed(0, 7, 0))
    expected = trees.accuracy(trees.predict(booster, data.X_test), data.y_test)
    assert np.load(run / "accuracies" / "accuracies_ours.npy")[6] == expected


def test_a_repair_corrects_what_the_noise_model_proposes(tmp_path):
    process = start(tmp_path, "--methods", "noise", "repair")
    printed = process.communicate(timeout=200)[0]
    assert process.returncode == 0, printed
    run, data = tmp_path / "0", trees_data()
    noise, repair = (dict(np.load(run / "orders" / f"order_{key}.npz")) for key in ("noise", "repair"))
    np.testing.assert_array_equal(noise["order"], repair["order"])
    assert noise["fraction_fixed"][5] > 0.5  # chance: 0.3
    flipped = np.load(run / "orders" / "random_flipping_order.npy")[:335]
    y = data.y_train.copy()
    y[flipped] = 1 - y[flipped]
    outputs = np.load(run / "model" / "saved_outputs.npz")
    np.testing.assert_array_equal(outputs["labels_train"], y)
    booster = trees.load_booster(run / "model" / "xgb.ubj", "")
    without = left_out_margins(booster, data.X_train, y)[:, 0]
    assert np.corrcoef(repair["changed"], (without > 0) != y)[0, 1] > 0.5  # the trees' own doubts
    checked = repair["order"][: 1118 * 4 // 20]
    rows = checked[repair["changed"][checked]]
    assert repair["fraction_fixed"][3] == np.isin(flipped, rows).mean()
    y[rows] = 1 - y[rows]
    fitted = trees.fit(data.X_train, y, refit_seed(0, 4, 0))
    expected = trees.accuracy(trees.predict(fitted, data.X_test), data.y_test)
    assert np.load(run / "accuracies" / "accuracies_repair.npy")[3] == expected


def trees_data():
    from models.Xgboost.utils_german import load

    return load()


def test_killed_three_times_it_comes_to_the_same_arrays(uninterrupted, tmp_path):
    """SIGKILL while it trains, and twice among the refits."""
    refits = tmp_path / "0" / "accuracies" / "refits_ours.npy"
    moments = [
        lambda: (tmp_path / "0" / "run.json").exists(),
        lambda: refits.exists(),
        lambda: np.isfinite(np.load(refits)).sum() > 8 if refits.exists() else False,
    ]
    for there in moments:
        process = start(tmp_path)
        while not there() and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "0" / "DONE").exists()
    process = start(tmp_path)
    assert "1 run done" in process.communicate(timeout=200)[0]
    resumed, whole = arrays(tmp_path / "0"), arrays(uninterrupted / "0")
    assert resumed.keys() == whole.keys()
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    assert not list(tmp_path.rglob(".*.tmp*"))


def main():
    experiment._run_all(EXPERIMENT, *experiment._parse(EXPERIMENT, str(SCRIPT)))


def test_stages_then_more_methods_then_other_jobs(command, tmp_path, uninterrupted):
    arguments = [*SMALL[:4], "--path", tmp_path]
    assert command(main, *arguments, "--methods", "ours", "--until", "orders")[0] == 0
    run = tmp_path / "0"
    assert (run / "orders" / "order_ours.npz").exists() and not (run / "accuracies").exists()
    assert not (run / "DONE").exists()
    assert command(main, *arguments, "--methods", "random", "rep", "--until", "orders")[0] == 0
    assert {p.name for p in (run / "orders").glob("order*")} == {"order_ours.npz", "order_random.npz", "order_rep.npz"}
    assert command(main, *arguments, "--methods", "ours", "--jobs", "1")[0] == 0
    name = "accuracies/accuracies_ours.npy"
    np.testing.assert_array_equal(np.load(run / name), np.load(uninterrupted / "0" / name))


def test_a_run_is_done_when_everything_is_over_that_was_asked_of_it(command, tmp_path, monkeypatch):
    arguments, run, seen = [*SMALL[:4], "--path", tmp_path, "--methods"], tmp_path / "0", []
    monkeypatch.setattr(stages, "record_accuracies", lambda *_: seen.append((run / "DONE").exists()))
    monkeypatch.setattr(stages.Run, "_skip", lambda *_: None)
    assert command(main, *arguments, "ours")[0] == 0
    assert seen == [False] and (run / "DONE").exists()
    real, before = stages.order_by_suspicion, (run / "run.json").read_bytes()
    assert command(main, *arguments, "ours", "--until", "orders")[0] == 0
    assert (run / "run.json").read_bytes() == before  # nothing was done
    monkeypatch.setattr(runs, "version", lambda name: "9.9")
    monkeypatch.setattr(stages, "order_by_suspicion", lambda score: seen.append((run / "DONE").exists()) or real(score))
    assert command(main, *arguments, "IF", "--until", "orders")[0] == 0
    assert seen[1:] == [False] and (run / "DONE").exists()
    packages = json.loads((run / "run.json").read_text())["packages"]
    assert packages["numpy"] == f"{np.__version__} and 9.9"


def test_a_seed_fixes_the_flips_of_all_runs_in_a_folder_of_their_own(command, tmp_path):
    arguments = ["--num_of_run", 2, "--path", tmp_path / "runs", "--until", "train", "--seed", 11]
    assert command(main, *arguments)[0] == 0
    runs = [tmp_path / "runs_fixed_random_split" / str(i) for i in range(2)]
    flips = [np.load(run / "orders" / "random_flipping_order.npy") for run in runs]
    for order in flips:
        np.testing.assert_array_equal(order, np.random.RandomState(11).permutation(1118))
    boosters = [(run / "model" / "xgb.ubj").read_bytes() for run in runs]
    assert boosters[0] != boosters[1]  # the training seed still varies


def test_folders_that_are_no_runs_are_left_out_of_the_results(command, tmp_path):
    arguments = [*SMALL, "--path", tmp_path, "--until", "orders"]
    assert command(main, *arguments)[0] == 0
    shutil.copytree(tmp_path / "0", tmp_path / "0.bak")
    assert command(main, *arguments)[0] == 0
    assert (tmp_path / "label_flips.png").exists()


def test_nothing_flipped_runs(command, tmp_path):
    assert command(main, *SMALL, "--path", tmp_path, "--flip_portion", 0, "--until", "orders")[0] == 0


def test_an_error_in_a_refit_ends_the_run_and_keeps_the_others(tmp_path, command, monkeypatch):
    calls = []

    def refit(self, flipped, seed, checkpoint):
        calls.append(seed)
        if len(calls) == 5:
            raise MemoryError("no memory")
        return 0.5

    monkeypatch.setattr(German, "refit", refit)
    with pytest.raises(MemoryError):
        command(main, *SMALL, "--path", tmp_path, "--jobs", 1)
    kept = np.isfinite(np.load(tmp_path / "0" / "accuracies" / "refits_ours.npy")).sum()
    assert kept >= 4 and not (tmp_path / "0" / "accuracies" / "accuracies_ours.npy").exists()


def test_refits_differ_between_repeats_and_agree_between_methods():
    numbers = [refit_seed(run, c, r) for run in range(3) for c in range(1, 21) for r in range(5)]
    assert len(set(numbers)) == 300
    assert "method" not in accuracies.refit_seed.__code__.co_varnames
