"""Tables of files as people have them: equal, cell by cell, to the same table read plainly, or refused in one line."""

import csv
import gzip
import io
import re

import numpy as np
import pandas as pd
import pytest

from config import UserError
from explainer.label_errors import cells, tables
from explainer.label_errors.tables import TOLD, Reading, read_table

HEAD = ["size", "weight", "count", "town", "label"]


def _rows(n=80):
    generator = np.random.default_rng(0)
    rows = [
        [f"{1000 * generator.random():.2f}", f"{generator.normal():.1f}", str(generator.integers(1000, 5000)),
         ("Köln", "Zürich", "Paris")[i % 3], ("yes", "no")[i % 2]]
        for i in range(n)
    ]  # fmt: skip
    rows[4][0] = rows[7][2] = rows[9][3] = ""
    return rows


def _text(rows, head=HEAD, separator=",", end="\n"):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator, lineterminator=end).writerows([head, *rows])
    return buffer.getvalue()


def _changed(change):
    return [[change(cell) for cell in row[:3]] + row[3:] for row in _rows()]


def _comma(cell):
    return cell.replace(".", ",")


def _grouped(cell):
    return re.sub(r"^(\d)(\d{3})$", r"\1.\2", _comma(cell))


def _marked(mark):
    return [[cell or mark for cell in row] for row in _rows()]


@pytest.fixture
def read(tmp_path):
    def call(content, target="label", drop=(), **reading):
        path = tmp_path / "table.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, target, drop, Reading(**reading))

    return call


def _plainly():
    """The table's numbers (n,columns), as pandas reads the plain file."""
    frame = pd.read_csv(io.StringIO(_text(_rows())))
    towns = pd.get_dummies(frame["town"], dtype=float)
    towns[frame["town"].isna()] = np.nan
    return np.column_stack([frame[HEAD[:3]].to_numpy(float), towns.to_numpy()]).astype(np.float32)


