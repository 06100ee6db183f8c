import shutil

import numpy as np
import pandas as pd
import pytest

import config
from config import UserError
from dataset_debugging import figures, results
from dataset_debugging.results import ACCURACY, IDENTIFIED
from models.files import save_json, save_npy, save_npz
from scripts import compare_with_paper

ARGUMENTS = {"flip_portion": 0.3, "lr": 1e-5, "lmbd": 0.003, "epoch": 3000, "seed": None, "average_over_runs": 5}
NOTED = {"arguments": ARGUMENTS, "n": 1118, "device": "cpu", "python": "3.11", "packages": {"numpy": "2"}}


def write_run(folder, i, value, **changes):
    save_json(folder / str(i) / "run.json", {**NOTED, "arguments": {**ARGUMENTS, **changes}})
    save_npz(folder / str(i) / "orders" / "order_ours.npz", order=np.arange(3), fraction_fixed=np.full(20, value))
    save_npy(folder / str(i) / "accuracies" / "accuracies_ours.npy", np.full(20, value / 2))


def test_run_folders_become_a_tidy_table(tmp_path):
    for i, value in enumerate((0.2, 0.4, 0.9)):
        write_run(tmp_path, i, value)
    found = results.load_runs("xgboost", tmp_path)
    assert list(found.table) == ["experiment", "run", "quantity", "method", "fraction_checked", "value"]
    assert len(found.table) == 3 * 2 * 20 and set(found.table["method"]) == {"RPS-LJE"}
    means = results.summary(found.table).set_index(["quantity", "fraction_checked"])
    assert means.loc[(IDENTIFIED, 0.35), "mean"] == pytest.approx(0.5)
    assert means.loc[(ACCURACY, 1.0), "sd"] == pytest.approx(np.std([0.1, 0.2, 0.45], ddof=1))
    assert means["runs"].eq(3).all()
    described = results.describe(found)
    assert "n = 1,118, 30% flipped, γ = 1e-05, 3 runs, 5 refits per checkpoint" in described


def test_runs_with_other_arguments_are_not_averaged(tmp_path):
    write_run(tmp_path, 0, 0.2)
    write_run(tmp_path, 1, 0.2, flip_portion=0.2)
    with pytest.raises(UserError, match="differ in flip_portion"):
        results.load_runs("xgboost", tmp_path)
    write_run(tmp_path, 1, 0.2, data="an argument that the first run does not have")
    with pytest.raises(UserError, match="differ in data"):
        results.load_runs("xgboost", tmp_path)


def test_runs_without_orders_say_so(tmp_path):
    save_json(tmp_path / "0" / "run.json", NOTED)
    with pytest.raises(results.NoOrders, match="has come as far as its orders"):
        results.load_runs("xgboost", tmp_path)


def test_what_runs_were_made_with_is_told_of_all_of_them(tmp_path):
    write_run(tmp_path, 0, 0.2)
    write_run(tmp_path, 1, 0.2)
    save_json(tmp_path / "1" / "run.json", {**NOTED, "device": "cuda", "packages": {"numpy": "2.1", "torch": "3"}})
    scale = results.load_runs("xgboost", tmp_path).scale
    assert scale["device"] == "cpu and cuda" and scale["python"] == "3.11"
    assert scale["packages"] == {"numpy": "2 and 2.1", "torch": "3"}


def test_one_experiment_that_cannot_be_exported_does_not_keep_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(compare_with_paper, "PROJECT_ROOT", tmp_path)
    save_json(tmp_path / results.FOLDERS["cnn"] / "0" / "run.json", NOTED)  # trained, no further
    write_run(tmp_path / results.FOLDERS["rnn"], 0, 0.2, reviews="imdb")
    monkeypatch.setattr("sys.argv", ["command", "--export"])
    compare_with_paper.main()
    assert "not exported: no run in" in capsys.readouterr().out
    assert [path.name for path in sorted((tmp_path / results.RESULTS).glob("*.csv"))] == ["rnn.csv"]


def test_without_runs_the_committed_results_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PROJECT_ROOT", tmp_path)
    found = results.load("xgboost")
    assert found.source == "committed results" and found.table["run"].nunique() == 10
    assert results.summary(found.table).set_index(["quantity", "method"])["runs"].eq(10).all()
    assert set(found.scale["packages"]) >= {"xgboost", "imbalanced-learn"}
    with pytest.raises(UserError, match="no runs of cnn_from_scratch"):
        results.load("cnn_from_scratch")


def test_an_experiment_at_another_scale_or_in_bfloat16_has_the_published_curves():
    theirs = results.published("cnn")
    assert set(theirs["quantity"]) == {ACCURACY, IDENTIFIED}
    for name in ("cnn_small", "cnn_bfloat16"):
        pd.testing.assert_frame_equal(results.published(name), theirs)


