"""The text of a file, whichever way its letters are written, where that can be told from its bytes."""

import codecs
import gzip
import io
import re
import zlib

from config import UserError, expanded, shown

MARKS = (  # of the order of bytes, at the beginning of a file; the longer ones first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OTHERS = (  # how files that are no table of text begin
    (b"PK\x03\x04", "an Excel file or another zip archive", "save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel file of the old kind", "save the sheet as CSV"),
    (b"PAR1", "a Parquet file", "save the table as CSV"),
    (b"BZh", "compressed by bzip2", "unpack it first"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first"),
    (b"%PDF", "a PDF file", "save the table as CSV"),
    (b"SQLite format 3", "an SQLite file", "save the table as CSV"),
)
GZIP, MOST = b"\x1f\x8b", 2**30  # bytes of an unpacked file
STRANGE = "[a-z](?=[^\\W\\d_])[À-ÞŠŒŽŸ]|[A-Za-z][¡-©«-´¶-¹»-¿×÷†‡‰ˆ˜][a-z]"  # a capital or a sign within a word
ODD = 0.2  # share of letters beyond ASCII from which on a text of one byte a letter is not taken for a western one


def read_text(path, encoding=None):
    """The text of a file, and notes (list) of how it was read. encoding: its name; None: it is found.

    Found are UTF-8, UTF-16 and UTF-32 by their marks, and else Windows-1252, of which Latin-1's letters are a part, for
    what reads as a western language. Raises UserError for what cannot be told.
    """
    path, notes = expanded(path), []
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{shown(path)} is a folder or a device: give a CSV file")
        if path.stat().st_size > MOST:
            raise UserError(f"{shown(path)} has more than {MOST:,} bytes: give a part of the table at a time")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {shown(path)} ({error.strerror}): give a CSV file") from error
    if data.startswith(GZIP):
        try:
            data = _unpacked(path, data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{shown(path)} is a broken gzip file ({error}): give it whole, or a CSV file") from error
        notes.append("the file is compressed by gzip")
    for start, what, remedy in OTHERS:
        if data.startswith(start):
            raise UserError(f"{shown(path)} is {what}, not a CSV file: {remedy}")
    if encoding is not None:
        return _given(path, data, encoding), notes
    found = next((name for mark, name in MARKS if data.startswith(mark)), None) or _guessed(path, data)
    if found not in ("utf-8", "utf-8-sig"):
        notes.append(f"the file is read as {found}; --encoding names another one")
    return _decoded(path, data, found), notes


def _unpacked(path, data):
    """What gzip has packed, of a size that a table can have in memory."""
    with gzip.open(io.BytesIO(data)) as file:
        found = file.read(MOST + 1)
    if len(found) > MOST:
        raise UserError(f"{shown(path)} unpacks to more than {MOST / 1e9:.1f} GB: unpack it, and give a part of it")
    return found


def _given(path, data, encoding):
    try:
        name = codecs.lookup(encoding).name
        text_codec = getattr(codecs.lookup(encoding), "_is_text_encoding", True)
    except (LookupError, ValueError):
        text_codec = False
    if not text_codec:
        raise UserError(f"got --encoding {encoding}: give one such as utf-8, cp1252, utf-16 or shift_jis")
    return _decoded(path, data, "utf-8-sig" if name == "utf-8" else name)


def _decoded(path, data, encoding):
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        line = data[: getattr(error, "start", 0)].count(b"\n") + 1
        raise UserError(
            f"line {line} of {shown(path)} is not written in {encoding}: name its own as --encoding"
        ) from error
    if re.search("[\ud800-\udfff]", text):
        raise UserError(f"{shown(path)} holds halves of letters as {encoding}: name its own as --encoding")
    if "\0" in text:
        raise UserError(f"{shown(path)} holds zero bytes as {encoding}: name its --encoding, such as utf-16-le")
    return text


def _guessed(path, data):
    """The encoding of bytes without a mark."""
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
    ask = f"line {line} of {shown(path)} is not UTF-8: name its --encoding, such as cp1252, cp1250 or shift_jis"
    mixed = re.search(rb"[\xc3-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}", data)
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise UserError(ask) from None
    letters = [c for c in text if c.isalpha()]
    beyond = sum(not c.isascii() for c in letters)
    if mixed or re.search(STRANGE, text) or beyond > ODD * len(letters):
        raise UserError(ask)
    return "cp1252"