FILES = {
    "plain": _text(_rows()),
    "semicolons": _text(_rows(), separator=";"),
    "tabs": _text(_rows(), separator="\t"),
    "bars": _text(_rows(), separator="|"),
    "decimal commas": _text(_changed(_comma), separator=";"),
    "quoted decimal commas": _text(_changed(_comma)),
    "points of thousands": _text(_changed(_grouped), separator=";"),
    "spaces of thousands": _text(_changed(lambda cell: re.sub(r"^(\d)(\d{3})", "\\1\u00a0\\2", cell))),
    "latin-1": _text(_rows()).encode("latin-1"),
    "utf-16": _text(_rows()).encode("utf-16"),
    "utf-8 with a mark": _text(_rows()).encode("utf-8-sig"),
    "gzip": gzip.compress(_text(_rows()).encode()),
    "windows": _text(_rows(), end="\r\n"),
    "old mac": _text(_rows(), end="\r"),
    "trailing commas": _text([[*row, ""] for row in _rows()]),
    "trailing commas everywhere": _text([[*row, ""] for row in _rows()], head=[*HEAD, ""]),
    "units": _text([["mm", "[kg]", "1/d", "", ""], *_rows()]),
    "comments": "# of a sensor\n# a, b\n" + _text(_rows()) + "# the end\n\n\n",
    "Excel": "sep=;\r\n" + _text(_rows(), separator=";"),
    "spaces after commas": _text(_rows()).replace(",", ", "),
    **{
        f"missing {mark!r}": _text(_marked(mark))
        for mark in ("?", "NA", "n/a", "N/A", "-", "--", "null", "None", ".", " ")
    },
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_table_however_it_is_written(read, name):
    table = read(FILES[name])
    np.testing.assert_array_equal(table.X, _plainly())
    assert table.labels.tolist() == [row[-1] for row in _rows()]
    assert table.numbers.tolist() == list(range(80))
    if name not in ("plain", "windows", "old mac", "utf-8 with a mark", "trailing commas everywhere", "missing ' '"):
        assert (
            len(table.notes) > len(read(FILES["plain"]).notes)
            or any("(" in note for note in table.notes)
            or (name == "Excel")
        )


@pytest.mark.parametrize(
    "labels",
    [("None", "NA"), ("null", "nan"), ("01", "02"), ("1", "2"), ("True", "False"), ("2020-01-01", "2020-01-02"),
     ("12345678901234973", "12345678901234974"), ("007", "7"), ("cat", "cat "), ("1.0", "2.50"), ("?", "-")],
)  # fmt: skip
def test_labels_are_those_of_the_file(read, labels):
    rows = [[*row[:-1], labels[i % 2] if i != 5 else ""] for i, row in enumerate(_rows())]
    table = read(_text(rows))
    assert table.labels.tolist() == [row[-1] for row in rows if row[-1]]
    assert "1 rows without label are left out" in table.notes and table.numbers.tolist() == [*range(5), *range(6, 80)]
    assert any("classes of their own" in note for note in table.notes) == (labels in (("007", "7"), ("cat", "cat ")))


def _with(cells, name="more", rows=None):
    rows = _rows() if rows is None else rows
    return _text([[*row, cell] for row, cell in zip(rows, cells)], head=[*HEAD, name])


def test_the_user_names_what_is_not_safe(read):
    ambiguous = _with(
        [f"{i % 9 + 1},{i % 700 + 100}" for i in range(80)],
        rows=[[row[3], row[2], "1", "2", row[4]] for row in _rows()],
    )
    with pytest.raises(UserError, match="1,100, which can be a thousand or a fraction: give --decimal"):
        read(ambiguous)
    assert read(ambiguous, decimal=",").X[0, -1] == np.float32(1.1)
    assert read(ambiguous, thousands=",").X[0, -1] == read(ambiguous, decimal=".").X[0, -1] == 1100
    few = _with(["low" if i == 30 else str(i * i % 37) for i in range(80)])
    with pytest.raises(
        UserError, match="more holds numbers but for 'low' in 1 of 80 rows, the first in line 32.*--missing low"
    ):
        read(few)
    assert np.flatnonzero(np.isnan(read(few, missing=("low",)).X[:, -1])).tolist() == [30]
    assert read(few, texts=("more",)).X.shape[1] > 20
    gone = _with(["-999" if i == 30 else f"{i % 37}.0" for i in range(80)])
    assert np.isnan(read(gone, missing=("-999.0",)).X[30, -1])


def test_dates_truth_values_currencies(read):
    days = read(_with([f"{i % 28 + 1:02}.03.2020" for i in range(80)])).X[:, -1]
    assert days[0] == (pd.Timestamp("2020-03-01") - pd.Timestamp(0)).days and days[5] - days[0] == 5
    times = read(_with([f"2020-03-01T{i % 24:02}:30:00+01:00" for i in range(80)])).X[:, -1]
    assert times[1] - times[0] == pytest.approx(1 / 24, abs=2e-3)
    assert read(_with(["TRUE" if i % 3 else "false" for i in range(80)])).X[:3, -1].tolist() == [0, 1, 1]
    assert read(_with([f"€ {i % 7},5" for i in range(80)])).X[:2, -1].tolist() == [0.5, 1.5]
    assert any(
        "cannot be told apart" in note for note in read(_with([f"0{i % 3 + 1}/02/2020" for i in range(80)])).notes
    )


@pytest.mark.parametrize(
    "cells",
    [range(80), [3 * i + i % 2 for i in range(80)], np.random.default_rng(0).permutation(100)[:80],
     [f"{i:08x}-0000-4000-8000-00000000000{i % 9}" for i in range(80)], [f"N{i}" for i in range(80)]],
)  # fmt: skip
@pytest.mark.parametrize("name", ["more", ""])
def test_ids_are_found_before_rows_are_dropped(read, cells, name):
    rows = [[*row[:-1], row[-1] if i % 3 else ""] for i, row in enumerate(_rows())]
    with pytest.raises(UserError, match=f"--drop '{name or 'Unnamed: 5'}'"):
        read(_with(map(str, cells), name, rows))


def test_times_and_measurements_are_no_ids(read):
    generator = np.random.default_rng(0)
    assert read(_with([str(1600000000 + 600 * i + generator.integers(90)) for i in range(80)])).X.shape[1] == 7
    assert read(_with(map(str, generator.integers(0, 10**6, 80)))).X.shape[1] == 7


def test_what_says_nothing_or_everything(read):
    assert any("more: every row has the same value" in note for note in read(_with(["k"] * 80)).notes)
    assert any("more says the same as label" in note for note in read(_with(["NY"[i % 2] for i in range(80)])).notes)
    table = read(_with([f"this is the sentence number {i}" for i in range(80)]))
    assert any("as sentences; it is left out" in note for note in table.notes) and table.X.shape[1] == 6


def test_columns_of_many_texts_are_bounded(read):
    generator = np.random.default_rng(0)
    towns = generator.integers(0, 900, 3000)
    rows = [f"{generator.normal():.3f},town {town},{'ab'[i % 2]}" for i, town in enumerate(towns)]
    table = read("x,town,label\n" + "\n".join(rows))
    often = np.bincount(towns)[towns]
    assert table.X.shape == (3000, TOLD + 2) and (table.X[:, -1] == often).all()
    assert table.X[:, 1:-1].sum() == np.sort(np.bincount(towns))[-TOLD:].sum()
    assert len(np.unique(table.codes[:, 1])) == len(set(towns)) and any(
        "100 most common" in note for note in table.notes
    )


BODY = _text(_rows()).split("\n", 1)[1]
HEADER = ",".join(HEAD) + "\n"
CYRILLIC = _with(["Москва"] * 80).replace("ü", "").replace("ö", "").encode("cp1251")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER + "1,2,3,Paris,yes\n1,2,3,yes\n" + BODY, "line 3 of .* has 4 cells, the header 5"),
        (HEADER + '1,2,3,"a\nb",yes\n1,2,3,4,5,yes\n' + BODY, "line 4 of .* has 6 cells, the header 5"),
        (_text([[str(i), *row] for i, row in enumerate(_rows())]), "a name in the header, that of row names as well"),
        (HEADER + "1,2,3,Paris,yes,\n" + BODY, "line 2 of .* has 6 cells"),
        (HEADER + BODY + '"open,1', "in line 82 of .* cannot be read"),
        (BODY, "begins with a row"),
        (HEADER + BODY + HEADER, "line 82 of .* is the header once more"),
        (_with(["yes"] * 80, name="label"), "2 columns called label"),
        ("", "is empty"),
        (HEADER, "has a header and no rows"),
        (b"PK\x03\x04rest", "is an Excel file"),
        (CYRILLIC, "is not UTF-8: name its --encoding"),
        (_text(_rows()).encode("utf-16-le"), "holds zero bytes as .*: name its --encoding"),
        (gzip.compress(HEADER.encode())[:-9], "is a broken gzip file"),
        (_text([[*row[:-1], f"{i}.5"] for i, row in enumerate(_rows())]), "numbers to be predicted are not supported"),
        (_text([[*row[:-1], "yes"] for row in _rows()]), "has one value only"),
        (_with(["1,5", "2.5"] * 40), "two signs of decimals, 2.5 and 1,5"),
    ],
)  # fmt: skip
def test_what_is_refused(read, content, said):
    with pytest.raises(UserError, match=said):
        read(content)


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({"encoding": "foo"}, "got --encoding foo"),
        ({"encoding": "ascii"}, "line 2 of .* is not written in ascii"),
        ({"separator": "ab"}, "got --separator 'ab'"),
        ({"separator": ";"}, "name the sign between the columns"),
        ({"decimal": ";"}, "got --decimal ';'"),
        ({"thousands": "x"}, "got --thousands 'x'"),
        ({"decimal": ",", "thousands": ","}, "give two signs"),
        ({"decimal": ","}, "whose decimals have another sign"),
        ({"texts": ("none",)}, "has no column none"),
    ],
)
def test_options_that_do_not_fit(read, reading, said):
    with pytest.raises(UserError, match=said):
        read(_text(_rows()), **reading)