def test_exported_runs_are_read_back_to_the_last_digit(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PROJECT_ROOT", tmp_path)
    for i in range(3):
        write_run(tmp_path / results.FOLDERS["rnn"], i, (i + 1) / 7)
    runs = results.load("rnn")
    results.export("rnn")
    shutil.rmtree(tmp_path / "models")
    committed = results.load("rnn")
    assert committed.source == "committed results" and committed.scale == runs.scale
    pd.testing.assert_frame_equal(committed.table, runs.table, check_exact=True)


def test_an_experiment_is_continued_elsewhere_a_method_and_a_run_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(results, "CODE_ROOT", tmp_path)
    folder = tmp_path / results.FOLDERS["rnn"]
    for i in range(2):
        write_run(folder, i, (i + 1) / 7)
    results.export("rnn")
    before = results.load("rnn").table

    def elsewhere(value, **changes):  # run 1 alone, with a method more and without the refits of the first
        shutil.rmtree(tmp_path / "models", ignore_errors=True)
        write_run(folder, 1, value, **changes)
        (folder / "1" / "accuracies" / "accuracies_ours.npy").unlink()
        save_npz(folder / "1" / "orders" / "order_IF.npz", order=np.arange(3), fraction_fixed=np.full(20, 0.6))
        results.export("rnn")
        shutil.rmtree(tmp_path / "models")
        return results.load("rnn").table

    after = elsewhere(2 / 7)
    pd.testing.assert_frame_equal(after[after["method"] == "RPS-LJE"].reset_index(drop=True), before, check_exact=True)
    more = after[after["method"] == "Influence function"]
    assert (more["run"] == 1).all() and (more["value"] == 0.6).all() and len(after) == len(before) + 20
    other = elsewhere(0.5)  # another training: its committed refits are dropped, the other run's are not
    assert set(zip(other["run"], other["quantity"], other["method"])) == {
        (0, IDENTIFIED, "RPS-LJE"),
        (0, ACCURACY, "RPS-LJE"),
        (1, IDENTIFIED, "RPS-LJE"),
        (1, IDENTIFIED, "Influence function"),
    }
    assert set(elsewhere(0.5, lr=0.1)["run"]) == {1}
    write_run(folder, 0, 0.5, lr=0.2)
    (folder / "0" / "accuracies" / "accuracies_ours.npy").unlink()
    assert results.export("rnn") == {"rnn": (40, "of another lr")}  # the shares and refits of run 1, both methods
    assert results.export("rnn") == {}


def test_detectors_stand_beside_the_papers_methods_and_not_among_them(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(results, "CODE_ROOT", tmp_path)
    folder = tmp_path / results.FOLDERS["rnn"]
    write_run(folder, 0, 0.2)
    results.export("rnn")
    with pytest.raises(results.NoRuns, match="no runs of rnn"):
        results.load("rnn", detectors=True)
    save_npz(folder / "0" / "orders" / "order_noise.npz", order=np.arange(3), fraction_fixed=np.full(20, 0.9))
    results.export("rnn")
    for _ in range(2):  # from the runs, and from what was exported
        assert set(results.load("rnn").table["method"]) == {"RPS-LJE"}
        beside = results.load("rnn", detectors=True).table
        assert beside.groupby("method")["value"].max().to_dict() == {"RPS-LJE": 0.2, results.LABELS["noise"]: 0.9}
        shutil.rmtree(tmp_path / "models", ignore_errors=True)


def test_committed_identified_shares_are_within_0_04_of_the_published_ones():
    ours = results.summary(pd.read_csv(results.committed("xgboost.csv")))
    both = ours.merge(results.published("xgboost"), on=["quantity", "method", "fraction_checked"])
    both = both[both["quantity"] == IDENTIFIED].set_index("method")
    difference = (both["mean_x"] - both["mean_y"]).abs()
    assert len(difference) == 60
    assert difference["RPS-LJE"].max() < 0.04 and difference["Influence function"].max() < 0.04
    assert difference["Random"].max() < 0.02


def test_figure_has_both_panels_curves_and_a_caption_and_is_the_same_twice(tmp_path):
    figure, found = figures.label_flips("xgboost", "title")
    assert [axis.get_ylabel() for axis in figure.axes] == ["mislabelled data identified", "test accuracy"]
    for axis in figure.axes:
        assert len(axis.containers) == 3  # ours with error bars
        assert sum(line.get_linestyle() == "--" and len(line.get_xdata()) == 20 for line in axis.lines) == 3
    assert any(text.get_text() == results.describe(found) for text in figure.texts)
    for name in ("a", "b"):
        figures.save(figure, name, tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_project_root_is_where_runs_are_looked_for():
    assert results.PROJECT_ROOT == config.PROJECT_ROOT
