"""Tables as CSV files that a spreadsheet opens as the texts and numbers that they are.

A spreadsheet runs a cell that begins with = + - or @, whatever quotes are around it, and drops tabs and line breaks
before it. Such a cell is written with a ' before it, as spreadsheets themselves mark a text; so is what would be a cell
where semicolons or tabs separate them, as they do in many countries. Numbers, and a sign alone, stay as they are.
"""

import re

import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|[.,]\d+)([eE][+-]?\d+)?%?", re.ASCII)
_BEGIN = re.compile(
    r"(^|[;\t\r\n])([ \"\x00-\x08\v\f\x0e-\x1f\xa0\u200b\ufeff]*)([=+\-@\uff1d\uff0b\uff0d\uff20][^;\t\r\n]*)"
)
SAID = "in {where} a ' stands before {count:,} cells, which a spreadsheet would run as formulas"


def plain_cell(text):
    """A text as a cell that no spreadsheet runs."""

    def marked(match):
        before, space, rest = match.groups()
        harmless = len(rest.strip()) == 1 or _NUMBER.fullmatch(rest.strip())
        return match[0] if harmless else f"{before}'{space}{rest}"

    found = _BEGIN.sub(marked, text)
    return f"'{found}" if text[:1] in ("\t", "\r", "\n") else found


def as_csv(table, index=False):
    """A table as the text of a CSV file, and how many of its cells are marked as texts."""
    table, count, texts = table.copy(deep=False), 0, set()
    for place in range(table.shape[1]):
        cells = table.iloc[:, place].tolist()
        own = {cell for cell in cells if isinstance(cell, str)}
        marked = {cell: found for cell in own if (found := plain_cell(cell)) != cell}
        texts |= own
        if marked:
            count += sum(isinstance(cell, str) and cell in marked for cell in cells)
            cells = [marked.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]
            table.isetitem(place, pd.Series(cells, table.index, dtype=object))
    for axis in ("columns", *["index"] * index):
        names = getattr(table, axis)
        found = [plain_cell(name) if isinstance(name, str) else name for name in names]
        texts |= {name for name in names if isinstance(name, str)}
        count += sum(isinstance(name, str) and name != plain for name, plain in zip(names, found))
        setattr(table, axis, pd.Index(found, name=names.name))
    end = "\r\n" if any("\r" in text for text in texts) else "\n"  # a \r alone is in quotes only beside such ends
    return table.to_csv(index=index, lineterminator=end), count
