"""Predicting a text, on a tiny LSTM of the carried snippets."""

import numpy as np

from explainer.methods import METHODS
from explainer.weights import COMMANDS, load_weights
from models.files import load_json, save_json
from models.outputs import load_outputs
from models.RNN import predict
from models.RNN.saved import SavedModel
from models.RNN.texts import tokens


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
        best = predict.best(method, arrays, model, f[1:], outputs.labels_test[7])
        right = np.sort(expected[(outputs.pred_train > 0.5) == (outputs.labels_train == 1), 1])[::-1]
        np.testing.assert_allclose(expected[best, 1], right[:3], rtol=1e-3, atol=1e-7)


def test_a_method_without_weights_is_named_with_the_command_that_makes_them(command, lstm_run):
    status, printed, errors = command(predict.main, "good", "--saved_path", lstm_run, "--lr", 0.5, "--k", 9999)
    assert status == 0 and "RPS-LJE" not in printed
    assert f"left out: RPS-LJE, there are no weights of it: run {COMMANDS['ours']}".partition(" {")[0] in errors
    assert f"--saved_path {lstm_run} --lr 0.5" in errors
    assert printed.count("  snippet ") == 2 * SavedModel(lstm_run).right.sum()


def test_bad_input(refused, lstm_run):
    assert "got the text ' ', which has no word: give a sentence" in refused(
        predict.main, " ", "--saved_path", lstm_run
    )
    path = lstm_run / "model" / "reviews.json"
    known = load_json(path, "")
    save_json(path, {**known, "texts": "others"})
    assert "are not those that" in refused(predict.main, "good", "--saved_path", lstm_run)
    save_json(path, known)
    words = lstm_run / "model" / "vocabulary.txt"
    words.write_text(words.read_text() + "\nmore")
    assert "vocabulary.txt has 12800 words, lstm.pt 12799" in refused(predict.main, "good", "--saved_path", lstm_run)
    words.write_bytes(b"\xff\xfe\x80")
    assert "cannot read" in (said := refused(predict.main, "good", "--saved_path", lstm_run)) and "train.py" in said
    (lstm_run / "model" / "lstm.pt").write_bytes(b"no")
    assert "lstm.pt is damaged" in refused(predict.main, "good", "--saved_path", lstm_run)
