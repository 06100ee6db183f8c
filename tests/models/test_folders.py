"""Folders that are written: held by one process, several files replaced in one step, nothing left behind."""

import os
import subprocess
import sys
import textwrap

import pytest

from config import UserError
from models import folders
from models.folders import STAGED, STEP, holding, replaced_together, settle


def started(folder, body):
    """A process that runs `body` while it holds `folder`; returns when it does."""
    program = f"""
        from models.folders import holding
        with holding({str(folder)!r}, "a training"):
            print("held", flush=True)
            {body}
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_it(tmp_path):
    folder = tmp_path / "run"
    process = started(folder, "input()")
    try:
        with pytest.raises(UserError, match=rf"is being written by a training \(process {process.pid} on .*\): wait"):
            with holding(folder, "another"):
                pass
    finally:
        process.kill()
        process.wait()
    with holding(folder, "another"):  # the lock ended with its process
        with pytest.raises(UserError, match="another"):
            with holding(folder, "a third"):
                pass
    assert not folder.exists() and not list(tmp_path.glob("*holder*"))


def test_what_dead_processes_were_writing_goes(tmp_path):
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    stray = folder / "model" / ".a.npz.123.tmp.npz"
    for path in (stray, folder / "a.npz", folder / ".hidden"):
        path.write_text("")
    (folder / STAGED).mkdir()
    with holding(folder, "a test"):
        pass
    assert sorted(path.name for path in folder.rglob("*")) == [".hidden", "a.npz", "model"]


def old_and_new(folder):
    folder.mkdir(exist_ok=True)
    for name in ("a", "b", "c", "kept"):
        (folder / name).write_text("old")
    (folder / "epochs").mkdir()
    (folder / "epochs" / "1").write_text("old")


def write_new(staged):
    (staged / "a").write_text("new")
    (staged / "b").write_text("new")
    (staged / "c.gone").touch()
    (staged / "epochs").mkdir()
    (staged / "epochs" / "2").write_text("new")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


NEW = {"a": "new", "b": "new", "kept": "old", "epochs/2": "new"}
OLD = {"a": "old", "b": "old", "c": "old", "kept": "old", "epochs/1": "old"}


def test_several_files_are_replaced_in_one_step(tmp_path):
    folder = tmp_path / "model"
    old_and_new(folder)
    with replaced_together(folder) as staged:
        write_new(staged)
        assert {k: v for k, v in contents(folder).items() if STAGED not in k} == OLD
    assert contents(folder) == NEW


def test_an_error_leaves_the_old_files(tmp_path):
    folder = tmp_path / "model"
    old_and_new(folder)
    with pytest.raises(ZeroDivisionError), replaced_together(folder) as staged:
        write_new(staged)
        raise ZeroDivisionError
    assert contents(folder) == OLD


def test_killed_at_any_moment_all_files_are_old_or_new(tmp_path):
    seen = set()
    for k in range(40):
        folder = tmp_path / str(k) / "model"
        folder.parent.mkdir()
        old_and_new(folder)
        process = os.fork()
        if not process:
            left = [k]

            def audit(event, _, left=left):
                if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "shutil.rmtree"):
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(1)

            sys.addaudithook(audit)
            with replaced_together(folder) as staged:
                write_new(staged)
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        settle(folder.parent)
        with holding(folder.parent, "a test"):
            found = contents(folder)
        assert found in (OLD, NEW), k
        seen.add(tuple(found.items()))
        if status == 0:
            break
    assert status == 0 and len(seen) == 2


def test_a_step_that_names_what_is_outside_is_refused(tmp_path):
    folders.save_json(tmp_path / STEP, {"names": ["../a"]})
    with pytest.raises(UserError, match="names"):
        settle(tmp_path)
