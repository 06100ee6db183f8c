"""Shell scripts that are stopped: one line, the signal's status, no process left, no half of a .venv believed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.Xgboost import trial

REPOSITORY = Path(__file__).resolve().parents[2]
# Stands for Python: makes a .venv of itself, writes down what it is asked, and sleeps where "slow" names that.
STUB = """#!/usr/bin/env bash
echo "$*" >>calls
case "$*" in
"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
[[ -e slow && "$*" == $(cat slow)* ]] && { sleep 60 & echo $! $$ >asleep; wait; }
[[ -e broken && "$*" == $(cat broken)* ]] && exit 7
exit 0
"""
SLOW = {
    "setup.sh": "-m venv",
    "test.sh": "-m ruff",
    "reproduce.sh": "models/Xgboost/train.py",
    "run": "-m pip install",
}
STOPPED = [(script, signal.SIGTERM) for script in SLOW] + [("test.sh", signal.SIGINT), ("reproduce.sh", signal.SIGINT)]
STOPPED += [("reproduce.sh", signal.SIGKILL), ("run", signal.SIGKILL)]


@pytest.fixture
def project(tmp_path):
    """A folder with the scripts and a stub for Python."""
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(REPOSITORY / ".ci", tmp_path / ".ci")
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "stub").write_text(STUB)
    (tmp_path / "stub").chmod(0o755)
    return tmp_path


def heard():
    """A shell that began the tests in the background may have had some signals ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def begun(project, script):
    environment = {name: value for name, value in os.environ.items() if name not in ("SUPERVISED_BY", "RPS_LJE_ROOT")}
    path = ".ci/run" if script == "run" else f"scripts/{script}"
    more = {"cwd": project, "env": environment | {"PYTHON": str(project / "stub")}, "preexec_fn": heard, "text": True}
    return subprocess.Popen(["bash", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(process):
    try:
        os.kill(process, 0)
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def asleep(project):
    """The processes of the step that sleeps, once it does."""
    path = project / "asleep"
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return [int(process) for process in path.read_text().split()]


def calls(project):
    return (project / "calls").read_text().splitlines()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("script", "number"), STOPPED)
def test_a_script_ends_with_all_that_it_began(project, script, number):
    (project / "slow").write_text(SLOW[script])
    process = begun(project, script)
    left = asleep(project)
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    line = f"{process.args[1]} was stopped: the same command goes on, or begins again\n"
    assert (said, process.returncode) == (("", -9) if number == signal.SIGKILL else (line, 128 + number))
    until(lambda: not any(map(alive, left)))
    assert calls(project)[-1].startswith(SLOW[script])


def test_half_of_a_venv_is_made_again(project):
    (project / "slow").write_text("-m venv")
    process = begun(project, "setup.sh")
    asleep(project)
    process.terminate()
    process.communicate(timeout=20)
    assert (project / ".venv" / "bin" / "python").exists()
    (project / "slow").unlink()
    (project / "calls").unlink()
    again = begun(project, "setup.sh")
    assert "making .venv anew" in again.communicate(timeout=20)[1] and again.returncode == 0
    assert "-m venv .venv" in calls(project) and not (project / ".venv" / "unfinished").exists()
    (project / "calls").unlink()
    assert begun(project, "setup.sh").wait(timeout=20) == 0
    assert calls(project) == ["-m pip --version"]


def test_half_of_an_installation_is_made_again(project):
    assert begun(project, "setup.sh").wait(timeout=20) == 0
    packages = project / ".venv" / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info"):
        (packages / name).mkdir(parents=True)
    (packages / "whole-1.dist-info" / "RECORD").touch()
    (project / "requirements.txt").write_text("more\n")
    (project / "broken").write_text("-m pip install")
    assert begun(project, "setup.sh").wait(timeout=20) != 0
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]
    assert not (project / ".venv" / "installed").exists()


def test_a_failed_first_part_is_the_last(project):
    (project / "broken").write_text("-m ruff")
    process = begun(project, "run")
    printed = process.communicate(timeout=20)[0]
    assert process.returncode == 7 and "part 1" in printed and "part 2" not in printed


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_trial_of_a_model_ends_with_its_parent():
    code = "import os, subprocess, sys, time\n"
    code += f"child = subprocess.Popen([sys.executable, {trial.__file__!r}, str(os.getpid())])\n"
    code += "print(child.pid, flush=True); time.sleep(60)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}  # a model that does not come to its end
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        until(lambda: not alive(child))
