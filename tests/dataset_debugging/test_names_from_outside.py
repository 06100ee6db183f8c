"""Columns, labels and files of any name: they stand apart from ours, and no spreadsheet runs them."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataset_debugging.find_label_errors import main
from dataset_debugging.label_error_sources import slug
from explainer.label_errors import decoding, find_label_errors
from explainer.label_errors.gallery import gallery
from explainer.label_errors.tables import read_table
from models.tables import as_csv, plain_cell

OURS = (
    "index", "given_label", "proposed_label", "loo_probability", "score", "rank", "supporting", "opposing", "given",
    "proposed", "probability", "supported by", "opposed by", "label", "count", "class", "index_", "row", "_1", "name",
    "item", "columns", "iloc", "T", "def", "lambda", "None", "__class__",
)  # fmt: skip
N = 80


class Cards(HTMLParser):
    """The lists of each card of a page: [{class of the list: [(name, value), ...]}, ...]."""

    def __init__(self, text):
        super().__init__()
        self.cards, self.tag = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("class") == "card":
            self.cards.append({})
        if tag == "dl":
            self.list = self.cards[-1].setdefault(found["class"], [])
        if tag in ("dt", "dd"):
            self.tag = tag
            self.list += [["", ""]] if tag == "dt" else []

    def handle_endtag(self, tag):
        self.tag = None if tag == self.tag else self.tag

    def handle_data(self, data):
        if self.tag:
            self.list[-1][self.tag == "dd"] += data


def rows_of(names, target="target"):
    """A table whose columns have these names, each with cells of its own, and labels that some of them tell."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, N)
    columns = [[f"{value:.3f}" for value in generator.normal(size=N) + y] for _ in names]
    return [[*names, target], *map(list, zip(*columns, np.array(["no", "yes"])[y].tolist()))]


