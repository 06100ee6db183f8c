"""The CNN experiment on the carried digits, at the smallest scale: contracts, resuming, the kept epochs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from config import UserError
from dataset_debugging import experiment, memorization, refits, results
from dataset_debugging import experiment_dataset_debugging_cnn as cnn
from dataset_debugging.accuracies import refit_seed
from dataset_debugging.networks import flipped_labels
from explainer.label_errors import Moment
from explainer.methods import METHODS
from explainer.weights import calculate
from models.CNN import train
from models.CNN.train import accuracy, fit_binary
from models.CNN.utils_cifar import ImageBatches, Start, load, load_network
from models.files import load_json, save_json, save_npy
from models.moments import keep_moment, load_moments
from models.outputs import SavedOutputs
from models.training import Schedule, binary_loss, fit, save_tensors

SMALL = "--num_of_run 1 --dataset digits --weights none --num_of_samples 40 --epochs 3 --retrain_epochs 1".split()
SMALL += "--methods ours random --device cpu --epoch 50".split()
ANOTHER = {"settings": "of another training", "network": {}, "optimizer": {}, "epoch": 1, "kept": {}}


def main():
    experiment._run_all(cnn.EXPERIMENT, *experiment._parse(cnn.EXPERIMENT, cnn.__file__))


def start(path, *more):
    command = [sys.executable, cnn.__file__, *SMALL, "--path", str(path), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    more = {"env": environment, "preexec_fn": interruptible, "text": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)


def interruptible():
    """Ctrl-C interrupts the new process, though a shell that has begun the tests in the background had it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted")
    printed = start(path).communicate(timeout=300)[0]
    assert "1 run done until accuracies" in printed, printed
    return path


def test_moments_are_the_kept_epochs_and_the_last_one_counts_once(uninterrupted):
    outputs = SavedOutputs.load(uninterrupted / "0" / "model" / "saved_outputs.npz", "")
    moments = load_moments(uninterrupted / "0", outputs)
    assert [moment.time for moment in moments] == [1, 2, 3]
    np.testing.assert_array_equal(moments[-1].features, outputs.intermediate_train)


def test_other_images_have_a_folder_of_their_own(command, tmp_path):
    arguments = [*SMALL, "--until", "train"]
    assert command(main, *arguments)[0] == 0
    models = tmp_path / "models" / "CNN" / "saved_models"
    assert [path.name for path in models.iterdir()] == ["experiment_dataset_debugging_digits_3_8"]


def test_runs_of_other_images_are_no_results_of_the_paper(refused, tmp_path, uninterrupted, recwarn, monkeypatch):
    for module in (results, memorization):
        monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path)
    shutil.copytree(uninterrupted, tmp_path / results.FOLDERS["cnn"])
    found = results.load("cnn")
    assert found.source == "committed results"
    assert "left out: the runs in" in str(recwarn.pop(UserWarning).message)
    assert "are of digits 3 / 8, those of cnn of cifar automobile / horse" in refused(memorization.main)


