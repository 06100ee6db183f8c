"""A trained LSTM as train.py left it: the network, its words, its saved outputs and the reviews behind them."""

import numpy as np
import torch

from config import UserError, shown
from explainer.agreement import best_explanations
from models.checksums import checksum
from models.files import load_json
from models.outputs import ALIKE, difference, load_outputs, same_training, settled, spread
from models.RNN import utils_imdb
from models.RNN.batches import Reviews
from models.RNN.RNN import SentimentLSTM
from models.RNN.texts import tokens
from models.RNN.train import last_layer
from models.states import load_state
from models.training import load_tensors

REMEDY = "run python models/RNN/train.py again"
PROBES = 4  # reviews of each part whose features are compared


def load_network(folder):
    """The trained network of a run folder and the words that its numbers mean.

    Raises UserError where it is missing, or its vocabulary is of another size than its embedding.
    """
    path = settled(folder) / "model" / "lstm.pt"
    state = load_tensors(path, REMEDY)
    try:
        text = path.with_name("vocabulary.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {shown(folder / 'model' / 'vocabulary.txt')} ({error}): {REMEDY}") from error
    words, about = text.split("\n"), path.with_name("reviews.json")
    if about.exists() and load_json(about, REMEDY).get("vocabulary", checksum(text)) != checksum(text):
        raise UserError(f"{shown(path.with_name('vocabulary.txt'))} is damaged, or of another training: {REMEDY}")
    try:
        rows, width = state["embedding.weight"].shape
        hidden = state["fc.weight"].shape[1] // 2
        if not min(rows, width, hidden):
            raise ValueError("nothing in it")
    except (KeyError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{shown(path)} holds another network: {REMEDY}") from error
    if rows != len(words):
        raise UserError(f"{shown(folder / 'model')}: vocabulary.txt has {len(words)} words, lstm.pt {rows}: {REMEDY}")
    with torch.device("meta"):  # nothing is allocated for a network of other sizes than it has
        sizes = {name: value.shape for name, value in SentimentLSTM(rows, width, hidden).state_dict().items()}
    if sizes != {name: getattr(value, "shape", None) for name, value in state.items()}:
        raise UserError(f"{shown(path)} holds another network: {REMEDY}")
    network = SentimentLSTM(rows, width, hidden)
    load_state(network, state, path, REMEDY)
    return network.eval(), words


def _whole_numbers(value):
    return isinstance(value, list) and len(value) > 0 and all(type(row) is int and row >= 0 for row in value)


FIELDS = {  # of reviews.json
    "dataset": lambda value: value in utils_imdb.DATASETS,
    "max_length": lambda value: value is None or (type(value) is int and value > 0),
    "train": _whole_numbers,
    "test": _whole_numbers,
    "training": lambda value: isinstance(value, str),
    "vocabulary": lambda value: isinstance(value, str),
}


class SavedModel:
    """A run folder. outputs: its SavedOutputs. network, words: what made them. texts: the data set's texts."""

    def __init__(self, folder, data_dir=None):
        """Raises UserError where the model or its texts are missing, or the texts are others."""
        self.outputs = load_outputs(folder, "RNN")
        self.network, self.words = load_network(folder)
        self._numbers = {word: i for i, word in enumerate(self.words)}
        path = folder / "model" / "reviews.json"
        reviews = load_json(path, REMEDY, FIELDS)
        same_training(self.outputs.training, reviews.get("training"), "reviews", path, REMEDY)
        if not {"dataset", "max_length", "train", "test"} <= reviews.keys():
            raise UserError(f"{shown(path)} does not say which reviews they are: {REMEDY}")
        self.rows, self.test_rows, self.max_length = (reviews[name] for name in ("train", "test", "max_length"))
        self.texts = utils_imdb.texts(reviews["dataset"], data_dir)
        parts = (self.rows, self.outputs.intermediate_train), (self.test_rows, self.outputs.intermediate_test)
        off = max(self._off(*part) for part in parts)
        if not off <= ALIKE:
            raise UserError(
                f"the {reviews['dataset']} reviews are not those behind the outputs in {shown(path.parent)}, or its "
                f"network or vocabulary is another (the features differ): give the model's --data_dir, or {REMEDY}"
            )

    def _off(self, rows, known):
        """How far the network's features of some of the texts `rows` are from the saved ones, `difference`."""
        if len(rows) != len(known) or max(rows) >= len(self.texts.names):
            return np.inf
        chosen = spread(len(rows), PROBES)
        try:
            found, _ = self.features([self.texts.text(rows[i]) for i in chosen])
        except (UserError, OSError):  # without a word, or gone
            return np.inf
        return difference(found.numpy(), known[chosen])

    def name(self, i):
        """The name of training review i in the data set."""
        return self.texts.names[self.rows[i]]

    def text(self, i):
        """Training review i as its author wrote it."""
        return self.texts.text(self.rows[i])

    def test_text(self, t):
        """Test review t as its author wrote it."""
        return self.texts.text(self.test_rows[t])

    def numbers(self, words):
        """The network's numbers of words, 0 of those that it does not know."""
        return [self._numbers.get(word, 0) for word in words]

    def read(self, text):
        """A text's numbers, as many as the network reads.

        Raises UserError for a text without a word, or of bytes that are no UTF-8.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(f"got the text {text!r}, which is no UTF-8: give it in UTF-8")
        numbers = self.numbers(tokens(text))[: self.max_length]
        if not numbers:
            raise UserError(f"got the text {text!r}, which has no word: give a sentence")
        return numbers

    def features(self, texts):
        """The last hidden layer f (k,2h) of k texts and their logits (k,), read as in training: tensors."""
        reviews = [self.read(text) for text in texts]
        starts = np.cumsum([0, *map(len, reviews)])
        labels = np.zeros(len(reviews), int)  # unknown, and unused
        words = np.concatenate(reviews).astype(np.int32)
        return last_layer(self.network, Reviews(utils_imdb.Reviews(words, starts, labels, labels)))

    @property
    def right(self):
        """Which training reviews are predicted rightly, (n,): the others are left out of explanations, as published."""
        return (self.outputs.pred_train > 0.5) == (self.outputs.labels_train == 1)

    def best(self, importance, k=3):
        """The k best of the rightly predicted training reviews, (k,m), or all of them; importance (n,m)."""
        right = self.right
        return best_explanations(np.where(right[:, None], importance, -np.inf), min(k, right.sum()))
