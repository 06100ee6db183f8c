"""Predict the sentiment of a text, and show the training reviews behind the prediction.

python models/RNN/predict.py "A brilliant, moving film with superb acting."

Reads the model below --saved_path and every method's weights that are there.
"""

import dataclasses
import textwrap

import numpy as np
import torch

from config import ArgumentParser, UserError, at_least_one, positive, run_command, script_relative, shown
from explainer.influence import loss_gradients
from explainer.methods import METHODS
from explainer.weights import load_weights, weights_path
from models.files import load_json
from models.outputs import load_outputs
from models.RNN import utils_imdb
from models.RNN.RNN import SentimentLSTM
from models.RNN.texts import tokens
from models.training import load_tensors

SHOWN = 160  # characters of a review


def load_network(folder):
    """The trained network of a run folder and the words that its numbers mean.

    Raises UserError where it is missing, or its vocabulary is of another size than its embedding.
    """
    remedy = "run python models/RNN/train.py again"
    state = load_tensors(folder / "model" / "lstm.pt", remedy)
    try:
        words = (folder / "model" / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(
            f"cannot read {shown(folder / 'model' / 'vocabulary.txt')} ({error.strerror}): {remedy}"
        ) from error
    try:
        rows, width = state["embedding.weight"].shape
        network = SentimentLSTM(rows, width, state["fc.weight"].shape[1] // 2)
        network.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{shown(folder / 'model' / 'lstm.pt')} holds another network: {remedy}") from error
    if rows != len(words):
        raise UserError(f"{shown(folder / 'model')}: vocabulary.txt has {len(words)} words, lstm.pt {rows}: {remedy}")
    return network.eval(), words


class Explained:
    """A run folder: its network, its saved outputs, the texts behind them, and each method's weights."""

    def __init__(self, folder, lr=0.01, data_dir=None):
        """lr: the step of RPS-LJE's weights. Raises UserError where the model or its texts are missing."""
        self.outputs = load_outputs(folder, "RNN")
        self.network, self.words = load_network(folder)
        path, remedy = folder / "model" / "reviews.json", "run python models/RNN/train.py again"
        reviews = load_json(path, remedy)
        if not {"dataset", "texts", "train", "test"} <= reviews.keys():
            raise UserError(f"{shown(path)} does not say which reviews they are: {remedy}")
        self.rows, self.test_rows = reviews["train"], reviews["test"]
        self.texts = utils_imdb.texts(reviews["dataset"], data_dir)
        if self.texts.key != reviews["texts"]:
            raise UserError(
                f"the {reviews['dataset']} reviews are not those that {shown(path)} was made from: {remedy}"
            )
        there = [method for method in METHODS if weights_path(folder, method, lr).exists()]
        self.weights = {method: load_weights(folder, method, self.outputs, lr) for method in there}

    def text(self, i):
        """Training review i as its author wrote it."""
        return self.texts.text(self.rows[i])

    def best(self, method, f, label, k=3):
        """The k training reviews that speak most for class `label` of a text with features f (1,2h)."""
        outputs = dataclasses.replace(self.outputs, intermediate_test=f.numpy(), labels_test=np.array([label]))
        arrays = dict(self.weights[method])
        if "jaccobian_test" in arrays:  # influence functions: the loss gradient of this text
            gradients = loss_gradients(f, torch.tensor([label]), torch.from_numpy(self.outputs.weight.reshape(-1)))
            arrays["jaccobian_test"] = gradients.numpy()[:, None, :]
        importance = METHODS[method].importance(arrays, outputs, [0])[:, 0]
        return np.argsort(-importance, kind="stable")[:k]


@torch.inference_mode()
def features_of(network, words, text):
    """The last hidden layer f (1,2h) of a text, and its logit. Raises UserError for a text without a word."""
    words_of = tokens(text)
    if not words_of:
        raise UserError(f"got the text {text!r}, which has no word: give a sentence")
    numbers = {word: i for i, word in enumerate(words)}
    rows = torch.tensor([[numbers.get(word, 0) for word in words_of]])
    f = network.features(rows, torch.tensor([rows.shape[1]]))
    return f, float(network.fc(f))


def main():
    parser = ArgumentParser(description="Predict the sentiment of a text, and show the reviews behind the prediction.")
    parser.add_argument("text", help="the text, in quotes")
    parser.add_argument("--saved_path", default="saved_models/base", help="run folder, relative to this script")
    parser.add_argument("--data_dir", help="folder of the reviews, as train.py takes it")
    parser.add_argument("--lr", type=positive, default=0.01, help="the step of RPS-LJE's weights")
    parser.add_argument("--k", type=at_least_one, default=3, help="reviews by each method")
    options = parser.parse_args()
    run = Explained(script_relative(options.saved_path, __file__), options.lr, options.data_dir)
    f, logit = features_of(run.network, run.words, options.text)
    label, p = int(logit > 0), 1 / (1 + np.exp(-logit))
    print(f"{('negative', 'positive')[label]}, P(positive) = {p:.3f}")
    if not run.weights:
        print("no weights are there: run python explainer/calculate_ours_weights.py --model RNN")
    for method in run.weights:
        print(f"\n{METHODS[method].label}: the training reviews that speak most for it")
        for i in run.best(method, f, label, options.k):
            theirs = ("negative", "positive")[run.outputs.labels_train[i]]
            print(
                f"  {run.texts.names[run.rows[i]]} ({theirs}): {textwrap.shorten(run.text(i), SHOWN, placeholder=' …')}"
            )


if __name__ == "__main__":
    run_command(main)
