"""The three command lines: what they print and write, and one line for each mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import saved_outputs

from explainer import calculate_influence, calculate_ours_weights, calculate_representer_weights
from models.outputs import outputs_path

COMMANDS = {
    "ours_weight_matrix_with_lr_0.01.npz": calculate_ours_weights.main,
    "influence_weight_matrix.npz": calculate_influence.main,
    "representer_weight_matrix.npz": calculate_representer_weights.main,
}


@pytest.fixture
def folder(tmp_path):
    saved_outputs().save(outputs_path(tmp_path / "base"))
    return tmp_path / "base"


@pytest.mark.parametrize("name", COMMANDS)
def test_they_print_fidelity_and_time_and_write_the_file(command, folder, name):
    status, printed, _ = command(COMMANDS[name], "--model", "Xgboost", "--saved_path", folder)
    assert status == 0
    assert printed.count("prediction against its decomposition: L1 difference") == 2
    assert printed.count("Pearson") == 2 and "time to calculate" in printed
    assert (folder / "calculated_weights" / name).exists()


def test_the_printed_difference_is_that_of_the_sum_over_training_points(command, folder):
    _, printed, _ = command(calculate_ours_weights.main, "--saved_path", folder)
    W = np.load(folder / "calculated_weights" / "ours_weight_matrix_with_lr_0.01.npz")["weight_matrix"][:, 0]
    outputs = saved_outputs()
    summed = 1 / (1 + np.exp(-(outputs.intermediate_test @ W.T).sum(1)))
    (shown,) = re.findall(r"test data, prediction against its decomposition: L1 difference (\S+),", printed)
    assert float(shown) == pytest.approx(np.abs(summed - outputs.pred_test).mean(), rel=1e-3)


def test_a_run_of_another_model_is_refused(refused, command, folder):
    (folder / "model" / "lstm.pt").touch()
    said = refused(calculate_influence.main, "--model", "CNN", "--saved_path", folder)
    assert "holds a model of --model RNN, got CNN" in said and not (folder / "calculated_weights").exists()
    assert command(calculate_influence.main, "--model", "RNN", "--saved_path", folder)[0] == 0


def test_output_names_the_file(command, folder, tmp_path):
    assert command(calculate_influence.main, "--saved_path", folder, "--output", tmp_path / "x" / "w.npz")[0] == 0
    assert (tmp_path / "x" / "w.npz").exists() and not (folder / "calculated_weights").exists()
    assert command(calculate_influence.main, "--saved_path", folder, "--output", tmp_path / "y" / "w")[0] == 0
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["w"]


def test_singular_hessian_is_a_warning_of_one_line(command, tmp_path):
    F = saved_outputs().intermediate_train.copy()
    F[:, 4] = F[:, 0] + F[:, 1]
    saved_outputs(intermediate_train=F).save(outputs_path(tmp_path))
    status, _, errors = command(calculate_influence.main, "--saved_path", tmp_path)
    assert status == 0 and errors.count("\n") == 1
    assert errors.strip().startswith("warning: H has rank 4 of 5 (condition number")
    assert command(calculate_influence.main, "--saved_path", tmp_path, "--damping", 0.1)[2] == ""


def test_rcond_decides_what_is_left_out(command, tmp_path):
    F = saved_outputs().intermediate_train.copy()
    F[:, 4] = F[:, 0] * (1 + 1e-4 * F[:, 1])  # nearly collinear
    saved_outputs(intermediate_train=F).save(outputs_path(tmp_path))
    assert "rank 4 of 5" in command(calculate_influence.main, "--saved_path", tmp_path)[2]
    assert command(calculate_influence.main, "--saved_path", tmp_path, "--rcond", 0)[2] == ""


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (calculate_ours_weights.main, ["--model", "VGG"], "--model: invalid choice: 'VGG'"),
        (calculate_ours_weights.main, ["--lr", "0"], "--lr: got 0; give a number above 0"),
        (calculate_ours_weights.main, ["--lr", "nan"], "--lr: got nan; give a number above 0"),
        (calculate_representer_weights.main, ["--lmbd", "-1"], "--lmbd: got -1; give a number above 0"),
        (calculate_representer_weights.main, ["--epoch", "0"], "--epoch: got 0; give a whole number of at least 1"),
        (calculate_influence.main, ["--damping", "-1"], "--damping: got -1; give 0 or a number above it"),
        (calculate_influence.main, ["--device", "gpu"], "--device: got 'gpu'; give auto, cpu, cuda"),
        (calculate_influence.main, ["--device", "meta"], "--device: got 'meta'; give auto, cpu, cuda"),
        (calculate_influence.main, ["--rcond", "1"], "--rcond: got 1; give a number in [0, 1)"),
        (calculate_influence.main, ["--output", ""], "got an empty path"),
        (calculate_influence.main, ["--output", "~nobody-here/x"], "got the path ~nobody-here/x"),
        (calculate_representer_weights.main, ["--tolerance", "5"], "--tolerance: got 5; give a number between 0 and 1"),
        (calculate_influence.main, ["--bias", "append"], "hold no bias"),
    ],
)
def test_bad_arguments(refused, folder, main, arguments, said):
    assert said in refused(main, "--saved_path", folder, *arguments)
    assert not (folder / "calculated_weights").exists()


@pytest.mark.parametrize("model", ["CNN", "RNN", "Xgboost"])
def test_a_model_that_is_not_trained_names_its_command(refused, model):
    said = refused(calculate_ours_weights.main, "--model", model)
    assert f"saved_outputs.npz not found in models/{model}/saved_models/base/model: " in said
    assert f"run python models/{model}/train.py" in said


def test_damaged_and_foreign_outputs(refused, folder):
    path = outputs_path(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is damaged or of another format: train that model first" in refused(
        calculate_influence.main, "--saved_path", folder
    )
    np.savez(path, a=np.arange(3))
    assert "has no intermediate_train" in refused(calculate_influence.main, "--saved_path", folder)
    assert not (folder / "calculated_weights").exists()


def test_a_folder_that_cannot_be_written(refused, folder):
    (folder / "calculated_weights").write_text("a file in the way")
    assert "calculated_weights is a file; choose another folder" in refused(
        calculate_influence.main, "--saved_path", folder
    )


def test_a_disk_that_fills_up_leaves_nothing_behind(folder):
    """A real limit on file size, in a process of its own."""
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f"sys.argv = ['x', '--saved_path', {str(folder)!r}]; runpy.run_path(sys.argv.pop(0) or '', run_name='__main__')"
    ).replace("sys.argv.pop(0) or ''", repr(calculate_influence.__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write") and done.stderr.count("\n") == 1
    assert list((folder / "calculated_weights").iterdir()) == []


def test_they_run_from_any_folder_by_path(folder, tmp_path):
    script = Path(calculate_influence.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--saved_path", str(folder)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
