"""What is printed of names from outside: no control character and no mark of direction reaches a terminal."""

import io
import os
import subprocess
import sys
import warnings

import pytest
from tqdm import tqdm

import config
from config import UserError, shown
from models.screen import one_line, printable, screened

ATTACKS = (
    "\x1b]0;title\x07", "\x1b[2J", "\x1b[A", "\x9b31m", "\r", "\b", "\x00", "\x7f", "\u202e", "\u2066", "\u200f",
    "\u061c", "\u200b", "\ufeff", "\u2028", "\x85", "\v", "\f", "\udcff", "\U000e0041",
)  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_terminal_obeys_is_printed(attack, command, tmp_path):
    name = f"a{attack}b"

    def main():
        print("note:", name, [name])
        print(name, file=sys.stderr, end="\n" if attack != "\r" else "")
        warnings.warn(name, stacklevel=1)
        for _ in tqdm(range(1), "bar"):
            pass
        raise UserError(f"column {name} is odd: {shown(tmp_path / name)}")

    status, out, errors = command(main)
    assert status == 2 and out.startswith("note: a") and "error: column a" in errors and "warning: a" in errors
    assert attack not in out
    assert attack not in (errors.replace("\r", "", 4) if attack == "\r" else errors)
    assert all(line.isprintable() for line in out.splitlines())


def test_errors_are_one_printable_line_in_python_too():
    error = UserError("column a\x1b[2J\nerror: all is well\u202e")
    assert str(error) == "column a\\x1b[2J error: all is well\\u202e" and str(UserError(str(error))) == str(error)
    assert one_line(" a \r\n b\u2028c ") == "a b c"


def test_what_people_write_stays_as_it_is():
    for text in ("café, naïve", "ß → 日本語 עברית فارسی", "a\u200cb", "👩\u200d🔬", "C:\\x1b", "x\u00ad"):
        assert printable(text) == text
    assert printable("a\nb\tc", keep="\n\t") == "a\nb\tc" and printable("a\nb") == "a\\nb"


def test_progress_bars_may_move_the_cursor_and_others_may_not(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with screened():
        with tqdm(total=2, desc="outer") as outer, tqdm(total=1, desc="inner") as inner:
            inner.update()
            outer.update()
        print("\x1b[A", "\x1b[Ax")
        assert sys.stdout.getvalue() == "\\x1b[A \\x1b[Ax\n"
    assert "\x1b[A" in stream.getvalue() and sys.stderr is stream


BAD_ROOTS = {
    "~nobody-here": "got the path ~nobody-here",
    "": "got an empty path",
    "some/where": "got some/where, which is relative",
    b"/a\xffb": "got the path /a\\udcffb, with a control character or what is no UTF-8",
    "/a\nb": "with a control character",
    "{file}": "file is no folder",
    "{file}/below": "file is no folder",
    "/dev/null": "/dev/null is no folder",
    "/" + "x" * 300: "which is too long",
    "/" + "x/" * 3000: "which is too long",
}


@pytest.mark.parametrize("given", BAD_ROOTS)
@pytest.mark.parametrize("name", ["RPS_LJE_ROOT", "RPS_LJE_DATA"])
def test_roots_that_can_be_none(name, given, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    value = os.fsdecode(given).format(file=tmp_path / "file")
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        config._roots()
    said = str(refused.value)
    assert said.startswith(f"{name}: ") and BAD_ROOTS[given] in said and len(said) < 300
    assert said.endswith(f": set {name} to a folder's absolute path, or unset it")


def test_roots_that_cannot_be_made_are_known_and_others_are_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv("RPS_LJE_ROOT", str(tmp_path / "new" / "root"))
    monkeypatch.delenv("RPS_LJE_DATA", raising=False)
    assert config._roots() == (tmp_path / "new" / "root", tmp_path / "new" / "root" / "data")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # which root may always
    with pytest.raises(UserError, match="is not there and cannot be made"):
        config._roots()
    monkeypatch.setenv("RPS_LJE_ROOT", str(tmp_path))
    assert config._roots()[0] == tmp_path  # to be read
    with pytest.raises(UserError, match="is not writable; choose another folder"):
        config.to_write(tmp_path / "a" / "file")


@pytest.mark.parametrize(
    "script",
    ["models/Xgboost/data/prepare.py", "explainer/calculate_influence.py", "dataset_debugging/memorization.py"],
)
def test_a_command_says_it_in_one_line(script):
    environment = {**os.environ, "RPS_LJE_ROOT": "~nobody-here"}
    done = subprocess.run(
        [sys.executable, config.CODE_ROOT / script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: RPS_LJE_ROOT: got the path ~nobody-here: ")


def test_in_python_it_is_an_error_of_ours():
    environment = {**os.environ, "RPS_LJE_ROOT": "~nobody-here"}
    code = "try:\n import config\nexcept ValueError as error:\n print(type(error).__name__)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "UserError\n" and not done.stderr


def test_other_variables(monkeypatch):
    for value in ("", "x", "-1", "1_0", "١", "9" * 30):
        monkeypatch.setenv("LOCAL_RANK", value)
        with pytest.raises(UserError, match="LOCAL_RANK is"):
            config.device()


def test_paths_are_checked_before_anything_is_read(tmp_path):
    (tmp_path / "file").touch()
    for path, folder, said in (
        (tmp_path, False, "is a folder: give a file"),
        ("/dev/null", False, "is a device: give a file"),
        (tmp_path / "file", True, "is a file: give a folder"),
        (tmp_path / "file" / "below", True, "is a file; choose another folder"),
        (tmp_path / "file" / "below", False, "is a file; choose another folder"),
        (tmp_path / ("x" * 250), True, "which is too long"),
    ):
        with pytest.raises(UserError, match=said):
            config.to_write(path, folder)
    assert config.to_write(tmp_path / "a" / "b", folder=True) == tmp_path / "a" / "b"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
