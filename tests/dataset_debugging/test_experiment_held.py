"""Run folders: one process at a time, nothing lost by --overwrite, and no refits of another experiment."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_experiment import SCRIPT, SMALL, arrays, main

from config import UserError
from dataset_debugging import figures, results
from dataset_debugging.experiment_dataset_debugging_Xgboost import EXPERIMENT, German
from dataset_debugging.runs import NOTED, RunDir
from models.checksums import NOBODY, content, training_of
from models.files import load_json, load_npy, save_npy, save_npz
from models.folders import holding


@pytest.fixture
def quick(monkeypatch):
    """Refits that take no time, at two checkpoints; what they say depends on the labels and the seed."""
    object.__setattr__(EXPERIMENT, "checkpoints", 2)
    monkeypatch.setattr(German, "refit", lambda self, flipped, seed, _: (len(flipped) + seed % 997) / 2000)
    monkeypatch.setattr(figures, "draw", lambda *_: None)
    monkeypatch.setattr(figures, "save", lambda figure, name, folder: folder / name)
    yield
    object.__setattr__(EXPERIMENT, "checkpoints", 20)


def test_a_second_process_is_refused_with_other_arguments_and_overwrite(refused, tmp_path):
    command = [sys.executable, str(SCRIPT), *SMALL, "--jobs", "1", "--path", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    refits = tmp_path / "0" / "accuracies" / "refits_ours.npy"
    try:
        while not refits.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)  # in the middle of its work, perhaps of a write
        temporary = tmp_path / "0" / f".a.txt.{process.pid}.tmp.txt"
        temporary.write_text("being written")
        before = arrays(tmp_path / "0")
        for more in ([], ["--overwrite"], ["--flip_portion", "0.1", "--overwrite"]):
            said = refused(main, *SMALL, "--path", tmp_path, *more)
            assert f"0 is being written by a label-flip experiment (process {process.pid} on " in said
        assert temporary.exists() and arrays(tmp_path / "0").keys() == before.keys()
        assert json.loads((tmp_path / "0" / "run.json").read_text())["arguments"]["flip_portion"] == 0.3
    finally:
        process.kill()
        process.wait()
    with holding(tmp_path / "0", "a test"):
        assert not temporary.exists()


def test_the_old_run_stays_until_the_new_one_is_there(command, tmp_path, quick, monkeypatch):
    arguments = [*SMALL, "--path", tmp_path, "--until"]
    assert command(main, *arguments, "accuracies")[0] == 0
    before, aside = arrays(tmp_path / "0"), tmp_path / "0.overwritten"
    monkeypatch.setattr(German, "train", lambda *_: 1 / 0)
    for portion in (0.2, 0.1):  # the second one overwrites what the first has begun
        with pytest.raises(ZeroDivisionError):
            command(main, *arguments, "accuracies", "--flip_portion", portion, "--overwrite")
        assert arrays(aside).keys() == before.keys()
        assert load_json(tmp_path / "0" / "run.json", "")["arguments"]["flip_portion"] == portion
    monkeypatch.undo()
    assert command(main, *arguments, "train", "--flip_portion", 0.1)[0] == 0
    assert not aside.exists() and not (tmp_path / "0" / "DONE").exists()


def test_a_run_moved_aside_by_a_killed_process_comes_back(command, refused, tmp_path, quick):
    arguments = [*SMALL, "--path", tmp_path]
    assert command(main, *arguments)[0] == 0
    before = arrays(tmp_path / "0")
    (tmp_path / "0").rename(tmp_path / "0.overwritten")
    assert command(main, *arguments)[0] == 0
    assert arrays(tmp_path / "0").keys() == before.keys() and not (tmp_path / "0.overwritten").exists()
    (tmp_path / "0.overwritten").mkdir()
    (tmp_path / "0.overwritten" / "thesis.txt").write_text("mine")
    assert "is no run that was overwritten" in refused(main, *arguments, "--overwrite")
    assert (tmp_path / "0.overwritten" / "thesis.txt").exists()


def test_refits_of_another_experiment_or_order_are_refused(command, refused, tmp_path, quick):
    arguments = [*SMALL, "--path", tmp_path / "a"]
    assert command(main, *arguments)[0] == 0
    assert command(main, *SMALL, "--path", tmp_path / "b", "--flip_portion", 0.2)[0] == 0
    ours, theirs = (RunDir(tmp_path / name / "0") for name in "ab")
    assert training_of(ours.accuracies("ours")) == training_of(ours.refits("ours")) == ours.refitted("ours")
    whole = ours.accuracies("ours").read_bytes()
    ours.accuracies("ours").write_bytes(theirs.accuracies("ours").read_bytes())
    for said in (refused(main, *arguments), str(pytest.raises(UserError, ours.load_accuracies, "ours").value)):
        assert "accuracies_ours.npy is of refits with other arguments or in another order: delete that file" in said
    ours.accuracies("ours").unlink()
    kept = ours.refits("ours").read_bytes()
    ours.refits("ours").write_bytes(theirs.refits("ours").read_bytes())
    assert "refits_ours.npy is of refits with other arguments" in refused(main, *arguments)
    ours.refits("ours").write_bytes(kept)
    ours.order("ours").write_bytes(theirs.order("ours").read_bytes())
    assert "order_ours.npz was made from other saved outputs" in refused(main, *arguments)
    ours.order("ours").unlink()
    assert command(main, *arguments)[0] == 0 and ours.accuracies("ours").read_bytes() == whole


def test_runs_made_before_are_read_and_continued(command, tmp_path, quick):
    """Files without checksums and fingerprints."""
    arguments = [*SMALL, "--path", tmp_path]
    assert command(main, *arguments)[0] == 0
    run = RunDir(tmp_path / "0")
    expected = load_npy(run.accuracies("ours"), "")
    for path in run.path.rglob("*.npy"):
        np.save(path, np.load(path))
    for path in run.path.rglob("*.npz"):
        np.savez(path, **dict(np.load(path)))
    refits = np.load(run.refits("ours"))
    refits[1] = np.nan
    np.save(run.refits("ours"), refits)
    run.accuracies("ours").unlink()
    assert command(main, *arguments)[0] == 0
    np.testing.assert_array_equal(run.load_accuracies("ours"), expected)
    with content(run.accuracies("random")) as found:
        assert found.training in (None, NOBODY) and not found.checked


OTHERS = ([], {}, "text", 3, -1, None, True, {"a": []}, [1], 1e999, {"a": {"b": 1}}, 10**400)


def test_a_run_json_of_other_types_is_one_line(command, refused, tmp_path, quick):
    arguments = [*SMALL, "--path", tmp_path]
    assert command(main, *arguments)[0] == 0
    path, seen = tmp_path / "0" / "run.json", 0
    whole = load_json(path, "")
    begun = whole["arguments"]
    for name in NOTED:
        for value in OTHERS:
            path.write_text(json.dumps({**whole, name: value}))
            with contextlib.suppress(UserError):
                results.describe(results.load_runs("xgboost", tmp_path))
            if not NOTED[name](value):
                seen += 1
                assert f"run.json has another {name}" in refused(main, *arguments)
    assert seen > 60
    for name in begun:
        for value in OTHERS:
            path.write_text(json.dumps({**whole, "arguments": {**begun, name: value}}))
            with contextlib.suppress(UserError):
                results.describe(results.load_runs("xgboost", tmp_path))
    path.write_text(json.dumps({k: v for k, v in whole.items() if k != "arguments"}))
    assert "holds no arguments" in refused(main, *arguments)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("orders/order_ours.npz", lambda path, a: save_npz(path, **{**a, "order": a["order"].astype(float)})),
        ("orders/order_ours.npz", lambda path, a: save_npz(path, **{**a, "fraction_fixed": np.full(20, 2.0)})),
        ("orders/order_ours.npz", lambda path, a: save_npz(path, **a, changed=np.zeros(3, bool))),
        ("orders/random_flipping_order.npy", lambda path, a: save_npy(path, a.astype("U"))),
        ("orders/random_flipping_order.npy", lambda path, a: save_npy(path, a[:, None])),
        ("accuracies/accuracies_ours.npy", lambda path, a: save_npy(path, a * 1j)),
        ("accuracies/accuracies_ours.npy", lambda path, a: save_npy(path, a + 2)),
        ("accuracies/refits_ours.npy", lambda path, a: save_npy(path, a - 2)),
    ],
)
def test_arrays_of_other_types_are_one_line(command, refused, tmp_path, quick, name, write):
    arguments, path = [*SMALL, "--path", tmp_path], tmp_path / "0" / name
    assert command(main, *arguments)[0] == 0
    found = np.load(path)
    write(path, dict(found) if path.suffix == ".npz" else found)
    if "refits" in name:
        RunDir(tmp_path / "0").accuracies("ours").unlink()
    assert path.name in refused(main, *arguments)


KILLS = """
import os, sys
from pathlib import Path
import numpy as np
from dataset_debugging import experiment, figures
from dataset_debugging.experiment_dataset_debugging_Xgboost import EXPERIMENT, German

