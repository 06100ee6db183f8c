"""What the fuzzing finds, in small, and that it would find it: readers with every fault are told."""

import os
import re
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from commands import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

from fuzzing import children, damage, judging, mutations  # noqa: E402
from fuzzing.formats import Format, same  # noqa: E402
from fuzzing.lines import _judged  # noqa: E402

from config import UserError  # noqa: E402


def make(folder):
    (folder / "numbers").write_bytes(bytes(range(64)))


def plain(folder):
    return np.frombuffer((folder / "numbers").read_bytes(), np.uint8)


def refusing(folder):
    values = plain(folder)
    if not np.array_equal(values, np.arange(64)):
        raise UserError("numbers are damaged: make them again")
    return values


def failing(folder):
    try:
        return refusing(folder)
    except UserError:
        raise KeyError("numbers") from None


def crashing(folder):
    try:
        return refusing(folder)
    except UserError:
        os.kill(os.getpid(), 9)


def creating(folder):
    try:
        return refusing(folder)
    except UserError:
        (folder / "left").write_text("")
        raise


def warning(folder):
    if plain(folder).size != 64 or (plain(folder) != np.arange(64)).any():
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
    return plain(folder)


@pytest.mark.parametrize(
    ("read", "outcomes"),
    [
        (plain, {"right", "other"}),
        (refusing, {"right", "refused"}),
        (failing, {"right", "foreign"}),
        (crashing, {"right", "crash"}),
        (creating, {"right", "lost"}),
        (warning, {"right", "foreign"}),
    ],
)
def test_each_fault_of_a_reader_is_told_by_name_and_comes_again(read, outcomes, tmp_path):
    form = Format("numbers", "numbers", make, read)
    cases = list(judging.fuzz(form, 1, range(12), tmp_path))
    assert {case.outcome for case in cases} | {"right"} == outcomes and len(cases) == 12
    assert cases[5] == list(judging.fuzz(form, 1, [5], tmp_path))[0]
    unchecked = judging.fuzz(form._replace(checked=False), 1, range(12), tmp_path)
    assert ("undetectable" in {case.outcome for case in unchecked}) == (read is plain)


def test_a_reader_that_never_ends_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "SECONDS", 0.5)

    def waiting(folder):
        if plain(folder).size != 64:
            time.sleep(60)
        return plain(folder)

    cases = list(judging.fuzz(Format("numbers", "numbers", make, waiting, checked=False), 1, range(6), tmp_path))
    assert len(cases) == 6 and "crash" in {case.outcome for case in cases}


def test_a_child_that_takes_too_much_memory_or_leaves_a_process_is_noticed(tmp_path):
    pid = children.forked(lambda: len(bytearray(2**28)) and 0, tmp_path / "printed", memory=2**26)
    assert children.ended(pid, 20).status == 70 and "MemoryError" in (tmp_path / "printed").read_text()
    pid = children.forked(lambda: subprocess.Popen(["sleep", "60"]) and 0)
    assert children.ended(pid, 20).status == 0 and len(children.members(pid)) == 1
    children.kill(pid)


def test_damage_is_that_of_its_seed_and_every_kind_comes_up():
    data, arrays = bytes(range(200)), {"a": np.ones((4, 3)), "b": np.arange(4)}
    first, again = ([damage.of_bytes(data, np.random.default_rng([3, i])) for i in range(300)] for _ in range(2))
    assert first == again and len({words for words, _ in first}) == len(set(damage._BYTES))
    found = [mutations.of_arrays(arrays, np.random.default_rng([3, i])) for i in range(300)]
    assert {"no a", "a: NaN", "b: no rows", "a: objects", "another array"} <= {words for words, *_ in found}
    assert same(arrays, {"a": np.ones((4, 3)), "b": np.arange(4)})


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (np.ones(3, ">f4"), np.ones(3), True),
        (np.ones(3), np.ones((3, 1)), False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.ones(3), np.array(["1"] * 3), False),
        ({"a": [1, 2.0]}, {"a": [1, 2]}, True),
        ({"a": 1}, {"b": 1}, False),
        (1, True, False),
    ],
)
def test_what_counts_as_the_same_values(a, b, wanted):
    assert same(a, b) == wanted


@pytest.mark.parametrize(
    ("ended", "printed", "outcome"),
    [
        (children.Ended(2, None, False), "error: got 0: give 1\n", "refused"),
        (children.Ended(2, None, False), "warning: x\nusage: x\n", "foreign"),
        (children.Ended(2, None, False), "error: \x1b[31m\n", "foreign"),
        (children.Ended(1, None, False), "Traceback (most recent call last):\nKeyError: 1\n", "foreign"),
        (children.Ended(None, 11, False), "", "crash"),
        (children.Ended(None, 9, True), "", "right"),
    ],
)
def test_what_a_command_line_came_to(ended, printed, outcome, tmp_path):
    assert _judged(ended, printed, "", tmp_path, 0)[0] == outcome
    (tmp_path / "made").write_text("")
    assert _judged(ended, printed, "", tmp_path, 0)[0] == ("lost" if outcome == "refused" else outcome)


def fuzz(*arguments):
    command = [sys.executable, str(REPOSITORY / "scripts" / "fuzz.py"), "--seed", "7", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize(("area", "cases"), [("files", "6"), ("lines", "36"), ("kills", "3"), ("pairs", "2")])
def test_nothing_is_lost_and_nobody_let_in(area, cases):
    done = fuzz("--only", area, "--cases", cases)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    total = re.search(r"^\| all \| ([\d,]+) \|.*", done.stdout, re.M)
    assert int(total[1].replace(",", "")) >= int(cases) and total[0].endswith("| 0 | 0 | 0 | 0 | 0 |")


def test_what_it_is_asked_that_it_cannot_do_is_refused():
    done = fuzz("--only", "no such format")
    assert done.returncode == 2 and done.stderr.startswith("error: --only: got no such format")
