"""Files that are whole or not there: atomic writes with a checksum, and reads that check it and never unpickle."""

import contextlib
import errno
import glob
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from config import UserError, shown
from models import checksums, stopping
from models.arrays import check_arrays, members, read_array
from models.checksums import Damaged

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
        _clear_dead(path)
        with stopping.temporary(temporary):
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


def _clear_dead(path):
    """Remove what dead processes of this machine have left of the same file."""
    for stray in path.parent.glob(f".{glob.escape(path.name)}.*.tmp{glob.escape(path.suffix)}"):
        process = stray.name.removesuffix(f".tmp{path.suffix}").rpartition(".")[2]
        if process.isdecimal():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                stray.unlink(missing_ok=True)
            except (OSError, OverflowError):  # alive, another user's, or no process's number
                continue


def save_npz(path, *, compressed=False, training=None, **arrays):
    """Write `arrays` as an .npz file with a checksum; training: the fingerprint of the training that it belongs to.

    As numpy.savez writes it, but the archive is closed when a write fails: releases before numpy 2 leave it to the
    interpreter, which then prints a traceback.
    """
    compression = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with replacing(path) as temporary, open(temporary, "wb") as file:
        checked = checksums.Checked(file)
        with zipfile.ZipFile(checked, "w", compression) as archive:
            archive.comment = checksums.PLACE
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        checked.seal(training)


def save_npy(path, array, training=None):
    """Write one array as an .npy file with a checksum; training: as for `save_npz`."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
    save_bytes(path, checksums.sealed(buffer.getvalue(), training))


def save_json(path, value, *, checked=True):
    """Write an object as indented JSON; checked: with a checksum among its keys."""
    if checked:
        value = {**value, "checksum": checksums.checksum(_canonical(value))}
    save_text(path, json.dumps(value, indent=2) + "\n")


def _canonical(value):
    """An object as JSON, in one way, without its checksum."""
    value = json.loads(json.dumps(value))
    return json.dumps({k: v for k, v in value.items() if k != "checksum"}, sort_keys=True)


def save_bytes(path, data):
    """Write bytes, as `checksums.sealed` makes them."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def save_text(path, text):
    """Write `text` in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown_table(header, rows):
    """Rows of cells, strings, as a table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def load_npz(path, keys, remedy, optional=()):
    """Read the arrays called `keys`, and those of `optional` that are there, from an .npz file.

    Both may be {name: `Array`}, what they have to be. Raises UserError, ending in `remedy`, where the file is missing,
    damaged, holds pickled objects, lacks a key or has another type, shape or range.
    """
    with readable(path, remedy):
        with checksums.content(path) as content:
            if bytes(content.data[:6]) == b"\x93NUMPY":
                raise UserError(f"{shown(path)} holds one array, not an .npz archive: {remedy}")
            arrays, names = members(path, content, keys, optional)
        if arrays is None:
            missing = ", ".join(key for key in keys if key not in names)
            raise UserError(f"{shown(path)} has no {missing} (it has {', '.join(names)}): {remedy}")
        wanted = {name: array for some in (keys, optional) if isinstance(some, dict) for name, array in some.items()}
        check_arrays(arrays, wanted, shown(path), remedy)
        return arrays


def load_npy(path, remedy, array=None):
    """Read one array; array: the `Array` that it has to be. Raises UserError, ending in `remedy`, where it is missing,
    damaged, pickled or another one."""
    with readable(path, remedy):
        with checksums.content(path) as content:
            if bytes(content.data[:2]) == b"PK":
                raise UserError(f"{shown(path)} holds an archive, not one array: {remedy}")
            found, end = read_array(content.data)
            if end != len(content.data):
                raise Damaged("something follows the array")
        if array is not None:
            check_arrays({"it": found}, {"it": array}, shown(path), remedy)
        return found


def load_json(path, remedy, fields=None):
    """Read a JSON object; fields: {name: condition(value)} of those that must hold where the name is there.

    Raises UserError, ending in `remedy`, where it is missing, damaged, no object or another one.
    """
    with readable(path, remedy):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise UserError(f"{shown(path)} holds no JSON object: {remedy}")
        known = value.pop("checksum", None)
        if known is not None and known != checksums.checksum(_canonical(value)):
            raise Damaged("its checksum is another one")
    for name, condition in (fields or {}).items():
        if name in value and not condition(value[name]):
            raise UserError(f"{shown(path)} has another {name} than is written there: {remedy}")
    return value


def load_bytes(path, remedy, end=b""):
    """(bytes, fingerprint of the training or None, whether a checksum was there) of a file that `save_bytes` wrote.

    end: what a file without a checksum ends with. Raises UserError, ending in `remedy`, where it is damaged.
    """
    with readable(path, remedy), checksums.content(path) as content:
        if not content.checked and bytes(content.data[len(content.data) - len(end) :]) != end:
            raise Damaged("it ends too early")
        return bytes(content.data), content.training, content.checked


@contextlib.contextmanager
def readable(path, remedy):
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
