"""The RNN experiment on the carried snippets, at the smallest scale."""

import json

import numpy as np
import pandas as pd
import torch

from dataset_debugging import experiment, figures, memorization, results
from dataset_debugging import experiment_dataset_debugging_rnn as rnn
from dataset_debugging.accuracies import refit_seed
from dataset_debugging.calculate_orders import fraction_identified, order_by_suspicion
from dataset_debugging.networks import flipped_labels
from explainer.label_errors import DETECTORS, proposed, scored
from explainer.rps_lje import rps_lje
from models.moments import load_moments
from models.outputs import SavedOutputs
from models.RNN import utils_imdb
from models.RNN.train import accuracy, add_options, fit_lstm, read
from models.training import Schedule

MODEL = "--dataset snippets --use_pretrained False --hidden_dim 4 --num_of_samples 40".split()
SMALL = [*MODEL, *"--num_of_run 1 --epochs 2 --retrain_epochs 1 --average_over_runs 2 --device cpu --jobs 2".split()]


def main():
    experiment._run_all(rnn.EXPERIMENT, *experiment._parse(rnn.EXPERIMENT, rnn.__file__))


def test_scores_of_label_errors_order_by_the_kept_moments(command, tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    arguments = [*SMALL, "--methods", *DETECTORS, "--until", "orders", "--path", tmp_path / "runs"]
    status, printed, errors = command(main, *arguments)
    assert status == 0, errors
    run = tmp_path / "runs" / "0"
    outputs = SavedOutputs.load(run / "model" / "saved_outputs.npz", "")
    moments = load_moments(run, outputs)
    assert [moment.time for moment in moments] == [0, 1, np.inf] and not (run / "calculated_weights").exists()
    assert moments[0].features.shape == (len(outputs.labels_train), 100) and not moments[0].weight.any()
    assert moments[1].features.shape == outputs.intermediate_train.shape
    for moment in moments:
        np.testing.assert_array_equal(moment.labels, outputs.labels_train)
    for key in DETECTORS:
        order = np.load(run / "orders" / f"order_{key}.npz")["order"]
        np.testing.assert_array_equal(order, order_by_suspicion(scored(key, moments)))
    changed = np.load(run / "orders" / "order_repair.npz")["changed"]
    np.testing.assert_array_equal(changed, proposed(moments)[1] != outputs.labels_train)


def test_memorization_is_of_the_kept_moments_and_the_end(command, tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(memorization, "PROJECT_ROOT", tmp_path)
    runs = tmp_path / results.FOLDERS["rnn_small"]
    status, _, errors = command(main, *SMALL, "--methods", "ours", "--until", "orders", "--path", runs)
    assert status == 0, errors
    monkeypatch.setattr(figures, "FIGS", tmp_path / "figs")
    status, _, errors = command(memorization.main, "--experiment", "rnn_small")
    assert status == 2 and "are of snippets, those of rnn_small of imdb" in errors
    monkeypatch.setitem(results.DATA, "rnn", ("reviews", "snippets"))
    status, printed, errors = command(memorization.main, "--experiment", "rnn_small")
    assert status == 0 and "rnn_small_memorization.png" in printed, errors
    table = pd.read_csv(tmp_path / results.RESULTS / "rnn_small_memorization.csv").set_index("epoch")
    assert table.index.tolist() == [1, 2] and np.isnan(table.loc[1, "test_accuracy"])
    flipped = np.load(runs / "0" / "orders" / "random_flipping_order.npy")[:8]
    end = SavedOutputs.load(runs / "0" / "model" / "saved_outputs.npz", "")
    moment = load_moments(runs / "0", end)[1]
    says_one = moment.features[flipped] @ moment.weight[0] > 0
    assert table.loc[1, "memorized"] == np.mean(says_one == (end.labels_train[flipped] == 1))
    found = rps_lje(*map(torch.from_numpy, (moment.features, moment.labels, moment.weight[0])), lr=1e-5)
    order = order_by_suspicion(np.abs(found.self_influence.numpy()))
    assert table.loc[1, "ours"] == fraction_identified(order, flipped)[3]
    assert table.loc[2, "ours"] == np.load(runs / "0" / "orders" / "order_ours.npz")["fraction_fixed"][3]
    text = (tmp_path / results.RESULTS / "rnn_small_memorization.md").read_text()
    assert "memorization.py --experiment rnn_small`; one run after each" in text and "| 1 |" in text and "| – |" in text


def test_a_run_says_which_vectors_its_words_begin_with(tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    own = tmp_path / "own.txt"
    own.write_text(f"film {'1 ' * 100}\n")
    for more, name in (([], "drawn"), (["--use_pretrained", "True", "--vectors", own], "own.txt")):
        monkeypatch.setattr("sys.argv", ["command", *map(str, [*SMALL, *more])])
        options, _ = experiment._parse(rnn.EXPERIMENT, rnn.__file__)
        assert rnn.Sentiment(options).notes == {"word_vectors": name}


def test_a_run_flips_its_reviews_and_refits_on_what_is_still_wrong(command, tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    arguments = [*SMALL, "--methods", "ours", "random", "--path", tmp_path / "runs"]
    status, printed, errors = command(main, *arguments)
    assert status == 0 and "label_flips.png" in printed, errors
    run = tmp_path / "runs" / "0"
    noted = json.loads((run / "run.json").read_text())["arguments"]
    assert noted["reviews"] == "snippets" and noted["hidden_dim"] == 4 and noted["train_lr"] == 5e-3
    described = results.describe(results.load_runs("rnn_snippets", tmp_path / "runs"))
    assert "word vectors drawn" in described and "pretrained" not in described
    parser = experiment.ArgumentParser()
    add_options(parser)
    data = read(parser.parse_args(MODEL), torch.device("cpu"))
    flipped = np.load(run / "orders" / "random_flipping_order.npy")[:8]
    labels = np.load(run / "model" / "saved_outputs.npz")["labels_train"]
    np.testing.assert_array_equal(np.flatnonzero(labels != data.train.labels.numpy()), np.sort(flipped))
    order = np.load(run / "orders" / "order_ours.npz")["order"]
    wrong = np.array([i for i in flipped if i not in set(order[:4])], int)  # 10 % of 40 are checked
    found = np.load(run / "accuracies" / "refits_ours.npy")
    assert found.shape == (8, 2)
    for repeat in range(2):  # whatever ran beside it
        y = flipped_labels(data.train.labels, wrong)
        network = fit_lstm(data, Schedule(1, 5e-3, 64, "fused adam"), 4, refit_seed(0, 2, repeat), y)
        assert found[1, repeat] == accuracy(network, data.test)
