"""Checksums at the end of files, where no reader of their formats looks: a line of fixed length.

    … the file as its format has it …
    # xxh3-128 <checksum of all before, and of what follows> of <fingerprint of the training, or dashes>

NumPy and XGBoost stop reading before it; an .npz or .pt archive has it as the comment of the zip. A file without the
line, such as one of the official release, is read unchecked.
"""

import contextlib
import mmap
import os
import re
import struct
from typing import NamedTuple

import xxhash

NOBODY = "-" * 16
_LINE = re.compile(rb"\n# xxh3-128 ([0-9a-f]{32}) of ([0-9a-f]{16}|-{16})\n")
LENGTH = len(b"\n# xxh3-128 ") + 32 + len(b" of ") + 16 + 1
PLACE = bytes(LENGTH)  # of the line, before it is known
END = struct.Struct("<4s4H2LH")  # of a zip archive, before its comment
SIGNATURE = b"PK\5\6"


class Damaged(ValueError):
    """What a file holds is not what was written."""


class Checked:
    """A file that is written: its checksum is taken on the way, of all but the last piece, `PLACE`."""

    def __init__(self, file):
        self.file, self.hash, self.last = file, xxhash.xxh3_128(), b""

    def write(self, data):
        self.hash.update(self.last)
        self.last = data if isinstance(data, bytes) else bytes(data)
        self.file.write(self.last)
        return len(self.last)

    def flush(self):
        self.file.flush()

    def seal(self, training):
        """Put the line in its place."""
        assert self.last == PLACE, "the place of the checksum comes last"
        self.file.seek(-LENGTH, 2)
        self.file.write(_line(self.hash, training))


def sealed(data, training=None):
    """`data` with the line."""
    return data + _line(xxhash.xxh3_128(data), training)


def sealed_archive(data, training=None):
    """A zip archive without a comment, with the line as its comment."""
    assert data[-END.size :][:4] == SIGNATURE, "the archive has a comment"
    return sealed(data[:-2] + struct.pack("<H", LENGTH), training)


def checksum(data):
    """The checksum of text or bytes, as text."""
    return xxhash.xxh3_128_hexdigest(data.encode() if isinstance(data, str) else data)


def _line(hash, training):
    training = (training or NOBODY).encode()
    hash.update(training)
    line = b"\n# xxh3-128 %s of %s\n" % (hash.hexdigest().encode(), training)
    assert _LINE.fullmatch(line), "a fingerprint is 16 hexadecimal digits"
    return line


class Content(NamedTuple):
    """data: a file without its line. training: the fingerprint that it carries, None for none. checked: by the line."""

    data: memoryview
    training: str | None
    checked: bool


@contextlib.contextmanager
def content(path):
    """Yield the checked `Content` of a file, mapped into memory. Raises Damaged where it is not what was written."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
        line = _LINE.fullmatch(bytes(data[-LENGTH:]))
        if line is None:
            yield Content(data, None, False)
            return
        data, training = data[:-LENGTH], line[2].decode()
        hash = xxhash.xxh3_128(data)
        hash.update(line[2])
        if hash.hexdigest().encode() != line[1]:
            raise Damaged("its checksum is another one")
        yield Content(data, None if training == NOBODY else training, True)


def training_of(path):
    """The fingerprint of the training that a file belongs to, None where it says none or is not there.

    Its last line alone is read: whoever reads the rest checks it.
    """
    try:
        with open(path, "rb") as file:
            file.seek(-LENGTH, os.SEEK_END)
            line = _LINE.fullmatch(file.read())
    except OSError:  # missing, or shorter
        return None
    return None if line is None or line[2].decode() == NOBODY else line[2].decode()


def archive_unbroken(data):
    """Whether a zip archive without the line never had one: a comment of its length was one."""
    tail = bytes(data[-(END.size + LENGTH) :])
    at = tail.rfind(SIGNATURE)
    return at >= 0 and len(tail) - at >= END.size and END.unpack_from(tail, at)[-1] != LENGTH
