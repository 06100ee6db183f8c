"""Children of this process: forked, each in its own session, bounded in time and memory, looked for afterwards."""

import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

MEMORY = 3 * 2**30  # bytes of address space that a child may take beyond what it begins with
PATIENCE = 5.0  # seconds in which the workers of an ended process must have ended too


class Ended(NamedTuple):
    """How a child ended. status: its exit status, None for none. signal: that killed it, None for none; late: by us."""

    status: int | None
    signal: int | None
    late: bool


def forked(work, output=os.devnull, memory=MEMORY):
    """The id of a child that runs work() and ends with what it returns, 0 for None, or with its SystemExit.

    output: the file that gets what it prints. memory: bytes that it may take, None for no bound.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70  # of an exception that nobody has caught
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for ours, theirs in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(ours, theirs)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        if memory is not None:
            bound = _taken() + memory
            resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        status = work() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _taken():
    """The address space of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def ended(pid, seconds):
    """Wait for a child; after so many seconds its whole session is killed."""
    deadline = time.monotonic() + seconds
    late = False
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            late = True
            kill(pid)
        time.sleep(0.002)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return Ended(None if killed else os.WEXITSTATUS(status), killed, late)


def kill(pid):
    """SIGKILL to the session that a child leads."""
    for other in [pid, *members(pid)]:
        try:
            os.kill(other, signal.SIGKILL)
        except ProcessLookupError:
            pass


def members(session):
    """The living processes of a session."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                state, _, _, of, *_ = (place / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if int(of) == session and state != "Z":
                found.append(int(place.name))
    return found


def left_behind(session):
    """How many processes of an ended child's session are still there after some patience; they are killed then."""
    deadline = time.monotonic() + PATIENCE
    while (found := members(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if found:
        kill(session)
    return len(found)
