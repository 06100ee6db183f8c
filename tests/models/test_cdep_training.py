"""Training with explanation penalties: data with a fault, resuming, and the loss that is minimized."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from models.CDEP import data
from models.CDEP import train as training
from models.CDEP.methods import Settings
from models.CDEP.train import train

QUICK = "--dataset decoydigits --epochs 2 --steps 3".split()


def test_decoys_tell_the_class_while_training_and_another_one_in_the_test():
    task = data.task("decoydigits")
    assert task.mask.sum() == 16 and task.x_train.shape == (1000, 144)
    for x, y, grey in (
        (task.x_train, task.y_train, lambda y: 1 - 25 * y / 255),
        (task.x_validation, task.y_validation, lambda y: 1 - 25 * y / 255),
        (task.x_test, task.y_test, lambda y: 25 * y / 255),
    ):
        images = x.reshape(-1, 12, 12)
        corners = torch.stack([images[:, r, c] for r in (0, 10) for c in (0, 10)], 1)  # (n,4)
        wanted = grey(y.float())[:, None]
        assert (torch.isclose(corners, wanted, atol=1e-5).sum(1) >= 1).all()
        assert ((corners > 1e-6).sum(1) <= 1).all(), "one patch in each image"


def test_colours_are_turned_round_in_the_test():
    task = data.task("colordigits")
    means = torch.stack([task.x_train[task.y_train == c].mean((0, 2, 3)) for c in range(10)])
    turned = torch.stack([task.x_test[task.y_test == c].mean((0, 2, 3)) for c in range(10)])
    nearest = torch.cdist(turned, means).argmin(1)
    assert nearest.tolist() == list(range(9, -1, -1))
    masks = task.masks(torch.arange(30), torch.Generator().manual_seed(0))
    assert masks.shape == (30, 1, 8, 8) and (masks.sum((1, 2, 3)) == 1).all()


@pytest.mark.parametrize("method", ["none", "cdep", "rrr", "eg"])
def test_the_same_command_gives_the_same_network_and_a_stopped_one_goes_on(method, tmp_path, monkeypatch):
    task = data.task("decoydigits")
    settings = Settings(method, 1.0 if method != "none" else 0.0, epochs=3, steps=3, references=2)
    expected, history, _ = train(task, settings)
    assert history["epoch"].tolist() == [1, 2, 3] and np.isfinite(history.to_numpy()).all()
    calls, evaluated = [], training.evaluated

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluated(*arguments)

    monkeypatch.setattr(training, "evaluated", stop)
    with pytest.raises(KeyboardInterrupt):
        train(task, settings, tmp_path / "training.checkpoint")
    monkeypatch.undo()
    found, again, _ = train(task, settings, tmp_path / "training.checkpoint")
    pd.testing.assert_frame_equal(again, history)
    for a, b in zip(found.parameters(), expected.parameters()):
        assert torch.equal(a, b)
    complete, whole, _ = train(
        task, settings, tmp_path / "training.checkpoint"
    )  # killed before its results were written
    pd.testing.assert_frame_equal(whole, history)
    assert torch.equal(next(complete.parameters()), next(expected.parameters()))


def test_the_command_writes_what_it_says(command, tmp_path):
    status, printed, _ = command(training.main, *QUICK, "--method", "cdep", "--saved_path", tmp_path)
    assert status == 0 and "test accuracy" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["method"] == "cdep" and result["lam"] == 100.0 and 0 <= result["test_accuracy"] <= 1
    assert len(pd.read_csv(tmp_path / "history.csv")) == 2 and (tmp_path / "model.pt").exists()
    assert not (tmp_path / "training.checkpoint").exists()


def test_what_is_no_longer_finite_names_its_step_and_keeps_the_best(tmp_path, refused, monkeypatch):
    """At the same step again after a stop, as one that was not stopped."""
    original = training.log_probabilities

    def broken(logits):
        steps = sum(1 for _ in calls)
        calls.append(1)
        return original(logits) * (float("nan") if steps > 12 else 1.0)

    calls = []
    monkeypatch.setattr(training, "log_probabilities", broken)
    arguments = [*QUICK, "--epochs", "9", "--method", "rrr", "--lambda", "1", "--saved_path", tmp_path]
    said = refused(training.main, *arguments)
    step = int(re.search(r"at step (\d+)", said)[1])
    assert step > 3 and "last_good.pt" in said
    assert {"0.weight", "4.bias"} <= set(torch.load(tmp_path / "last_good.pt", weights_only=True))
    done = 3 * ((step - 1) // 3)
    calls[:] = [1] * 20
    assert f"at step {done + 1}:" in refused(training.main, *arguments), "the steps of the stopped one are counted"


def test_an_empty_path_is_refused(refused):
    assert "got an empty path" in refused(training.main, *QUICK, "--saved_path", "")


@pytest.mark.parametrize("bad", [{"method": "hope"}, {"lam": -1.0}, {"classes": "some"}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        train(data.task("decoydigits"), Settings(**{"method": "cdep", **bad}))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lambda", "-1"], "a number from 0 up"),
        (["--method", "hope"], "invalid choice: 'hope'"),
        (["--lambda", "1e38", "--method", "eg", "--lr", "1e6"], "is nan at step|is inf at step|the loss is"),
        (["--lambda", "1e300"], "the lambda x penalty is inf at step 1: give a lower --lambda or --lr"),
        (["--lr", "1e30", "--steps", "1"], "the objective is nan after step 1|is nan at step 2"),
        (
            ["--dataset", "colormnist", "--data_dir", "nowhere"],
            "there is no folder nowhere: give the one of the data as --data_dir, or make it",
        ),
    ],
)
def test_bad_input(refused, tmp_path, arguments, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(said, refused(training.main, *QUICK, *arguments, "--saved_path", tmp_path))
    assert not list(tmp_path.rglob("*.pt")) and not (tmp_path / "nowhere").exists()
