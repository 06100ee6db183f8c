"""Arrays in files: what they have to be, and how they are read from checked bytes."""

import io
import math
import struct
import zipfile
from typing import NamedTuple

import numpy as np

from config import UserError
from models.checksums import Damaged, archive_unbroken

KINDS = {"f": "real numbers", "i": "whole numbers", "b": "truth values", "U": "text"}
ONE_AS_WELL = 2**26  # bytes that an archive may unpack to, however small it is
UNPACKED = 200  # times its size that a larger one may
HEADER = 2**16  # bytes in which an array's header ends


class Array(NamedTuple):
    """What an array of a file has to be.

    kinds: of NumPy's, "f" floats, "i" whole numbers, "b" truth values, "U" text. shapes: those that it may have, with
    letters for lengths that are the same in all arrays of a file: ("n", "d"). least, most: of its numbers, which are
    finite; least None: any, infinities and NaN among them.
    """

    kinds: str
    shapes: tuple
    least: float | None = -math.inf
    most: float = math.inf


def check_arrays(arrays, wanted, name, remedy):
    """Raise UserError where arrays are not the `Array`s that are wanted of them, by name."""
    lengths = {}
    for key, array in arrays.items():
        what = wanted.get(key)
        if what is None:
            continue
        if array.dtype.kind not in what.kinds.replace("i", "iu"):
            raise UserError(f"{name}: {key} holds {array.dtype}, expected {KINDS[what.kinds[0]]}: {remedy}")
        fitted = next((f for shape in what.shapes if (f := _fitted(array.shape, shape, lengths)) is not None), None)
        if fitted is None:
            shapes = (tuple(lengths.get(x, x) for x in shape) for shape in what.shapes)
            expected = " or ".join(str(shape).replace("'", "") for shape in shapes)
            raise UserError(f"{name}: {key} has shape {array.shape}, expected {expected}: {remedy}")
        lengths = fitted
        if array.dtype.kind in "fiu" and what.least is not None and array.size:
            low, high = array.min(), array.max()
            if not (what.least <= low and high <= what.most and math.isfinite(low) and math.isfinite(high)):
                expected = "finite numbers" if what.least == -math.inf else f"numbers from {what.least} to {what.most}"
                raise UserError(f"{name}: {key} goes from {low} to {high}, expected {expected}: {remedy}")


def _fitted(shape, wanted, lengths):
    """`lengths` of letters, with those that `shape` says; None where it is no such shape."""
    if len(shape) != len(wanted):
        return None
    lengths = dict(lengths)
    for length, letter in zip(shape, wanted):
        if length != (lengths.setdefault(letter, length) if isinstance(letter, str) else letter):
            return None
    return lengths


def read_array(data):
    """(array, bytes read) of the bytes of an .npy file. Raises Damaged where they hold less than its header says."""
    head = io.BytesIO(bytes(data[:HEADER]))
    version = np.lib.format.read_magic(head)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise Damaged(f"its header is of version {version}")
    shape, fortran, dtype = reader(head)
    if dtype.hasobject:
        raise ValueError("Object arrays are never loaded")
    count, start = math.prod(shape), head.tell()
    end = start + count * dtype.itemsize
    if min(shape, default=0) < 0 or end > len(data):
        raise Damaged("it ends too early")
    flat = np.frombuffer(data, dtype, count, start) if count and dtype.itemsize else np.empty(count, dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K"), end


def members(path, content, keys, optional):
    """({name: array} of those in an .npz archive, the names of all that it has); None for missing `keys`.

    Those of a checked archive come straight from its memory; those of another one are compared with the checksums that
    the zip format keeps. Raises Damaged, and for an archive that would unpack to more than it can hold.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if not set(keys) <= set(names):
            return None, names
        if len(set(names)) < len(names) or not (content.checked or archive_unbroken(content.data)):
            raise Damaged("its directory is damaged")
        wanted = {name: archive.getinfo(f"{name}.npy") for name in (*keys, *(k for k in optional if k in names))}
        if sum(info.file_size for info in wanted.values()) > max(ONE_AS_WELL, UNPACKED * len(content.data)):
            raise Damaged("it unpacks to more than it can hold")
        return {name: _member(archive, info, content) for name, info in wanted.items()}, names


def _member(archive, info, content):
    if content.checked and info.compress_type == zipfile.ZIP_STORED:
        length, more = struct.unpack_from("<HH", content.data, info.header_offset + 26)
        start = info.header_offset + 30 + length + more
        return read_array(content.data[start : start + info.file_size])[0]
    with archive.open(info) as file:  # not in one piece beyond what the directory says
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise Damaged("its directory is damaged")
    return read_array(data)[0]
