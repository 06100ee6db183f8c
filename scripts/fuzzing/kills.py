"""Kills: before every event of writing, and at random moments; and two processes at once in one folder.

A command is run in a forked child whose hook counts what it is about to do to files below a folder: open one to write,
rename, remove, make a folder, bring it to the disk. At the chosen event the child ends by SIGKILL. Run again to its
end, it must leave the arrays of a run that nobody has killed, and no file beside them.
"""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
from fuzzing.children import ended, forked, left_behind, members

SECONDS = 120.0  # for one command
LOCKS = re.compile(r"\.(.*\.)?lock$")  # empty files that stay
EVENTS = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1, "shutil.rmtree": 1}


class Command(NamedTuple):
    """A command at the smallest scale. main: its function. arguments: with {folder} for where it writes.

    named: an option and two of its values by which two trainings are told apart, ("--lr", "0.01", "0.02").
    """

    name: str
    main: object
    arguments: str
    named: tuple = ()

    def argv(self, folder, *more):
        return ["fuzz", *(part.format(folder=folder) for part in self.arguments.split()), *more]


class Attempt(NamedTuple):
    """What a forked command came to. status, signal: as it ended. printed: by it. left: processes of its own."""

    status: int | None
    signal: int | None
    printed: str
    left: int


def watching(folder, at):
    """Count events of writing below a folder; the process is killed before number `at`, from 1. Returns the count."""
    folder, count = (str(folder), str(folder.with_name(f".{folder.name}."))), [0]  # and what lies beside it

    def event():
        count[0] += 1
        if count[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(name, arguments):
        if name == "open":
            path, mode, flags = arguments
            written = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else set(mode or "") & set("wax+")
            if written and isinstance(path, (str, bytes)) and os.fsdecode(path).startswith(folder):
                event()
        elif name in EVENTS and any(_below(path, folder) for path in arguments[: EVENTS[name]]):
            event()

    before = os.fsync

    def fsync(file):
        if os.path.realpath(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}").startswith(folder):
            event()
        before(file)

    os.fsync = fsync
    sys.addaudithook(hook)
    return count


def _below(path, folder):
    return isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(folder)


def started(command, folder, *more, at=None, counted=None):
    """The id of a forked command that writes into a folder. at: the event before which it is killed.

    counted: a file that gets the number of its events.
    """

    def work():
        count = watching(folder, at) if at is not None or counted is not None else [0]
        sys.argv = command.argv(folder, *more)
        status = 0
        try:
            config.run_command(command.main)
        except SystemExit as end:
            status = end.code
        if counted is not None:
            counted.write_text(str(count[0]))
        return status

    return forked(work, printed_at(folder), memory=None)


def printed_at(folder, *more):
    """The file that gets what the command prints that writes into a folder."""
    return folder.with_name(f"{folder.name}.printed")


def finished(pid, folder, seconds=SECONDS):
    """The `Attempt` of a forked command, once it has ended."""
    over = ended(pid, seconds)
    text = printed_at(folder).read_text(errors="replace") if printed_at(folder).exists() else ""
    return Attempt(over.status, over.signal, text, left_behind(pid))


def results(folder):
    """{name: array} of every array below a folder, and {name: bytes} of its networks and trees."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found |= {f"{name}:{key}": file[key] for key in file.files}
        elif path.suffix == ".npy":
            found[name] = np.load(path, allow_pickle=False)
        elif path.suffix in (".pt", ".ubj") or path.name in ("DONE", "history.csv"):
            found[name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


def differing(found, wanted):
    """The names of arrays that are not the same in both."""
    names = sorted({*found, *wanted})
    return [n for n in names if n not in found or n not in wanted or not np.array_equal(found[n], wanted[n])]


def strays(folder, wanted):
    """Files that a run which nobody has killed does not leave."""
    there, usual = ({str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in (folder, wanted))
    there |= {p.name for p in folder.parent.glob(f".{folder.name}.*")} - {printed_at(folder).name}
    return sorted(name for name in there - usual if not LOCKS.search(Path(name).name))


def whole(attempt):
    """What is wrong with an attempt that must have come to its end, "" for nothing."""
    if attempt.status == 0:
        return ""
    return f"status {attempt.status}, signal {attempt.signal}: {' '.join(attempt.printed.split())[-400:]}"


class Killing:
    """A command, how it runs when nobody kills it, and kills of it. Outcomes are (outcome, what, said)."""

    def __init__(self, command, root):
        self.command, self.root = command, root
        self.wanted, counted = root / "wanted", root / "counted"
        begun = time.monotonic()
        problem = whole(finished(started(command, self.wanted, counted=counted), self.wanted))
        if problem:
            raise RuntimeError(f"{command.name} does not run: {problem}")
        self.seconds = time.monotonic() - begun
        self.events, self.results = int(counted.read_text()), results(self.wanted)

    def before(self, event):
        """Kill before one event, and run again."""
        return self._again(f"killed before event {event}", lambda folder: started(self.command, folder, at=event))

    def at_random(self, rng):
        """Kill at up to three random moments, one after the other, and run again."""
        moments = rng.uniform(0, self.seconds, int(rng.integers(1, 4)))
        return self._again(f"killed after {', '.join(f'{m:.3f}' for m in moments)} s", None, moments)

    def _again(self, what, start, moments=()):
        folder = self.root / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        left = 0
        if start is not None:
            attempt = finished(start(folder), folder)
            left += attempt.left
            if attempt.signal != signal.SIGKILL:
                return "foreign", what, f"it was not killed: {whole(attempt)}"
        for moment in moments:
            pid = started(self.command, folder)
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            left += finished(pid, folder).left
        attempt = finished(started(self.command, folder), folder)
        left += attempt.left
        return self._judged(folder, what, attempt, left)

    def _judged(self, folder, what, attempt, left):
        if left:
            return "left", what, f"{left} processes"
        if whole(attempt):
            return "foreign", what, whole(attempt)
        if wrong := differing(results(folder), self.results):
            return "other", what, f"differs in {', '.join(wrong[:5])}"
        if more := strays(folder, self.wanted):
            return "lost", what, f"left behind {', '.join(more[:5])}"
        return "right", what, ""

    def two(self, rng, more=()):
        """Start a second process with arguments `more` while the first is at work: it must be refused in one line.

        The first stands still meanwhile, so that it is at work for certain.
        """
        folder, moment = self.root / "two", float(rng.uniform(0, 0.4 * self.seconds))
        what = f"a second one {' '.join(more)} after {moment:.3f} s".replace("  ", " ")
        shutil.rmtree(folder, ignore_errors=True)
        first = started(self.command, folder)
        deadline = time.monotonic() + SECONDS
        while not _begun(folder) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment)
        at_work = members(first)
        for process in at_work:
            os.kill(process, signal.SIGSTOP)
        output = folder.with_name("second.printed")
        second = forked(lambda: self._main(folder, more), output, memory=None)
        over = ended(second, SECONDS)
        for process in members(first):
            os.kill(process, signal.SIGCONT)
        attempt = finished(first, folder)
        said = " ".join(output.read_text(errors="replace").split())
        if left := attempt.left + left_behind(second):
            return "left", what, f"{left} processes"
        if not at_work:
            return "right", what, "the first had ended before"
        if over.status == 2 and said.count("error: ") == 1 and "Traceback" not in said:
            found = self._judged(folder, what, attempt, 0)
            return ("refused", what, said) if found[0] == "right" else found
        return "foreign" if over.status else "other", what, f"the second ended with {over.status}: {said[-300:]}"

    def _main(self, folder, more):
        sys.argv = self.command.argv(folder, *more)
        config.run_command(self.command.main)


def _begun(folder):
    return any(path.is_file() for path in folder.rglob("*"))
