"""Folders that are written: by one process at a time, several files in one step, nothing left of those that died."""

import contextlib
import os
import re
import shutil
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from config import UserError, shown
from models.files import load_json, save_json

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")
STAGED = ".staged"  # the folder of files that are to be moved in together
STEP = ".step.json"  # their list, once all are whole


@contextlib.contextmanager
def holding(folder, doing):
    """Hold a folder that is to be written, until the block or the process ends; doing: what for, for the others.

    What a dead process left half-done in it is cleared, or finished where all of it was whole. Raises UserError where
    another process holds it, and says which.
    """
    folder = Path(folder)
    lock, holder = (folder.with_name(f".{folder.name}.{name}") for name in ("lock", "holder.json"))
    held = FileLock(lock, blocking=False)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise UserError(f"{shown(folder)} is being written by {_who(holder)}: wait for its end, or stop it") from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"cannot hold {shown(folder)} ({error}): give a folder that can be written") from error
    try:
        save_json(holder, {"doing": doing, "process": os.getpid(), "host": socket.gethostname(), "since": time.ctime()})
        settle(folder)
        clear(folder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _who(holder):
    """Who holds a folder, as far as it is known."""
    try:
        known = load_json(holder, "")
        return f"{known['doing']} (process {known['process']} on {known['host']}, since {known['since']})"
    except (UserError, KeyError):
        return "another process"


def is_temporary(path):
    """Whether `path` is a file that was being written when its process was killed, or one of a step."""
    return _TEMPORARY.fullmatch(path.name) is not None or STAGED in path.parts or path.name == STEP


def clear(folder):
    """Remove what dead processes were writing below a folder that is held."""
    for path in sorted(Path(folder).rglob(".*")):
        if path.name == STAGED and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_together(folder):
    """Yield a folder for files and folders that are moved into `folder` in one step when the block ends without error.

    The old ones stay until all are whole. A step that was killed is finished by `settle`; what is there and not written
    again stays, but for folders, which are replaced whole. A file of the name `name.gone` removes `name`.
    """
    staged = Path(folder) / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        yield staged
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise UserError(f"cannot write {shown(folder)}: {error.strerror or error}; choose another folder") from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    save_json(Path(folder) / STEP, {"names": sorted(path.name for path in staged.iterdir())})
    settle(folder)


def settle(folder):
    """Finish a step that was killed in a folder, and in those below it. Raises UserError where it cannot be written."""
    folder = Path(folder)
    for step in [folder / STEP, *folder.glob(f"*/{STEP}")]:
        if not step.exists():
            continue
        names = load_json(step, "delete it, and make again what is beside it", {"names": _is_names})["names"]
        try:
            for name in names:
                _move_in(step.with_name(STAGED) / name, step.parent)
            step.unlink()
            shutil.rmtree(step.with_name(STAGED), ignore_errors=True)
        except OSError as error:
            raise UserError(
                f"cannot finish what was begun in {shown(step.parent)}: {error.strerror or error}; make it writable"
            ) from error


def _is_names(value):
    return isinstance(value, list) and all(isinstance(name, str) and Path(name).name == name for name in value)


def _move_in(staged, folder):
    if not staged.exists():  # moved before the process was killed
        return
    if staged.suffix == ".gone":
        old = folder / staged.stem
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        staged.unlink()
        return
    new = folder / staged.name
    if new.is_dir():
        shutil.rmtree(new)
    os.replace(staged, new)
