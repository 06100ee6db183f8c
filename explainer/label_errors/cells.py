"""What the texts of a column mean: numbers with their signs, dates, truth values, or names.

A column of numbers is one whose cells are all numbers of one way of writing, beside marks of missing values. Where a
comma or a point can be the sign of decimals or of thousands, the column's other cells decide, then the table's other
columns, then the user; never a guess.
"""

import re
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from config import UserError

MISSING = frozenset(
    ("", "?", "-", "--", "---", ".", "..", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none",
     "nil", "nat", "#value!", "#div/0!", "#ref!", "#null!", "#num!", "#name?")
)  # fmt: skip
SPACES = " \u00a0\u202f\u2009"
GROUPS = {",": ",", ".": r"\.", " ": f"[{SPACES}]", "'": "['\u2019]"}  # signs of thousands
EXPONENT = r"(?:[eE][+-]?\d+)?"
SIGN = re.compile(r"^([$€£¥]?)\s*(.*?)\s*([%$€£¥]?)$", re.DOTALL)
FEW, DIFFERENT = 0.1, 10  # share of texts among numbers; different numbers from which on half of the cells are enough
DATES = (
    (r"\d{4}-\d\d-\d\d", "%Y-%m-%d"), (r"\d{4}/\d\d?/\d\d?", "%Y/%m/%d"), (r"(?:19|20)\d{6}", "%Y%m%d"),
    (r"\d\d?\.\d\d?\.\d{4}", "%d.%m.%Y"), (r"\d\d?/\d\d?/\d{4}", "%d/%m/%Y"), (r"\d\d?/\d\d?/\d{4}", "%m/%d/%Y"),
    (r"\d\d?-\d\d?-\d{4}", "%d-%m-%Y"), (r"\d\d?-\d\d?-\d{4}", "%m-%d-%Y"),
)  # fmt: skip
TIME = r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?"
ZONE = r"\s*(Z|[+-]\d\d:?\d\d)?"


class Signs(NamedTuple):
    """How numbers are written: the signs of decimals and of thousands, None where there is none or it is not known."""

    decimal: str | None = None
    thousands: str | None = None


class Column(NamedTuple):
    """kind: number, date, truth or text. values (n,): floats, nan where missing, or texts, None where missing.
    marks: texts that are missing values. note: how it was read, or None."""

    kind: str
    values: np.ndarray
    marks: list
    note: str | None = None


def tidy(cell):
    """A cell as it is compared: without white space around it, with plain signs of minus."""
    return cell.strip().replace("\u2212", "-")


def pattern(signs):
    """The regular expression of numbers written with some signs: its only group is empty for plain whole numbers."""
    point = f"(?:{re.escape(signs.decimal)}\\d*)?" if signs.decimal else ""
    short = f"|{re.escape(signs.decimal)}\\d+" if signs.decimal else ""
    group = f"\\d{{1,3}}(?:{GROUPS[signs.thousands]}\\d{{3}})+{point}|" if signs.thousands else ""
    return re.compile(f"[+-]?(?:{group}\\d+{point}{short}){EXPONENT}|[+-]?inf(?:inity)?", re.IGNORECASE)