WRITTEN = {
    "decimals": lambda x: f"{x:.5f}",
    "whole": lambda x: f"{100000 * x:.0f}",
    "exponents": lambda x: f"{x:.4e}",
    "missing": lambda x: f"{x:.5f}" if x < 1 else ("NA", " n/a", "?")[int(1e4 * x) % 3],
    "padded": lambda x: f" {x:.5f}",
    "commas": lambda x: f"{x:.5f}".replace(".", ","),
    "minus": lambda x: f"{x:.5f}".replace("-", "\u2212"),
    "percent": lambda x: f"{x:.5f}%",
    "signs": lambda x: "+-"[int(x > 0)],
}


def _written(ways, n):
    values = np.random.default_rng(0).normal(size=(n, len(ways)))
    rows = [[WRITTEN[way](x) for way, x in zip(ways, row)] + [("yes", "no")[i % 2]] for i, row in enumerate(values)]
    return _text(rows, [*ways, "label"])


@pytest.mark.parametrize("way", WRITTEN)
def test_plain_columns_are_read_as_all_others(read, monkeypatch, way):
    content = _written([way], 300)
    found = read(content)
    monkeypatch.setattr(cells, "_quickly", lambda *given: None)
    full = read(content)
    assert found.notes == full.notes and found.rows.equals(full.rows)
    assert np.array_equal(found.X, full.X, equal_nan=True) and np.array_equal(found.codes, full.codes, equal_nan=True)


def test_work_on_each_cell_does_not_grow_with_plain_columns(read, monkeypatch):
    calls = []
    for module in (cells, tables):
        plain = module.tidy
        monkeypatch.setattr(module, "tidy", lambda cell, plain=plain: calls.append(cell) or plain(cell))
    counts = []
    for n in (tables.SAMPLE, 2 * tables.SAMPLE):
        calls.clear()
        read(_written(["decimals", "exponents", "missing"], n))
        counts.append(len(calls))
    assert counts[1] <= counts[0] + 10
