"""The cells of a table in a file, as they are written there: separator, header, comments, units and ragged rows."""

import csv
import re
from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import UserError, shown
from explainer.label_errors.decoding import read_text

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "pipe": "|", "space": " "}
SAMPLE = 200  # records from which the separator is found
LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")  # with its end
NAMED = 5  # lines that a message names, at most


class Cells(NamedTuple):
    """names (columns,): of the header. columns: their cells, texts (n,) each. lines (n,): where each row begins, from
    1. separator. notes: how the file was read."""

    names: list
    columns: list
    lines: np.ndarray
    separator: str
    notes: list


class Record(NamedTuple):
    """cells of a record; the line where it begins, from 1; whether that line begins with #."""

    cells: list
    line: int
    hash: bool


def read_cells(path, target, separator=None, encoding=None):
    """The `Cells` of a file with a header that has a column `target`.

    separator: of cells, a letter or one of `NAMES`; None: that of `SEPARATORS` which splits the rows alike. encoding:
    as `read_text` takes it. Raises UserError, in one line, for what is no such table, and for rows of other lengths
    than the header's.
    """
    path = Path(path)
    text, notes = read_text(path, encoding)
    first = re.match(r"sep=(.)\r?\n", text)  # written by Excel
    if first:
        text, separator = " \n" + text[first.end() :], separator or first[1]
    if not text.strip():
        raise UserError(f"{shown(path)} is empty: give a CSV file with a header")
    if re.match(r"\s*(<(!doctype|html|table|\?xml)|[{\[]\s*[\"{\[\]}])", text, re.IGNORECASE):
        raise UserError(f"{shown(path)} is HTML, XML or JSON, not a CSV file: save the table as CSV")
    if separator is None:
        separator = _separator(path, text, target)
        if separator != ",":
            notes.append(f"the columns are separated by {SEPARATORS[separator]}; --separator names another sign")
    else:
        separator = checked_separator(separator)
    if separator != " " and _spaced(text, separator):
        notes.append("spaces after the separators are left out")
    return _table(path, _records(path, text, separator), target, separator, notes)


def checked_separator(given):
    """The separator that the user names. Raises UserError for what is none."""
    separator = NAMES.get(given.lower(), given)
    if len(separator) != 1 or separator in '"\r\n\0' or separator.isalnum():
        raise UserError(f"got --separator {given!r}: give one sign, such as ; or one of {', '.join(NAMES)}")
    return separator


def _records(path, text, separator):
    """The `Record`s of a text."""
    raw, line = [], 1

    def lines():
        for match in LINE.finditer(text):  # io.StringIO would hold four bytes for each letter
            raw.append(match[0])
            yield match[0]

    spaced = separator == " " or _spaced(text, separator)
    reader = csv.reader(lines(), delimiter=separator, strict=True, skipinitialspace=spaced)
    while True:
        raw.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"the record in line {line} of {shown(path)} cannot be read ({error}): mend its quotes"
            ) from error
        quoted = len(cells) == 1 and cells[0].startswith("#")
        yield Record(cells, line, quoted or raw[0].startswith("#"))
        line = reader.line_num + 1


def _spaced(text, separator):
    """Whether a space follows every separator of the first lines, or precedes a quote after one."""
    some = "\n".join(text[:20000].splitlines()[:50])
    sign = re.escape(separator)
    everywhere = re.search(sign + " ", some) and not re.search(sign + "(?! )", some)
    return bool(everywhere or re.search(sign + ' +"(?!")', some))


def _separator(path, text, target):
    """The separator that splits header and rows into equally many cells; one of several only with the target."""
    fits, heads = [], []
    for separator in SEPARATORS:
        try:
            some = list(islice(_records(path, text, separator), SAMPLE))
        except UserError:
            continue
        some = [record for record in some if any(cell.strip() for cell in record.cells)]
        head = _header(some, target)
        names = [name.strip() for name in some[head].cells] if some else []
        if len(names) < 2:
            continue
        rows = [_trimmed(record.cells, len(names)) for record in some[head + 1 :] if not record.hash]
        alike = sum(len(cells) == len(names) for cells in rows) >= max(1, 0.8 * len(rows))
        heads.append((target in names, separator))
        fits += [(target in names, separator)] if alike else []
    for found in ([s for known, s in fits if known], [s for known, s in heads if known], [s for _, s in fits]):
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            signs = " and by ".join(SEPARATORS[s] for s in found)
            raise UserError(f"{shown(path)} can be separated by {signs}: name the sign as --separator")
    return ","