script, folder, *arguments = sys.argv[1:]
object.__setattr__(EXPERIMENT, "checkpoints", 2)
German.refit = lambda self, flipped, seed, _: (len(flipped) + seed % 997) / 2000
figures.draw, figures.save = lambda *_: None, lambda figure, name, folder: folder / name

def ended(path, left):
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    def audit(event, values):
        nonlocal left
        if event == "os.rename" or (event == "os.mkdir" and folder in str(values[0])):
            left -= 1
            if left < 0:
                os._exit(9)
    sys.addaudithook(audit)
    sys.argv = ["command", *arguments, "--path", path]
    experiment._run_all(EXPERIMENT, *experiment._parse(EXPERIMENT, script))
    os._exit(0)

k, killed = 0, True
while killed:
    killed = ended(f"{folder}/{k}", k) != 0
    assert not killed or ended(f"{folder}/{k}", 10**6) == 0
    k += 1
"""


def test_killed_before_any_write_it_comes_to_the_same_arrays(tmp_path):
    """A process is ended before its k-th change on the disk, for every k; then the experiment goes on."""
    command = [sys.executable, "-c", KILLS, str(SCRIPT), str(tmp_path), *SMALL[:4], "--methods", "ours", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    *killed, whole = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    expected = arrays(whole / "0")
    assert len(killed) > 12
    for path in killed:
        found = arrays(path / "0")
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{path.name}: {name}")
        assert not list((path / "0").rglob(".*.tmp*")) and (path / "0" / "DONE").exists()
