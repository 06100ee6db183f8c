"""Predicting a text, on a tiny LSTM of the carried snippets."""

import numpy as np
import pytest
import torch

from explainer import calculate_influence, calculate_ours_weights, calculate_representer_weights
from models.files import load_json, save_json
from models.outputs import load_outputs
from models.RNN import predict, train, utils_imdb
from models.RNN.predict import Explained, features_of

SMALL = "--dataset snippets --use_pretrained False --hidden_dim 4 --num_of_samples 60 --epochs 1 --device cpu".split()


@pytest.fixture
def folder(command, tmp_path, monkeypatch):
    """A run folder with a trained model and the weights of all methods."""
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    run = tmp_path / "run"
    assert command(train.main, *SMALL, "--saved_path", run)[0] == 0
    for module in (calculate_ours_weights, calculate_influence, calculate_representer_weights):
        assert command(module.main, "--model", "RNN", "--saved_path", run)[0] == 0
    return run


def test_a_text_is_classified_and_explained_by_every_method(command, folder):
    status, printed, errors = command(predict.main, "A brilliant, moving film.", "--saved_path", folder, "--k", 2)
    assert status == 0, errors
    assert "P(positive) = 0." in printed and printed.count("  snippet ") == 6
    assert all(label in printed for label in ("RPS-LJE", "Influence function", "RPS-l2"))


def test_a_test_review_given_as_text_is_explained_as_the_test_review(folder):
    run, outputs = Explained(folder), load_outputs(folder, "RNN")
    for t in (0, 7):
        text = run.texts.text(run.test_rows[t])
        f, logit = features_of(run.network, run.words, text)
        np.testing.assert_allclose(f[0], outputs.intermediate_test[t], atol=1e-5)
        assert logit == pytest.approx(outputs.outputs_test[t], abs=1e-5)
        for method, arrays in run.weights.items():
            expected = predict.METHODS[method].importance(arrays, outputs, [t])[:, 0]
            found = run.best(method, torch.from_numpy(outputs.intermediate_test[t : t + 1]), outputs.labels_test[t])
            np.testing.assert_allclose(expected[found], np.sort(expected)[::-1][:3], rtol=1e-4, atol=1e-9)


def test_bad_input(refused, folder):
    assert "got the text ' ', which has no word: give a sentence" in refused(predict.main, " ", "--saved_path", folder)
    path = folder / "model" / "reviews.json"
    known = load_json(path, "")
    save_json(path, {**known, "texts": "others"})
    assert "are not those that" in refused(predict.main, "good", "--saved_path", folder)
    save_json(path, known)
    words = folder / "model" / "vocabulary.txt"
    words.write_text(words.read_text() + "\nmore")
    assert "vocabulary.txt has 12800 words, lstm.pt 12799" in refused(predict.main, "good", "--saved_path", folder)
    (folder / "model" / "lstm.pt").write_bytes(b"no")
    assert "lstm.pt is damaged" in refused(predict.main, "good", "--saved_path", folder)
