"""Commands that are stopped: one line, the signal's status, nothing left behind, and the same numbers next time."""

import ast
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import MANIFEST

from dataset_debugging.accuracies import side_by_side
from models.RNN import utils_imdb

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = "models", "explainer", "dataset_debugging", "scripts"
CHILDREN = {"trial.py"}  # programs that are no commands
FIRST = 'if __name__ == "__main__":\n    from models.stopping import stoppable\n    stoppable()'
STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
LINE = "{}; whatever is written is whole: the same command goes on, or begins again\n"
BEGIN = "from models.stopping import stoppable\nstoppable()\n"


def heard():
    """The new process hears the signals, though a shell that began the tests in the background had some ignored."""
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)


def begun(*command, root=REPOSITORY, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RPS_LJE_ROOT": str(root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    more = {"env": environment, "preexec_fn": more.pop("preexec_fn", heard), **pipes, **more}
    return subprocess.Popen([sys.executable, *map(str, command)], **more)


def ended(process, number):
    """Assert that the process ends as stopped by this signal; returns what it printed."""
    printed, said = process.communicate(timeout=60)
    assert (said, process.returncode) == (LINE.format(STOPS[number]), 128 + number)
    return printed


def program(body, **more):
    """A process that can be stopped, once it has printed "ready"."""
    process = begun("-c", f"import sys, time\n{BEGIN}{body}", **more)
    assert process.stdout.readline() == "ready\n"
    return process


def test_every_command_can_be_stopped_before_it_imports_anything():
    known = {REPOSITORY / command.start.split()[0] for command in MANIFEST}
    for path in (path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        mains = [part for part in body if ast.unparse(part).startswith("if __name__ == '__main__'")]
        assert mains or path not in known
        if mains and path.name not in CHILDREN:
            assert ast.dump(body[1]) == ast.dump(ast.parse(FIRST).body[0]), path


def test_who_imports_a_command_keeps_the_signals():
    code = "import signal; before = [signal.getsignal(n) for n in (1, 2, 15)]; import models.Xgboost.train"
    code += ", models.stopping; assert before == [signal.getsignal(n) for n in (1, 2, 15)]"
    assert begun("-c", code).wait() == 0


@pytest.mark.parametrize("number", STOPS)
def test_a_command_that_still_imports_ends_in_one_line(number, tmp_path):
    process = begun(REPOSITORY / "models" / "CNN" / "train.py", "--dataset", "digits", root=tmp_path)
    time.sleep(random.Random(number).uniform(0.2, 0.8))
    process.send_signal(number)
    ended(process, number)
    assert not list(tmp_path.iterdir())


WAITING = {
    "in main": "run_command(lambda: (print('ready'), time.sleep(60)))",
    "at work in threads": (
        "from dataset_debugging.accuracies import side_by_side\n"
        "run_command(lambda: side_by_side(lambda: (print('ready'), time.sleep(60)), [()], 2))"
    ),
    "in code that holds it back": (
        "def main():\n while True:\n  try:\n   print('ready'); time.sleep(60)\n  except BaseException: pass\n"
        "run_command(main)"
    ),
    "while it ends": "import atexit\n"
    "atexit.register(lambda: (print('ready'), time.sleep(60)))\nrun_command(lambda: None)",
}


@pytest.mark.parametrize("place", WAITING)
def test_wherever_it_is_a_command_ends_in_one_line(place):
    process = program(f"from config import run_command\n{WAITING[place]}")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    ended(process, signal.SIGTERM)


def test_temporary_files_go_and_what_is_open_is_closed(tmp_path):
    body = (
        "import contextlib, tempfile, pathlib\nfrom config import run_command\nfrom models.stopping import temporary\n"
        "@contextlib.contextmanager\ndef folder():\n"
        f" with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}) as f: yield f\n"
        "def main():\n"
        " from threading import Thread\n"
        " def write():\n"
        f"  with temporary(pathlib.Path({str(tmp_path)!r}, 'half')) as path: path.touch(); time.sleep(60)\n"
        " with folder():\n"
        "  Thread(target=write).start(); time.sleep(0.1); print('ready'); time.sleep(60)\n"
        "run_command(main)"
    )
    process = program(body)
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(signal.SIGTERM)
    ended(process, signal.SIGTERM)
    assert not list(tmp_path.iterdir())


def test_a_signal_that_was_ignored_from_the_beginning_stays_ignored():
    ignored = {"preexec_fn": lambda: [signal.signal(n, signal.SIG_IGN) for n in STOPS]}
    process = program("print('ready'); time.sleep(0.3); print('whole')", **ignored)
    process.send_signal(signal.SIGHUP)
    printed, said = process.communicate(timeout=60)
    assert (printed, said, process.returncode) == ("whole\n", "", 0)


POOL = """
from concurrent.futures import ProcessPoolExecutor
from config import run_command
from models.stopping import end_with_parent
def main():
    with ProcessPoolExecutor(2, initializer=end_with_parent) as pool:
        pool.map(time.sleep, [60] * 8)
        time.sleep(0.2)
        print("ready")
        time.sleep(60)
run_command(main)
"""


def living(group):
    """The processes of a group that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found += [stat.parent.name] if int(of) == group and state != "Z" else []
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes by /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_with_their_parent(number):
    process = program(POOL, start_new_session=True)
    try:
        assert len(living(process.pid)) == 3
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # a terminal sends it to all of them
        said = process.communicate(timeout=60)[1]
        assert said == (LINE.format(STOPS[number]) if number in STOPS else "")
        until = time.monotonic() + 5
        while living(process.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert not living(process.pid)
    finally:
        if living(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_tokenizing_workers_end_with_their_parent(monkeypatch):
    class Asked(Exception):
        pass

    def pool(*_, initializer=None, **__):
        raise Asked(initializer)

    monkeypatch.setattr(utils_imdb, "ProcessPoolExecutor", pool)
    with pytest.raises(Asked, match="end_with_parent"):
        utils_imdb._tokenized(utils_imdb.texts("snippets"), False)


def test_side_by_side_keeps_the_order_and_does_not_wait_when_it_is_interrupted():
    assert side_by_side(lambda x: x * x, [(x,) for x in range(9)], 3) == [x * x for x in range(9)]
    asked, done = [], []

    def work(x):
        asked.append(x)
        if x == 1:
            raise KeyboardInterrupt
        time.sleep(1)
        done.append(x)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, [(x,) for x in range(9)], 2)
    assert len(asked) <= 4 and not done


def test_a_stopped_experiment_comes_to_the_same_and_leaves_nothing(tmp_path):
    command = [REPOSITORY / "dataset_debugging" / "experiment_dataset_debugging_Xgboost.py"]
    command += "--num_of_run 1 --average_over_runs 1 --methods ours --jobs 2".split()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert begun(*command, "--path", whole, root=tmp_path).wait(timeout=100) == 0
    process = begun(*command, "--path", stopped, root=tmp_path)
    while not list(stopped.glob("0/accuracies/refits_*.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert not [path for path in stopped.rglob("*") if ".tmp" in path.name]
    assert begun(*command, "--path", stopped, root=tmp_path).wait(timeout=100) == 0
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file())
    for path in (path for path in files if path.suffix == ".npy"):
        np.testing.assert_array_equal(np.load(whole / path), np.load(stopped / path))
