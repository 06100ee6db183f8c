"""What the label-flip engine refuses, in one line, with nothing changed."""

import numpy as np
import pytest
from test_experiment import SMALL, arrays, main, trees_data

from dataset_debugging.experiment_dataset_debugging_Xgboost import German
from explainer import calculate_representer_weights


def test_weights_of_other_settings_are_refused(command, refused, tmp_path):
    arguments = [*SMALL[:4], "--path", tmp_path, "--methods", "rep", "--epoch", 20, "--until"]
    assert command(main, *arguments, "weights")[0] == 0
    weights = tmp_path / "0" / "calculated_weights" / "representer_weight_matrix.npz"
    assert command(calculate_representer_weights.main, "--model", "Xgboost", "--saved_path", tmp_path / "0")[0] == 0
    said = refused(main, *arguments, "orders")
    assert "representer_weight_matrix.npz was made with" in said and "delete that file" in said
    weights.write_bytes(b"no")
    assert "delete that file" in refused(main, *arguments, "orders")
    weights.unlink()
    assert command(main, *arguments, "orders")[0] == 0


def test_other_arguments_are_refused_unless_overwritten(command, refused, tmp_path):
    arguments = [*SMALL, "--path", tmp_path, "--until", "train"]
    assert command(main, *arguments)[0] == 0
    said = refused(main, *arguments, "--flip_portion", 0.2)
    assert "was begun with flip_portion 0.3, got 0.2: give the same arguments" in said and "--overwrite" in said
    assert (tmp_path / "0" / "model" / "saved_outputs.npz").exists()
    assert command(main, *arguments, "--flip_portion", 0.2, "--overwrite")[0] == 0
    labels = np.load(tmp_path / "0" / "model" / "saved_outputs.npz")["labels_train"]
    assert (labels != trees_data().y_train).sum() == 223


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num_of_run", 0], "--num_of_run: got 0; give a whole number of at least 1"),
        (["--flip_portion", 1], r"--flip_portion: got 1; give a number in [0, 1)"),
        (["--flip_portion", -0.1], "--flip_portion: got -0.1"),
        (["--lr", 0], "--lr: got 0; give a number above 0"),
        (["--lmbd", 0], "--lmbd: got 0"),
        (["--methods", "lime"], "--methods: invalid choice: 'lime'"),
        (["--until", "end"], "--until: invalid choice: 'end'"),
        (["--jobs", 0], "--jobs: got 0"),
        (["--flip_portion", 1e-5], "--flip_portion 1e-05 of 1118 labels is none"),
    ],
)
def test_bad_arguments(refused, tmp_path, arguments, said):
    assert said in refused(main, "--path", tmp_path / "runs", *arguments)
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_something_else_is_never_touched(refused, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "thesis.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        assert "is no run folder" in refused(main, *SMALL, "--path", tmp_path, *more)
    assert (tmp_path / "0" / "thesis.txt").read_text() == "mine"


def test_damaged_files_of_a_run_are_named(command, refused, tmp_path):
    arguments = [*SMALL, "--path", tmp_path, "--until", "orders"]
    assert command(main, *arguments)[0] == 0
    order = tmp_path / "0" / "orders" / "order_ours.npz"
    whole = dict(np.load(order))
    for name, value in (("order", whole["order"][:10]), ("order", 0 * whole["order"]), ("fraction_fixed", np.ones(3))):
        np.savez(order, **{**whole, name: value})
        assert "order_ours.npz holds" in refused(main, *arguments)
    order.write_bytes(order.read_bytes()[:300])
    said = refused(main, *arguments)
    assert "order_ours.npz is damaged" in said and "delete that file, and the same command makes it again" in said
    order.unlink()
    weights = tmp_path / "0" / "calculated_weights" / "ours_weight_matrix_with_lr_1e-05.npz"
    weights.write_bytes(weights.read_bytes()[:500])
    assert "ours_weight_matrix_with_lr_1e-05.npz is damaged" in refused(main, *arguments)
    weights.unlink()
    assert command(main, *arguments)[0] == 0
    np.testing.assert_array_equal(np.load(order)["order"], whole["order"])
    for text in ("{", "[]", '{"arguments": 3}'):
        (tmp_path / "0" / "run.json").write_text(text)
        assert "run.json" in refused(main, *arguments)


def test_overwriting_changes_nothing_before_all_is_checked(command, refused, tmp_path, monkeypatch):
    arguments = [*SMALL[2:], "--path", tmp_path, "--until", "train"]
    assert command(main, *arguments, "--num_of_run", 2)[0] == 0
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / ".notes.1.tmp.txt").write_text("mine")
    (tmp_path / "2" / "thesis.txt").write_text("mine")
    before = arrays(tmp_path)
    assert "2 is no run folder" in refused(main, *arguments, "--num_of_run", 3, "--overwrite")
    monkeypatch.setattr(German, "__init__", lambda self, options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(main, *arguments, "--num_of_run", 2, "--overwrite")
    assert arrays(tmp_path).keys() == before.keys() and len(list((tmp_path / "2").iterdir())) == 2


def test_other_data_are_refused(command, refused, tmp_path, monkeypatch):
    arguments = [*SMALL, "--path", tmp_path, "--until", "train"]
    assert command(main, *arguments)[0] == 0
    monkeypatch.setattr(type(trees_data()), "fingerprint", "another")
    assert "was begun with data" in refused(main, *arguments)