def written(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_columns_that_are_called_as_ours_stand_apart(command, tmp_path):
    rows = rows_of(OURS)
    path = written(tmp_path / "t.csv", rows)
    status, _, errors = command(main, "--csv", path, "--target", "target", "--output", tmp_path)
    assert status == 0, errors
    found = pd.read_csv(tmp_path / "label_errors.csv", keep_default_na=False)
    assert list(found) == list(OURS[:8]) and sorted(found["index"]) == list(range(N))
    cards = Cards((tmp_path / "label_errors.html").read_text()).cards
    assert len(cards) == N
    for card, (_, row) in zip(cards, found.iterrows()):
        theirs = rows[1 + row["index"]]
        assert [tuple(fact) for fact in card["row"]] == list(zip(OURS, theirs))
        ours = dict(map(tuple, card["facts"]))
        assert ours["given"] == row["given_label"] == theirs[-1] and ours["proposed"] == row["proposed_label"]
        assert ours["score"] == f"{row['score']:.2g}"


@pytest.mark.parametrize("target", [*OURS[:8], "label", "class", "count", "Unnamed: 0"])
def test_labels_may_be_in_a_column_that_is_called_as_ours(target, tmp_path):
    names = [name for name in OURS if name != target][:12]
    table = read_table(written(tmp_path / "t.csv", rows_of(names, target)), target)
    assert list(table.rows) == [*names, target] and set(table.labels) == {"no", "yes"}


def test_columns_without_a_name_or_with_the_same_one(command, tmp_path):
    names = ["a", "", "Unnamed: 1", "a", "a.1", "line\nbreak", "\x1b[2J", "\u202eodd", "<i>x</i>"]
    rows = rows_of(names)
    path = written(tmp_path / "t.csv", rows)
    table = read_table(path, "target", drop=[" a.1 "])
    assert list(table.rows)[:5] == ["a", "Unnamed: 1.1", "Unnamed: 1", "a.2", "a.1"]
    for name, place in (("Unnamed: 1", 2), ("a.1", 4), ("a.2", 3)):
        assert table.rows[name].tolist() == [row[place] for row in rows[1:]]
    arguments = ["--csv", path, "--target", "target", "--output", tmp_path / "out", "--drop", "line\nbreak"]
    status, out, errors = command(main, *arguments)
    assert status == 0 and "column a is there more than once" in out, errors
    page = (tmp_path / "out" / "label_errors.html").read_text()
    assert page.isprintable() or not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
    assert "&lt;i&gt;" in page and "<i>x" not in page and "\\x1b[2J" in page and "\\u202eodd" in page
    said = [command(main, *arguments[:-2], "--drop", name)[2] for name in ("\x1b[2Jx", "\u202e")]
    assert all(line.startswith("error: ") and line.strip().isprintable() for line in said)


FORMULAS = (
    "=cmd|' /C calc'!A0", "=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1", " =1+1", '"=1+1', "'=1+1",
    "＝1+1", "x;=1+1", "x\t@A1", "-3.5.-", "+A1", "-A1", "=", "-1+cmd|' /C calc'!A0", "\tx", "\rx", "\x00=1",
    "\ufeff=1",
)  # fmt: skip
PLAIN = (
    "-3.5",
    "+2",
    "-1e-5",
    "-1,234.5",
    "+.5",
    "-3%",
    "-",
    "+",
    "a-b",
    "a=b",
    "x;y",
    "mail@host",
    "1+1",
    "",
    "x;-3",
)


def dangerous(text):
    """Whether a spreadsheet that separates cells by commas, semicolons or tabs would run some part of a cell."""
    for part in (text, *re.split("[;\t\r\n]", text)):
        part = part.strip(" \"'\t\r\n\x00\ufeff") if not part.startswith("'") else ""
        if len(part) > 1 and part[0] in "=+-@＝" and not re.fullmatch(r"[+-]?[\d.,]+(e[+-]?\d+)?%?", part):
            return True
    return text[:1] in ("\t", "\r")


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_are_texts_in_a_spreadsheet(cell):
    found = plain_cell(cell)
    assert not dangerous(found) and plain_cell(found) == found
    assert found.replace("'", "") == cell.replace("'", "")
    assert found != cell or cell in ("=", "'=1+1")


@pytest.mark.parametrize("cell", PLAIN)
def test_numbers_signs_and_texts_stay_as_they_are(cell):
    assert plain_cell(cell) == cell


def test_tables_are_read_as_they_were_written():
    table = pd.DataFrame({"=a": ["x\ry", "p\nq", "=1", "t"], "n": [-1.5, 2, 3, np.nan], "o": [None, 1, True, "-2"]})
    before = table.copy(deep=True)
    text, count = as_csv(table)
    pd.testing.assert_frame_equal(table, before)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert count == 2 and rows[0] == ["'=a", "n", "o"] and [row[0] for row in rows[1:]] == ["x\ry", "p\nq", "'=1", "t"]
    assert [row[1:] for row in rows[1:]] == [["-1.5", ""], ["2.0", "1"], ["3.0", "True"], ["", "-2"]]
    plain = pd.DataFrame({"a": [1, -2], "b": ["x", "y"]}, index=["=r", "s"])
    assert as_csv(plain) == (plain.to_csv(index=False, lineterminator="\n"), 0)
    assert as_csv(plain, index=True)[0] == ",a,b\n'=r,1,x\ns,-2,y\n"


def test_labels_that_are_formulas(command, tmp_path):
    rows = rows_of(["a", "b"])
    label = "=cmd|' /C calc'!A0"
    for row in rows[1:]:
        row[-1] = label if row[-1] == "yes" else "-3.5"
    path = written(tmp_path / "t.csv", rows)
    status, out, _ = command(main, "--csv", path, "--target", "target", "--output", tmp_path)
    assert status == 0 and re.search(r"note: in label_errors.csv a ' stands before \d+ cells, which a spreadsheet", out)
    text = (tmp_path / "label_errors.csv").read_text()
    assert f"'{label}" in text and not re.search(r'(^|,)"?=', text, re.M)
    found = pd.read_csv(tmp_path / "label_errors.csv", dtype=str)
    assert set(found["given_label"]) == {f"'{label}", "-3.5"}
    generator = np.random.default_rng(0)
    labels = np.where([row[-1] == label for row in rows[1:]], "\x1b[31m@A1", "\u202eb")
    np.savez(tmp_path / "F.npz", features=generator.normal(size=(N, 3)), labels=labels)
    status, out, _ = command(main, "--features", tmp_path / "F.npz", "--output", tmp_path / "f")
    assert status == 0 and "\x1b" not in out and "\u202e" not in out and "\\x1b[31m@A1" in out


def test_a_folder_of_its_own_for_every_file():
    assert slug(Path("table.csv")) == "table" and slug(Path("german credit.v2.csv")) == "german credit.v2"
    for name in (
        "...csv",
        "....csv",
        ".csv",
        "CNN.csv",
        "cnn_small.csv",
        "study.npz",
        "RNN",
        "a\nb.csv",
        "-x",
        ". .csv",
    ):
        found = slug(Path(name))
        assert found.isprintable() and found not in ("", ".", "..", "CNN", "RNN", "study") and "/" not in found
    assert slug(Path("CNN.csv")) == "file_CNN" and slug(Path("cnn_small.csv")) == "file_cnn_small"


def test_a_file_called_of_dots_is_written_to_a_folder_below(command, tmp_path):
    path = written(tmp_path / "...csv", rows_of(["a", "b"]))
    before = {p for p in tmp_path.rglob("*")}
    assert command(main, "--csv", path, "--target", "target")[0] == 0
    new = {p.relative_to(tmp_path).as_posix() for p in set(tmp_path.rglob("*")) - before if p.is_file()}
    assert all(re.fullmatch(r"dataset_debugging/label_errors/\w+/label_errors\.(csv|html)", name) for name in new), new


def test_outputs_that_cannot_be_are_refused_before_the_table_is_read(refused, tmp_path, monkeypatch):
    path = written(tmp_path / "t.csv", rows_of(["a"]))
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "label_errors.csv").mkdir(parents=True)
    monkeypatch.setattr("dataset_debugging.label_error_sources.read_table", None)
    for output, said in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "is a file"),
        (tmp_path / "taken", "is a folder: give a file"),
        ("/dev/null", "is a"),
        ("", "got an empty path"),
        ("a\nb", "a control character"),
    ):
        assert said in refused(main, "--csv", path, "--target", "target", "--output", output)
    assert "give a text in UTF-8" in refused(main, "--csv", path, "--target", "")


