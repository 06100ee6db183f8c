"""Predicting a text, on a tiny LSTM of the carried snippets."""

import json
import os

import numpy as np
import pytest

from config import UserError
from explainer.methods import METHODS
from explainer.weights import COMMANDS, load_weights
from models.files import load_json, save_json
from models.outputs import load_outputs
from models.RNN import predict, train, utils_imdb
from models.RNN.saved import SavedModel, load_network
from models.RNN.texts import tokens
from models.training import initialized, save_network


def test_a_text_is_classified_and_explained_by_every_method(command, lstm_run):
    status, printed, errors = command(predict.main, "A brilliant, moving film.", "--saved_path", lstm_run, "--k", 2)
    assert status == 0, errors
    assert "P(positive) = 0." in printed and printed.count("  snippet ") == 6
    assert all(label in printed for label in ("RPS-LJE", "Influence function", "RPS-l2"))


def test_a_test_review_given_as_text_is_explained_as_the_test_review(lstm_run):
    model, outputs = SavedModel(lstm_run), load_outputs(lstm_run, "RNN")
    tests = [0, 7]
    f, logits = model.features([model.test_text(t) for t in tests])
    np.testing.assert_allclose(f, outputs.intermediate_test[tests], atol=1e-5)
    np.testing.assert_allclose(logits, outputs.outputs_test[tests], atol=1e-5)
    assert any(len(tokens(model.test_text(t))) > 3 for t in tests)  # more than --max_length
    for method in METHODS:
        arrays = load_weights(lstm_run, method, outputs, lr=0.01)
        expected = METHODS[method].importance(arrays, outputs, tests)
        found = METHODS[method].importance_of(arrays, outputs, f.numpy(), outputs.labels_test[tests])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
        best = model.best(found)[:, 1]
        right = np.sort(expected[(outputs.pred_train > 0.5) == (outputs.labels_train == 1), 1])[::-1]
        np.testing.assert_allclose(expected[best, 1], right[:3], rtol=1e-3, atol=1e-7)


def test_a_method_without_weights_is_named_with_the_command_that_makes_them(command, lstm_run):
    status, printed, errors = command(predict.main, "good", "--saved_path", lstm_run, "--lr", 0.5, "--k", 9999)
    assert status == 0 and "RPS-LJE" not in printed
    assert f"left out: RPS-LJE, there are no weights of it: run {COMMANDS['ours']}".partition(" {")[0] in errors
    assert f"--saved_path {lstm_run} --lr 0.5" in errors
    assert printed.count("  snippet ") == 2 * SavedModel(lstm_run).right.sum()


def test_weights_of_another_training_or_damaged_are_left_out_and_the_others_shown(command, lstm_run):
    folder = lstm_run / "calculated_weights"
    (folder / "influence_weight_matrix.npz").write_bytes(b"no")
    with np.load(folder / "representer_weight_matrix.npz") as known:
        arrays = dict(known)
    arrays["settings"] = np.array(json.dumps({**json.loads(str(arrays["settings"])), "outputs": "others"}))
    np.savez(folder / "representer_weight_matrix.npz", **arrays)
    status, printed, errors = command(predict.main, "good", "--saved_path", lstm_run)
    assert status == 0 and "RPS-LJE: the training reviews" in printed and printed.count(": the training") == 1
    assert "left out: Influence function, " in errors and "is damaged" in errors
    assert "left out: RPS-l2, " in errors and "was made from other saved outputs" in errors


def test_a_text_of_unknown_words_is_said_to_be(command, lstm_run):
    for text, said in (("zzxqy qqqwwx", True), ("zzxqy good", False)):
        status, printed, errors = command(predict.main, text, "--saved_path", lstm_run)
        assert status == 0 and ("the model knows none of these words" in errors) == said


def test_bad_input(refused, lstm_run):
    assert "give a text in UTF-8" in refused(predict.main, "caf\udce9", "--saved_path", lstm_run)
    assert "got the text ' ', which has no word: give a sentence" in refused(
        predict.main, " ", "--saved_path", lstm_run
    )
    words = lstm_run / "model" / "vocabulary.txt"
    words.write_text(words.read_text() + "\nmore")
    assert "vocabulary.txt is damaged, or of another training" in refused(
        predict.main, "good", "--saved_path", lstm_run
    )
    words.write_bytes(b"\xff\xfe\x80")
    assert "vocabulary.txt" in (said := refused(predict.main, "good", "--saved_path", lstm_run)) and "train.py" in said
    (lstm_run / "model" / "lstm.pt").write_bytes(b"no")
    assert "lstm.pt is damaged" in refused(predict.main, "good", "--saved_path", lstm_run)


def others_rows(folder):
    path = folder / "model" / "reviews.json"
    known = load_json(path, "")
    save_json(path, {**known, "train": known["train"][1:] + known["train"][:1]})


def row_outside(folder):
    path = folder / "model" / "reviews.json"
    known = load_json(path, "")
    save_json(path, {**known, "train": [*known["train"][:-1], 10**6]})


def words_in_another_order(folder):
    path = folder / "model" / "vocabulary.txt"
    words = path.read_text().split("\n")
    path.write_text("\n".join([*words[:2], *reversed(words[2:])]))


def another_network(folder):
    network, _ = load_network(folder)
    save_network(folder / "model" / "lstm.pt", initialized(lambda: type(network)(*sizes(network)), 5))


def sizes(network):
    return *network.embedding.weight.shape, network.fc.in_features // 2


@pytest.mark.parametrize("change", [others_rows, row_outside, words_in_another_order, another_network])
def test_parts_of_different_models_are_refused(refused, lstm_run, change):
    change(lstm_run)
    said = refused(predict.main, "good", "--saved_path", lstm_run)
    assert "models/RNN/train.py" in said
    if change is words_in_another_order:
        assert "vocabulary.txt is damaged, or of another training" in said
    else:
        assert "the snippets reviews are not those behind the outputs" in said


def test_the_same_reviews_unpacked_at_another_time_are_the_same(command, imdb_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    options = ["--data_dir", imdb_folder, "--use_pretrained", "False", "--hidden_dim", 4, "--epochs", 1]
    assert command(train.main, *options, "--saved_path", tmp_path / "run")[0] == 0
    for i, path in enumerate(sorted(imdb_folder.rglob("*.txt"))):
        os.utime(path, (i, i))
    assert SavedModel(tmp_path / "run", imdb_folder).name(0).startswith("train/")
    changed = imdb_folder / "aclImdb/test/neg/0_3.txt"
    for text in ("A film of quite another kind.", "", None):
        changed.write_text(text) if text is not None else changed.unlink()
        with pytest.raises(UserError, match="the imdb reviews are not those behind the outputs"):
            SavedModel(tmp_path / "run", imdb_folder)
