"""The command that lists wrong labels: tables, features, its page, and what it refuses."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from dataset_debugging.find_label_errors import main


@pytest.fixture(scope="module")
def table():
    """A table with numbers, a category, a truth value, missing values, and 40 of 569 labels wrong; which they are."""
    X, y = load_breast_cancer(return_X_y=True)
    generator = np.random.default_rng(0)
    wrong = np.zeros(len(y), bool)
    wrong[generator.permutation(len(y))[:40]] = True
    rows = pd.DataFrame(X[:, :6], columns=list("abcdef")).assign(
        kind=np.where(X[:, 6] > np.median(X[:, 6]), "<b>large</b>", "small"), told=X[:, 7] > np.median(X[:, 7])
    )
    rows.loc[3, "b"] = np.nan
    rows.loc[5, "kind"] = None
    return rows.assign(label=np.where(y ^ wrong, "benign", "malignant")), wrong


def test_a_table_with_wrong_labels(table, command, tmp_path):
    rows, wrong = table
    path = tmp_path / "cells.csv"
    rows.to_csv(path, index=False)
    arguments = ["--csv", path, "--target", "label", "--output", tmp_path / "out"]
    status, printed, _ = command(main, *arguments)
    assert status == 0 and "note: b: 1 values are missing" in printed and "note: kind: 1 values" in printed
    found = pd.read_csv(tmp_path / "out" / "label_errors.csv")
    assert len(found) == len(rows) and wrong[found["index"][:40]].mean() > 0.6
    assert (found["given_label"] == rows["label"].to_numpy()[found["index"]]).all()
    assert len(found["supporting"][0].split()) == 5
    page = (tmp_path / "out" / "label_errors.html").read_text()
    assert "Note: b: 1 values are missing" in page and page.count("<dt>label</dt>") == 0
    assert page.count('class="card"') == 200 and "&lt;b&gt;large&lt;/b&gt;" in page and "<b>large" not in page
    assert not re.search(r"(src|href)=\"http", page)
    first = (tmp_path / "out" / "label_errors.csv").read_bytes()
    assert command(main, *arguments)[0] == 0 and (tmp_path / "out" / "label_errors.csv").read_bytes() == first


def test_rows_without_a_label_are_left_out_and_the_others_keep_their_numbers(table, command, tmp_path):
    rows = table[0].copy()
    rows.loc[:9, "label"] = None
    rows.to_csv(tmp_path / "cells.csv", index=False)
    status, printed, _ = command(main, "--csv", tmp_path / "cells.csv", "--target", "label", "--output", tmp_path)
    assert status == 0 and "note: 10 rows without label are left out" in printed
    found = pd.read_csv(tmp_path / "label_errors.csv")
    assert sorted(found["index"]) == list(range(10, len(rows)))
    assert (found["given_label"] == rows["label"].to_numpy()[found["index"]]).all()
    assert min(int(i) for i in " ".join(found["supporting"][:1000].dropna()).split()) >= 10


def test_features_and_their_moments(command, tmp_path):
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 60)
    X = generator.normal(size=(180, 5)) + 3 * np.eye(3, 5)[y]
    given = y.copy()
    given[:20] = 1
    late = np.eye(3)[given] + 0.01 * generator.normal(size=(180, 3))
    np.savez(tmp_path / "F.npz", features=late, labels=given, moments=[X])
    status, printed, _ = command(main, "--features", tmp_path / "F.npz", "--output", tmp_path / "out")
    assert status == 0 and "of 180 labels" in printed
    found = pd.read_csv(tmp_path / "out" / "label_errors.csv").head(20)
    assert (found["index"] < 20).mean() > 0.8 and (found["proposed_label"] == 0).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (lambda t: t, ["--target", "class"], "has no column class; it has a, b, c"),
        (lambda t: t, [], "give the column of the labels as --target"),
        (lambda t: t.assign(label="one"), ["--target", "label"], "has one value only"),
        (lambda t: t, ["--target", "a"], "values in 569 rows, more than a tenth of them"),
        (
            lambda t: t.assign(name=[f"cell {i}" for i in range(len(t))]),
            ["--target", "label"],
            "as an id: --drop 'name'",
        ),
        (lambda t: t.assign(number=range(len(t))), ["--target", "label"], "numbers the rows: leave it out with --drop"),
        (lambda t: t[["label"]], ["--target", "label"], "has no column beside label"),
        (lambda t: t.assign(a=t["a"].where(t.index != 7, np.inf)), ["--target", "label"], "is infinite in row 7"),
        (lambda t: t.head(0), ["--target", "label"], "has a header and no rows"),
        (lambda t: t, ["--target", "label", "--drop", "label"], "is the column of the labels"),
    ],
)
def test_bad_tables(table, refused, tmp_path, change, more, said):
    change(table[0]).to_csv(tmp_path / "cells.csv", index=False)
    assert said in refused(main, "--csv", tmp_path / "cells.csv", *more, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_table_or_no_features(refused, tmp_path):
    assert "cannot read nowhere.csv" in refused(main, "--csv", "nowhere.csv", "--target", "label")
    (tmp_path / "empty.csv").write_text("")
    assert "is empty: give a CSV file" in refused(main, "--csv", tmp_path / "empty.csv", "--target", "label")
    np.savez(tmp_path / "F.npz", features=np.eye(4))
    assert "labels" in refused(main, "--features", tmp_path / "F.npz")
    np.savez(tmp_path / "F.npz", features=np.eye(4), labels=[0, 1, 0])
    assert "got 4 rows of features and 3 labels" in refused(main, "--features", tmp_path / "F.npz")
    assert "are columns of --csv" in refused(main, "--features", tmp_path / "F.npz", "--target", "t")
    np.savez(tmp_path / "F.npz", features=np.eye(4), labels=1)
    assert "labels have the shape ()" in refused(main, "--features", tmp_path / "F.npz")
    np.savez(tmp_path / "F.npz", features=np.eye(4), labels=[0, 1, 0, 1], moments=[np.full((4, 4), np.nan)])
    assert "row 0 of moments[0] is not finite" in refused(main, "--features", tmp_path / "F.npz")
    assert "--decimal is of --csv" in refused(main, "--features", tmp_path / "F.npz", "--decimal", ",")


def test_labels_cells_and_names_of_columns_are_those_of_the_file(table, command, tmp_path):
    rows = table[0].head(90)[["a", "b"]].round(2)
    rows = rows.assign(score="0" + (rows.index % 4).astype(str), kind=np.where(table[1][:90], "None", "007"))
    rows["label"] = np.where(table[0]["label"].head(90) == "benign", "01", "NA")
    rows.to_csv(tmp_path / "cells.csv", index=False, sep=";", decimal=",")
    status, printed, _ = command(main, "--csv", tmp_path / "cells.csv", "--target", "label", "--output", tmp_path)
    assert status == 0 and "note: the columns are separated by semicolons" in printed
    found = pd.read_csv(tmp_path / "label_errors.csv", dtype=str, keep_default_na=False)
    assert found["given_label"].tolist() == rows["label"].iloc[found["index"].astype(int)].tolist()
    page = (tmp_path / "label_errors.html").read_text()
    cells = f'<dt>a</dt><dd class="">{rows["a"].iloc[0]:g}</dd>'.replace(".", ",")
    assert cells in page and page.count('<dt>score</dt><dd class="">0') >= 90 and 'data-given="01"' in page
