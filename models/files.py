"""Files that are whole or not there: atomic writes, and reads that never unpickle."""

import contextlib
import errno
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from config import UserError, shown

_CAUSES = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk is full", errno.EEXIST: "its folder is a file"}


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path in the folder of `path`, which becomes `path` when the block ends without an error.

    The folder is made where it is missing. A process killed in between leaves the old file, or none.
    Raises UserError where the folder cannot be written or is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        cause = _CAUSES.get(error.errno, error.strerror or error)
        raise UserError(f"cannot write {shown(path)}: {cause}; free the folder or choose another one") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def save_npz(path, *, compressed=False, **arrays):
    """Write `arrays` as an .npz file.

    As numpy.savez writes it, but the archive is closed when a write fails: releases before numpy 2 leave it to the
    interpreter, which then prints a traceback.
    """
    compression = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def save_npy(path, array):
    """Write one array as an .npy file."""
    with replacing(path) as temporary:
        np.save(temporary, array)


def save_json(path, value):
    """Write `value` as indented JSON."""
    save_text(path, json.dumps(value, indent=2) + "\n")


def save_text(path, text):
    """Write `text` in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown_table(header, rows):
    """Rows of cells, strings, as a table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def load_npz(path, keys, remedy, optional=()):
    """Read the arrays called `keys`, and those of `optional` that are there, from an .npz file.

    Raises UserError, ending in `remedy`, where the file is missing, damaged, holds pickled objects or lacks a key.
    """
    with _readable(path, remedy):
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(f"{shown(path)} holds one array, not an .npz archive: {remedy}")
        with file:
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise UserError(f"{shown(path)} has no {', '.join(missing)} (it has {', '.join(file.files)}): {remedy}")
            return {key: file[key] for key in [*keys, *(key for key in optional if key in file.files)]}


def load_npy(path, remedy):
    """Read one array. Raises UserError, ending in `remedy`, where it is missing, damaged or pickled."""
    with _readable(path, remedy):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise UserError(f"{shown(path)} holds an archive, not one array: {remedy}")
        return array


def load_json(path, remedy):
    """Read a JSON object. Raises UserError, ending in `remedy`, where it is missing, damaged or no object."""
    with _readable(path, remedy):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise UserError(f"{shown(path)} holds no JSON object: {remedy}")
        return value


@contextlib.contextmanager
def _readable(path, remedy):
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{Path(path).name} not found in {shown(Path(path).parent)}: {remedy}") from None
    except OSError as error:
        raise UserError(f"cannot read {shown(path)} ({error.strerror or error}): {remedy}") from error
    except Exception as error:  # a damaged header can end in nearly any exception of the parsers below
        pickled = "Object arrays" in str(error)
        cause = "holds pickled objects, which are never loaded" if pickled else "is damaged or of another format"
        raise UserError(f"{shown(path)} {cause}: {remedy}") from error