def test_files_that_are_none_or_too_large_or_of_strange_encodings(refused, tmp_path, monkeypatch):
    for wrong in (tmp_path, "/dev/zero", "", "/dev/full"):
        assert refused(main, "--csv", wrong, "--target", "t").startswith("error: argument --csv: got ")
    with pytest.raises(ValueError, match="is a folder or a device: give a CSV file"):
        read_table("/dev/zero", "t")
    import gzip

    monkeypatch.setattr(decoding, "MOST", 10**6)
    (tmp_path / "bomb.csv").write_bytes(gzip.compress(b"a,t\n" + b"1,x\n" * 10**6))
    assert "unpacks to more than 0.0 GB: unpack it" in refused(main, "--csv", tmp_path / "bomb.csv", "--target", "t")
    (tmp_path / "t.csv").write_text("a,t\n" + "\\ud800,x\n" * 3)
    for encoding in ("unicode_escape", "undefined", "nope", "base64"):
        said = refused(main, "--csv", tmp_path / "t.csv", "--target", "t", "--encoding", encoding)
        assert "--encoding" in said, said


def test_features_whose_columns_are_called_as_ours():
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    X = generator.normal(size=(60, 8)) + y[:, None]
    table = find_label_errors(pd.DataFrame(X, columns=list(OURS[:8])), y)
    assert list(table) == list(OURS[:8])
    pd.testing.assert_frame_equal(table, find_label_errors(X, y))
    page = gallery(table.head(3), {}, "t", "s", "<name>", ["a\x1b[2Jb"])
    assert "<name>" not in page and "\x1b" not in page and len(Cards(page).cards) == 3