def test_interrupted_refits_end_at_once(tmp_path):
    process = start(tmp_path, "--retrain_epochs", "100000")
    try:
        while not list(tmp_path.glob("0/accuracies/refit_*.checkpoint")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130 and "the same command goes on" in printed


def test_files_are_those_of_the_contract(uninterrupted):
    run = uninterrupted / "0"
    assert np.load(run / "accuracies" / "accuracies_ours.npy").shape == (8,)
    assert np.load(run / "orders" / "order_ours.npz")["fraction_fixed"].shape == (20,)
    assert {p.name for p in (run / "model").iterdir()} == {"saved_outputs.npz", "resnet20.pt"}
    assert sorted(int(p.name) for p in (run / "epochs").iterdir()) == [1, 2, 3]
    arguments = json.loads((run / "run.json").read_text())["arguments"]
    for name, value in {
        "epochs": 3,
        "retrain_epochs": 1,
        "train_lr": 0.01,
        "retrain_lr": 0.001,
        "batch_size": 128,
    }.items():
        assert arguments[name] == value
    assert arguments["images"] == "digits 3 / 8" and arguments["weights"] == "no pretraining"
    assert (uninterrupted / "label_flips.png").exists()


def test_labels_are_flipped_and_accuracies_are_refits_from_the_start(uninterrupted):
    run, data = uninterrupted / "0", load("digits", samples=40)
    flipped = np.load(run / "orders" / "random_flipping_order.npy")[:8]
    labels = np.load(run / "model" / "saved_outputs.npz")["labels_train"]
    np.testing.assert_array_equal(np.flatnonzero(labels != data.y_train.numpy()), np.sort(flipped))
    order = np.load(run / "orders" / "order_ours.npz")["order"]
    wrong = [i for i in flipped if i not in set(order[:6])]  # 15 % of 40 are checked
    y = flipped_labels(data.y_train, np.array(wrong, int))
    network = fit_binary(Start("none"), data, Schedule(1, 0.001, 128), refit_seed(0, 3, 0), y)
    assert np.load(run / "accuracies" / "accuracies_ours.npy")[2] == pytest.approx(accuracy(network, data), abs=0.015)


def test_killed_in_the_middle_of_a_training_and_of_the_refits_it_comes_to_the_same(uninterrupted, tmp_path):
    run = tmp_path / "0"
    moments = [
        lambda: (run / "model" / "training.checkpoint").exists(),
        lambda: (run / "accuracies" / "refits_ours.npy").exists(),
        lambda: any((run / "accuracies").glob("*.checkpoint")),
    ]
    for there in moments:
        process = start(tmp_path)
        while not there() and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = start(tmp_path)
    assert "1 run done" in process.communicate(timeout=300)[0]
    for path in sorted(uninterrupted.joinpath("0").rglob("*.np[yz]")):
        mine = run / path.relative_to(uninterrupted / "0")
        assert mine.read_bytes() == path.read_bytes(), mine.name
    assert not list(run.rglob("*.checkpoint")) and not list(run.rglob(".*.tmp*"))


def test_another_scale_is_refused(uninterrupted, refused):
    said = refused(main, *SMALL, "--path", uninterrupted, "--retrain_epochs", 2)
    assert "was begun with retrain_epochs 1, got 2" in said
    assert "was begun with images digits 3 / 8, got digits 3 / 9" in refused(
        main, *SMALL, "--path", uninterrupted, "--classes", 3, 9
    )


def test_memorization_is_of_the_kept_epochs(uninterrupted, command):
    status, printed, _ = command(memorization.main, "--path", uninterrupted)
    assert status == 0 and "memorization.png" in printed
    table = pd.read_csv(uninterrupted / "memorization.csv")
    assert table["epoch"].tolist() == [1, 2, 3]
    flipped = np.load(uninterrupted / "0" / "orders" / "random_flipping_order.npy")[:8]
    outputs = SavedOutputs.load(uninterrupted / "0" / "epochs" / "2" / "model" / "saved_outputs.npz", "")
    row = table.set_index("epoch").loc[2]
    assert row["memorized"] == np.mean([(outputs.pred_train[i] > 0.5) == outputs.labels_train[i] for i in flipped])
    suspicion = METHODS["ours"].suspicion(calculate(outputs, "ours", lr=1e-5).arrays)
    first = np.argsort(-np.asarray(suspicion), kind="stable")[:8]  # 20 % of 40
    assert row["ours"] == np.isin(flipped, first).mean()
    last = np.load(uninterrupted / "0" / "orders" / "order_ours.npz")["fraction_fixed"][3]
    assert table.set_index("epoch").loc[3, "ours"] == last


def test_memorization_without_runs_says_what_to_run(refused, tmp_path):
    assert "no trained runs in" in refused(memorization.main, "--path", tmp_path)


def test_memorization_of_runs_of_different_trainings_is_refused(refused, uninterrupted, tmp_path):
    for i in range(2):
        shutil.copytree(uninterrupted / "0", tmp_path / str(i))
    noted = load_json(tmp_path / "1" / "run.json", "")
    save_json(tmp_path / "1" / "run.json", {**noted, "arguments": {**noted["arguments"], "epochs": 2}})
    assert "were begun with different arguments" in refused(memorization.main, "--path", tmp_path)


def test_moments_of_another_training_that_was_stopped_there_are_forgotten(command, tmp_path):
    options = "--dataset digits --weights none --num_of_samples 40 --device cpu --keep_moments".split()
    shape = np.zeros((40, 64), np.float32), np.zeros(40, int), np.zeros((1, 64), np.float32)
    for more in (["--epochs", 2], ["--epochs", 4]):
        keep_moment(tmp_path, 5, Moment(*shape, time=5))
        save_tensors(tmp_path / "model" / "training.checkpoint", ANOTHER)
        assert command(train.main, *options, *more, "--saved_path", tmp_path)[0] == 2
        assert command(train.main, *options, *more, "--overwrite", "--saved_path", tmp_path)[0] == 0
        outputs = SavedOutputs.load(tmp_path / "model" / "saved_outputs.npz", "")
        times = [moment.time for moment in load_moments(tmp_path, outputs)]
        assert times == [time for time in (1, 2, 3) if time < more[1]] + [np.inf]
    keep_moment(tmp_path, 5, Moment(*shape, time=5))
    save_tensors(tmp_path / "model" / "training.checkpoint", ANOTHER)
    assert command(train.main, *options[:-1], "--epochs", 1, "--overwrite", "--saved_path", tmp_path)[0] == 0
    assert not (tmp_path / "epochs").exists()


def test_refits_by_other_protocols_go_on_from_the_trained_network_and_are_made_once(uninterrupted, monkeypatch):
    run, data = uninterrupted / "0", load("digits", samples=40)
    own, other_lr, going_on = refits.PROTOCOLS
    made = refits.Refits(run, 0, data, Start("none"))
    assert made.accuracy(own, "ours", 8) == np.load(run / "accuracies" / "accuracies_ours.npy")[7]
    y = data.y_train.clone()
    order, flipped = np.load(run / "orders" / "order_random.npz")["order"], made.flipped
    wrong = [i for i in flipped if i not in set(order[:16])]  # 40 % of 40 are checked
    y[wrong] = 1 - y[wrong]
    network = load_network(run).to(memory_format=torch.channels_last)
    fit(network, ImageBatches(data.x_train, y), binary_loss, Schedule(1, 0.001, 128), refit_seed(0, 8, 0))
    assert made.accuracy(going_on, "random", 8) == pytest.approx(accuracy(network, data), abs=0.015)
    found = {(protocol, *at): made.accuracy(protocol, *at) for protocol in refits.PROTOCOLS for at in refits.CHECKED}
    monkeypatch.setattr(refits, "fit", None)  # from here on all of them are known
    again = refits.Refits(run, 0, data, Start("none"))
    assert {key: again.accuracy(*key) for key in found} == found
    lines = refits.report(again, found).splitlines()
    assert lines[-3].endswith(" | ".join(f"{found[(own, *at)]:.3f}" for at in refits.CHECKED) + " |")
    assert lines[-2].startswith(f"| {other_lr} | 0.01 |") and lines[-1].startswith(f"| {going_on} | 0.001 |")


def test_refits_of_other_images_or_without_orders_are_refused(uninterrupted, tmp_path):
    with pytest.raises(UserError, match="of other images or starting weights"):
        refits.Refits(uninterrupted / "0", 0, load("digits", samples=30), Start("none"))
    with pytest.raises(UserError, match="has no orders of RPS-LJE and random"):
        refits.Refits(tmp_path, 0, None, None)
    shutil.copytree(uninterrupted / "0", tmp_path / "0")
    table = np.load(uninterrupted / "0" / "accuracies" / "refits_random.npy")
    table[7] = np.nan
    save_npy(tmp_path / "0" / "accuracies" / "refits_random.npy", table)
    with pytest.raises(UserError, match="has no refits of RPS-LJE and random yet"):
        refits.Refits(tmp_path / "0", 0, load("digits", samples=40), Start("none"))