PLAIN = pattern(Signs("."))
WAYS = (  # each with what only it can mean
    (Signs("."), re.compile(r"[+-]?(\d*\.(\d{1,2}|\d{4,})|\d{4,}\.\d*|0+\.\d+|\d+\.|\d*\.\d+[eE].*)")),
    (Signs(","), re.compile(r"[+-]?(\d*,(\d{1,2}|\d{4,})|\d{4,},\d*|0+,\d+|\d+,|\d*,\d+[eE].*)")),
    (Signs(".", ","), re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d*|[+-]?\d{1,3}(,\d{3}){2,}")),
    (Signs(",", "."), re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d*|[+-]?\d{1,3}(\.\d{3}){2,}")),
)


def evidence(texts):
    """The signs of decimals that numbers among some texts must have, since they can be read in one way only: a set."""
    found = set()
    for text in texts:
        digits = re.sub(f"(?<=\\d)[{SPACES}'\u2019](?=\\d{{3}})", "", text)
        found |= {way.decimal for way, sure in WAYS if sure.fullmatch(digits)}
    return found


def doubtful(texts):
    """Texts that are a number of thousands with one sign and of decimals with the other: 1,234."""
    return [text for text in texts if re.fullmatch(r"[+-]?(?!0)\d{1,3}[.,]\d{3}", text)]


def values_of(texts, signs):
    """The numbers of texts, or None for each that is none: a dict. signs: with a decimal sign."""
    other = "." if signs.decimal == "," else ","
    grouped = [group for group in (signs.thousands or f"{other} '") if group in GROUPS]
    ways = [pattern(Signs(signs.decimal, group)) for group in grouped] or [pattern(Signs(signs.decimal))]
    found = {}
    for text in texts:
        number = None
        if any(way.fullmatch(text) for way in ways):
            plain = re.sub(f"[{SPACES}'\u2019]", "", text).replace(other, "")
            number = float(plain.replace(signs.decimal, "."))
        found[text] = number
    return found


def bare(texts):
    """Texts without a sign of currency or percent that all numbers among them share: a dict, and the sign."""
    parts = {text: SIGN.match(text) for text in texts}
    signs = {(m[1], m[3]) for m in parts.values() if re.match(r"[+-]?[.,]?\d", m[2])}
    if len(signs) != 1 or signs == {("", "")}:
        return {text: text for text in texts}, ""
    return {text: m[2] if re.match(r"[+-]?[.,]?\d", m[2]) else text for text, m in parts.items()}, "".join(*signs)


def dates_of(texts):
    """Days since 1970 of texts that are all dates, or times of a day in hours, written alike: a dict, or None."""
    if not texts:
        return None
    if all(re.fullmatch(TIME, text) for text in texts):
        return {text: _hours(re.fullmatch(TIME, text)) for text in texts}
    found = []
    for form, way in DATES:
        date = re.compile(f"({form})(?:[T ]{TIME})?{ZONE}")
        if not all(date.fullmatch(text) for text in texts):
            continue
        try:
            found.append({text: _days(date.fullmatch(text), way) for text in texts})
        except ValueError:
            continue
    return found[0] if len(found) == 1 or (len(found) > 1 and found[0] == found[1]) else None


def _hours(match):
    return int(match[1]) + int(match[2]) / 60 + float(match[3] or 0) / 3600


def _days(match, way):
    day = datetime.strptime(match[1], way) - datetime(1970, 1, 1)
    if match[2]:
        day += timedelta(hours=int(match[2]), minutes=int(match[3]), seconds=float(match[4] or 0))
    zone = match[5]
    if zone and zone != "Z":
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        day -= timedelta(minutes=minutes if zone[0] == "+" else -minutes)
    return day / timedelta(days=1)


def read_column(name, cells, lines, signs, known, missing=(), texts=False):
    """The `Column` of cells (n,), texts. lines (n,): theirs in the file. signs: `Signs` that the user names. known: the
    decimal signs that the other columns show. missing: further marks of missing values. texts: whether these are names.

    Raises UserError, in one line, where numbers can be read in two ways, and where a few texts are among numbers.
    """
    codes, raw = pd.factorize(cells)
    quick = None if texts or missing else _quickly(raw, codes, signs)
    if quick is not None:
        return quick
    tidied = [tidy(text) for text in raw]
    marks, there = _marks(tidied, missing)
    if texts:
        return Column("text", _spread(tidied, there, codes, object), marks)
    if _plainly(there, signs):
        return Column("number", _spread(tidied, {text: float(text) for text in there}, codes, float), marks)
    for kind, read in (("truth", _truths), ("date", dates_of)):
        found = read(there)
        if found is not None:
            note = f"{name}: read as dates or times, in days or hours" if kind == "date" else None
            return Column(kind, _spread(tidied, found, codes, float), marks, note)
    plain, sign = bare(there)
    found, note = _numbers(name, plain, signs, known)
    rest = [text for text in there if found[text] is None]
    odd, filled = _where(tidied, codes, set(rest)), _where(tidied, codes, there).sum()
    if not rest:
        if sign and there:
            note = f"{name}: {sign} is left out of its numbers" + (f"; {note}" if note else "")
        return Column("number", _spread(tidied, found, codes, float), marks, note)
    several = len(there) - len(rest)
    if several and (odd.sum() <= FEW * filled or (odd.sum() <= filled / 2 and several > DIFFERENT)):
        some = ", ".join(repr(text) for text in rest[:3]) + (" ..." if len(rest) > 3 else "")
        raise UserError(
            f"column {name} holds numbers but for {some} in {odd.sum()} of {len(cells)} rows, the first in line "
            f"{lines[odd.argmax()]}: give --missing {' '.join(_quoted(text) for text in rest[:3])} where they are "
            f"missing values, --texts {_quoted(name)} where the column holds names, or mend them"
        )
    note = f"{name}: its dates are names, since day and month cannot be told apart; write them as 2020-12-31"
    dates = there and all(re.fullmatch(r"\d\d?([/-])\d\d?\1\d{4}.*", text) for text in there)
    return Column("text", _spread(tidied, there, codes, object), marks, note if dates else None)


def _quickly(raw, codes, signs):
    """The `Column` of different texts, where most columns' are plain numbers and marks, with one test of each; or None.

    codes (n,): theirs. None: the column is to be read in full.
    """
    others = [k for k, number in enumerate(map(PLAIN.fullmatch, raw)) if number is None]
    if len(others) > len(MISSING):  # no number holds white space, so that only marks are to be tidied
        return None
    marks, there = _marks([tidy(raw[k]) for k in others], ())
    numbers = np.delete(raw, others)
    if there or not len(numbers) or not _decided(numbers, signs):
        return None
    values = np.full(len(raw), np.nan)
    values[np.delete(np.arange(len(raw)), others)] = np.fromiter(map(float, numbers), float, len(numbers))
    return Column("number", values[codes], marks)


def _plainly(texts, signs):
    """Whether texts are plain numbers, with points, if any, that can only be those of decimals."""
    return all(PLAIN.fullmatch(text) for text in texts) and _decided(texts, signs)


def _decided(texts, signs):
    """Whether the points of plain numbers, if there are any, can only be those of decimals."""
    if signs.decimal == "," or signs.thousands == ".":
        return False
    if not any("." in text for text in texts):
        return not all(len(text) == 8 for text in texts)  # else perhaps dates
    return any(WAYS[0][1].fullmatch(text) for text in texts)


def _where(tidied, codes, texts):
    """Whether each cell (n,) is among some texts."""
    return np.array([text in texts for text in tidied], bool)[codes] if tidied else np.zeros(len(codes), bool)


def _quoted(text):
    return f"'{text}'" if re.search(r"[^\w.+-]", text) else text


def _marks(tidied, missing):
    """The texts among different ones that are missing values, and a dict of the others."""
    own = {tidy(mark) for mark in missing}
    numbers = {float(mark) for mark in own if PLAIN.fullmatch(mark)}
    plus = "+" in tidied  # - is then a value, as of a test
    marks, there = [], {}
    for text in tidied:
        known = text.lower() in MISSING and not (plus and text == "-")
        same = numbers and PLAIN.fullmatch(text) and float(text) in numbers
        if known or text in own or same:
            marks.append(text)
        else:
            there[text] = text
    return sorted(set(marks) - {""}), there


def _truths(texts):
    lower = {text: text.lower() for text in texts}
    if not texts or not set(lower.values()) <= {"true", "false"}:
        return None
    return {text: float(word == "true") for text, word in lower.items()}


def _numbers(name, plain, signs, known):
    """Numbers of a dict of texts, None where one is none, and a note or None."""
    texts = list(plain.values())
    own = evidence(texts)
    unsure = doubtful(texts)
    if len(own) > 1 and mostly(texts):
        dot, comma = (next(t for t in texts if evidence([t]) == {s}) for s in ".,")
        raise UserError(f"column {name} has numbers with two signs of decimals, {dot} and {comma}: write them alike")
    wanted = {signs.decimal or {",": ".", ".": ","}.get(signs.thousands)} - {None}
    if wanted and own - wanted and mostly(texts):
        wrong = next(t for t in texts if evidence([t]) - wanted)
        raise UserError(f"column {name} has the number {wrong}, whose decimals have another sign: leave out --decimal")
    if wanted:
        own = wanted
    elif not own and unsure and mostly(texts):
        own = known if len(known) == 1 else {"."} if _surely_plain(texts, unsure, known) else set()
        if not own:
            raise UserError(
                f"column {name} has the number {unsure[0]}, which can be a thousand or a fraction: give --decimal . or "
                "--decimal ,"
            )
    decimal = next(iter(own)) if len(own) == 1 else "."
    found = values_of(texts, Signs(decimal, signs.thousands))
    numbers = {text: found[short] for text, short in plain.items()}
    said = next((t for t, value in found.items() if value is not None and not PLAIN.fullmatch(t)), None)
    note = None
    if said is not None:
        note = f"{name}: {said} is read as {found[said]:.15g}; --decimal and --thousands name other signs"
    return numbers, note


def mostly(texts):
    """Whether most of some texts are numbers of one way of writing or another."""
    return sum(bool(re.fullmatch(r"[+-]?[\d.,]*\d[\d.,]*", text)) for text in texts) > len(texts) / 2


def _surely_plain(texts, unsure, known):
    """Whether numbers such as 1.234 are decimals: points alone, and no whole numbers beside them in the column."""
    return not known and all("." in text for text in unsure) and not any(re.fullmatch(r"[+-]?\d+", t) for t in texts)


def _spread(tidied, found, codes, kind):
    """The values of different texts, put where their codes (n,) are."""
    missing = np.nan if kind is float else None
    values = np.array([found.get(text, missing) for text in tidied], dtype=kind)
    return values[codes] if len(values) else np.full(len(codes), missing, dtype=kind)
