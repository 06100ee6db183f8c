"""Training the LSTM: resuming, validation, saved outputs and the command, on the carried snippets."""

import numpy as np
import pytest
import torch

from config import ArgumentParser
from models.moments import load_moments
from models.outputs import load_outputs
from models.RNN import batches, train, utils_imdb
from models.RNN.RNN import SentimentLSTM
from models.RNN.texts import tokens
from models.RNN.train import Data, fit_lstm, last_layer
from models.training import Schedule

SMALL = "--dataset snippets --use_pretrained False --hidden_dim 4 --num_of_samples 60 --device cpu".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty snippets to train on."""
    parser = ArgumentParser()
    train.add_options(parser)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path_factory.mktemp("root"))
        return train.read(parser.parse_args(SMALL[:-2]), torch.device("cpu"))


def test_samples_are_half_of_each_class_of_each_part(data):
    assert isinstance(data, Data)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [60, 25, 36]
    assert data.train.labels.sum() == 30
    text = data.corpus.source.text(data.corpus.train.rows[data.chosen["train"][3]])
    words = [data.corpus.words[w] for w in data.train.tokens(torch.tensor([3]))[0][0]]
    assert len(words) == len(tokens(text))


def test_saved_outputs_are_one_review_at_a_time_in_the_data_sets_order(data):
    network = train.new_network(data, 4, 0)
    outputs = train.saved_outputs(network, data)
    with torch.no_grad():
        for part, features, logits in (
            (data.train, outputs.intermediate_train, outputs.outputs_train),
            (data.test, outputs.intermediate_test, outputs.outputs_test),
        ):
            for i in range(len(part)):
                f = network.eval().features(*part.tokens(torch.tensor([i])))
                np.testing.assert_allclose(features[i], f[0], atol=1e-5)
                np.testing.assert_allclose(logits[i], network.fc(f)[0, 0], atol=1e-5)
    np.testing.assert_array_equal(outputs.labels_train, data.train.labels)
    for limit in (1, 100, 100000):
        torch.testing.assert_close(last_layer(network, data.test, limit)[0], torch.tensor(outputs.intermediate_test))


def test_an_interrupted_training_goes_on_to_the_same_network(data, tmp_path):
    schedule, file = Schedule(4, 0.05, 16, "adam"), tmp_path / "training.checkpoint"
    whole = fit_lstm(data, schedule, 4, 0, pick=True)

    class Stopped(Exception):
        pass

    calls = []
    real = train.accuracy

    def stop(network, reviews):
        calls.append(1)
        if len(calls) == 3:
            raise Stopped
        return real(network, reviews)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "accuracy", stop)
        with pytest.raises(Stopped):
            fit_lstm(data, schedule, 4, 0, pick=True, checkpoint=file)
    torch.manual_seed(99)  # the dropout is not drawn from torch's own generator
    resumed = fit_lstm(data, schedule, 4, 0, pick=True, checkpoint=file)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_validation_picks_the_first_best_epoch(data, monkeypatch):
    found = iter([0.5, 0.7, 0.7, 0.6])
    states = []

    def accuracy(network, reviews):
        assert reviews is data.validation
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(found)

    monkeypatch.setattr(train, "accuracy", accuracy)
    picked = fit_lstm(data, Schedule(4, 0.05, 16, "adam"), 4, 0, pick=True)
    for name, value in picked.state_dict().items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0)


def test_words_begin_with_their_vectors(data):
    vectors = np.random.default_rng(0).normal(size=(len(data.corpus.words), 100)).astype(np.float32)
    with_vectors = Data(**{**vars(data), "vectors": vectors})
    network = train.new_network(with_vectors, 4, 0)
    np.testing.assert_array_equal(network.embedding.weight.detach(), vectors)


def test_the_same_command_writes_the_same_bytes_and_another_seed_others(command, tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        arguments = [*SMALL, "--epochs", 2, "--seed", seed, "--saved_path", tmp_path / name]
        status, printed, _ = command(train.main, *arguments)
        assert status == 0 and "60 training, 25 validation, 36 test reviews" in printed
    for file in ("saved_outputs.npz", "lstm.pt"):
        a, b, c = ((tmp_path / name / "model" / file).read_bytes() for name in "abc")
        assert a == b != c
    assert load_outputs(tmp_path / "a", "RNN").intermediate_train.shape == (60, 8)
    kept = tmp_path / "kept"
    assert command(train.main, *SMALL, "--epochs", 2, "--seed", 3, "--keep_moments", "--saved_path", kept)[0] == 0
    outputs = load_outputs(kept, "RNN")
    np.testing.assert_array_equal(outputs.intermediate_train, load_outputs(tmp_path / "a", "RNN").intermediate_train)
    assert [moment.time for moment in load_moments(kept, outputs)][:2] == [0, 1]


def test_the_moment_before_the_training_is_each_reviews_mean_vector(data):
    network = train.new_network(data, 4, 0)
    found = train.mean_vectors(network.embedding, data.train, tokens=300)  # several batches
    for i in (0, 7, 31):
        own = data.train.words[data.train.starts[i] :][: data.train.lengths[i]].long()
        torch.testing.assert_close(found[i], network.embedding(own).detach().mean(0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max_length", 0], "--max_length: got 0; give a whole number of at least 1"),
        (["--use_pretrained", "perhaps"], "--use_pretrained: got perhaps; give True or False"),
        (["--num_of_samples", 99999], "--num_of_samples: got 99999; give at most"),
        (["--use_pretrained", "True", "--vectors", "absent.txt"], "cannot read the vectors absent.txt"),
        (["--vectors", "v.txt"], "--vectors: got v.txt beside --use_pretrained False; leave one of them out"),
    ],
)
def test_bad_arguments(refused, tmp_path, monkeypatch, arguments, said):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    assert said in refused(train.main, *SMALL, "--epochs", 1, "--saved_path", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_long_reviews_is_trained_on_in_parts(data, monkeypatch):
    schedule = Schedule(1, 0.05, 16, "sgd")  # Adam divides by gradients that are next to nothing
    network, pieces = fit_lstm(data, schedule, 4, 0), []
    monkeypatch.setitem(batches.MOST, "cpu", 60)
    monkeypatch.setattr(SentimentLSTM, "_dropout", lambda self, x, generator: x)  # drawn for each part
    taken = data.train.tokens
    monkeypatch.setattr(data.train, "tokens", lambda rows: pieces.append(taken(rows)[0].numel()) or taken(rows))
    parts = fit_lstm(data, schedule, 4, 0)
    assert len(pieces) > 8 and max(pieces) <= max(60, int(data.train.lengths.max()))
    monkeypatch.setitem(batches.MOST, "cpu", 2**15)
    whole = fit_lstm(data, schedule, 4, 0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, atol=2e-5, rtol=1e-4)
    assert not torch.equal(network.fc.weight, whole.fc.weight)


def test_bfloat16_trains_and_saves_float32(command, tmp_path, monkeypatch):
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    found = {}
    for name, more in {"float32": [], "bfloat16": ["--bfloat16"]}.items():
        run = tmp_path / name
        assert command(train.main, *SMALL, "--epochs", 1, "--saved_path", run, *more)[0] == 0
        state = torch.load(run / "model" / "lstm.pt", weights_only=True)
        assert {value.dtype for value in state.values()} == {torch.float32}
        found[name] = load_outputs(run, "RNN").intermediate_test
    assert not np.array_equal(found["float32"], found["bfloat16"])
    np.testing.assert_allclose(found["float32"], found["bfloat16"], atol=0.01)


def test_other_reviews_do_not_replace_the_base_model(command, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "given_folder", lambda path, script: path and tmp_path / path)
    for more in ([], ["--max_length", 3]):
        assert command(train.main, *SMALL, "--epochs", 1, *more)[0] == 0
    made = sorted(path.name for path in (tmp_path / "saved_models").glob("[!.]*"))
    assert made == ["base_snippets_60", "base_snippets_60_3words"]


def test_a_model_that_will_be_replaced_is_named_and_an_unusable_folder_before_the_training(command, refused, tmp_path):
    for replaced in (False, True):
        status, printed, _ = command(train.main, *SMALL, "--epochs", 1, "--saved_path", tmp_path / "run")
        assert status == 0 and ("has a model: this training replaces it" in printed) == replaced
    (tmp_path / "file").write_text("mine")
    assert "file" in refused(train.main, *SMALL, "--epochs", 10**6, "--saved_path", tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"
    assert "got an empty path" in refused(train.main, *SMALL, "--saved_path", "")