def _header(records, target):
    """The number of the record that is the header: the first one that is not a comment, or has the target."""
    for k, record in enumerate(records):
        if not record.hash or target in [cell.strip() for cell in record.cells]:
            return k
    return 0


def _trimmed(cells, width):
    """Cells without an empty one beyond the header's."""
    return cells[:-1] if len(cells) == width + 1 and not cells[-1].strip() else cells


def _table(path, records, target, separator, notes):
    """The `Cells` of records."""
    comments, top = 0, []
    for record in records:
        if not any(cell.strip() for cell in record.cells):
            continue
        top.append(record)
        if not record.hash or target in [cell.strip() for cell in record.cells]:
            break
    head = top[_header(top, target)]
    comments += len(top) - 1
    names = [name.strip() for name in head.cells]
    rows, lines, wrong, hashes = [], [], [], []
    for record in records:
        cells = record.cells
        if not any(cell.strip() for cell in cells) and len(cells) != len(names):
            continue  # a blank line
        if record.hash and len(cells) != len(names):
            comments += 1
            continue
        if record.hash:
            hashes.append(record.line)
        if len(cells) != len(names):
            wrong.append((record.line, len(cells), not cells[-1].strip()))
        rows.append(cells)
        lines.append(record.line)
    if hashes and len(hashes) < len(rows):
        raise UserError(
            f"line {hashes[0]} of {shown(path)} begins with # and has as many cells as a row: delete it where it is a "
            "comment, quote its first cell where it is a row"
        )
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop(), lines.pop()
    if wrong:
        rows = _mended(path, names, rows, wrong, notes)
    if comments:
        notes.append(f"{comments} lines that begin with # are comments")
    columns = [np.array(column, dtype=object) for column in zip(*rows)] or [np.empty(0, object) for _ in names]
    cells = Cells(names, columns, np.array(lines, int), separator, notes)
    return _named(path, target, cells)


def _mended(path, names, rows, wrong, notes):
    """Rows whose lines all end with one more separator than the header, without it. Raises UserError for others."""
    if len(wrong) == len(rows) and all(width == len(names) + 1 and empty for _, width, empty in wrong):
        notes.append("every row ends with a separator that the header lacks; it is left out")
        return [cells[:-1] for cells in rows]
    widths = Counter(width for _, width, _ in wrong)
    lines = ", ".join(str(line) for line, *_ in wrong[:NAMED]) + (" ..." if len(wrong) > NAMED else "")
    place = f"lines {lines} of {shown(path)} have" if len(wrong) > 1 else f"line {lines} of {shown(path)} has"
    cells = " or ".join(str(width) for width in sorted(widths)[:NAMED])
    remedy = "give every row as many cells as the header, and quote cells that hold the separator"
    if len(wrong) == len(rows) and widths.keys() == {len(names) + 1}:
        remedy = "give every column a name in the header, that of row names as well"
    raise UserError(f"{place} {cells} cells, the header {len(names)}: {remedy}")


def _named(path, target, cells):
    """The cells with a name for each column, and without empty columns that have none."""
    names, columns, notes = [], [], cells.notes
    for j, (name, column) in enumerate(zip(cells.names, cells.columns)):
        if not name and len(column) and not any(cell.strip() for cell in column):
            notes.append(f"column {j + 1} has neither a name nor a value; it is left out")
            continue
        names.append(name or _free(f"Unnamed: {j}", cells.names))
        columns.append(column)
    if names.count(target) > 1:
        raise UserError(f"{shown(path)} has {names.count(target)} columns called {target}: give each its own name")
    taken, found = set(names), {}
    for name in names:
        new = _free(name, taken | found.keys()) if name in found else name
        if new != name:
            notes.append(f"column {name} is there more than once; the later one is called {new}")
        found[new] = None
    return cells._replace(names=list(found), columns=columns)


def _free(name, taken):
    """A name that is not taken: the name itself, or with the first number that makes it one."""
    return next(new for k in count() if (new := f"{name}.{k}" if k else name) not in taken)
