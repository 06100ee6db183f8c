"""The parts of the paper's inputs: images of the ResNet-20 and reviews of the LSTM, as ACD puts them together."""

import tempfile
from base64 import b64encode
from pathlib import Path

import torch

from config import UserError
from explainer.decomposition.agglomerate import agglomerate_image, agglomerate_text, tiles
from explainer.decomposition.pictures import draw_image, draw_parts, draw_sentence
from explainer.decomposition.scoring import image_scores, text_scores
from explainer.methods import METHODS
from explainer.weights import load_weights, weights_path
from models.CNN.utils_cifar import as_channels_last, images_behind, load_network, normalized
from models.outputs import load_outputs
from models.RNN.saved import SavedModel
from models.RNN.texts import CLASSES, spans

TILE = 4  # pixels: 64 units of an image
SHORT = 40  # tokens: a longer text is put together from its sentences
SIGNS, COMMAS = (".", "!", "?"), (",", ";", ":", "-", "--", ")")


class Explained:
    """A trained model of the paper with its saved outputs: predictions, training points behind them, and their parts.

    classes: the names of 0 and 1. outputs: its `SavedOutputs`. folder: its run folder.
    """

    def methods(self, lr):
        """{key: arrays} of the weights that are there. Raises UserError, with the command to run, where none is."""
        there = [key for key in METHODS if weights_path(self.folder, key, lr).exists()]
        if not there:
            load_weights(self.folder, "ours", self.outputs, lr)  # says what to do
        return {key: load_weights(self.folder, key, self.outputs, lr) for key in there}

    def _check(self, t):
        m = len(self.outputs.labels_test)
        if not 0 <= t < m:
            raise UserError(f"--test_point {t}: give 0 to {m - 1}")


class Images(Explained):
    """The ResNet-20 on two classes of images."""

    def __init__(self, folder, dataset="cifar", data_dir=None, classes=None):
        """Raises UserError where the model or its images are missing, or are not those behind its outputs."""
        self.folder, self.outputs, self.network = folder, load_outputs(folder, "CNN"), load_network(folder)
        self.images = images_behind(self.outputs, self.network, dataset, data_dir, classes)
        self.classes = self.images.classes

    def test(self, t):
        """Test point t: features (1,d), probability of class 1, its label, and its image."""
        self._check(t)
        o = self.outputs
        return o.intermediate_test[[t]], float(o.pred_test[t]), int(o.labels_test[t]), self.images.x_test[t]

    def train(self, i):
        """Training point i: its image, and what is said of it."""
        return self.images.x_train[i], f"training image {i}"

    def parts(self, image, target, whole=False):
        """What of an image (32,32,3) speaks for a class: hierarchy and picture; whole: every level of it."""
        x, units = as_channels_last(normalized(torch.from_numpy(image))[None])[0], tiles(*image.shape[:2], TILE)
        hierarchy = agglomerate_image(image_scores(self.network, x, units, target), units)
        draw = draw_image if whole else draw_parts
        return {"picture": _png(lambda path: draw(hierarchy, image / 255, path)), "hierarchy": hierarchy}


class Texts(Explained):
    """The LSTM on reviews."""

    classes = CLASSES

    def __init__(self, folder, data_dir=None):
        """Raises UserError where the model or its reviews are missing, or are others."""
        self.folder, self.model = folder, SavedModel(folder, data_dir)
        self.outputs = self.model.outputs

    def test(self, t):
        """Test point t: features (1,d), probability of class 1, its label, and its text."""
        self._check(t)
        o = self.outputs
        return o.intermediate_test[[t]], float(o.pred_test[t]), int(o.labels_test[t]), self.model.test_text(t)

    def new(self, text):
        """The same of a text of one's own, which has no label."""
        f, (logit,) = self.model.features([text])
        return f.numpy(), float(logit.sigmoid()), None, text

    def train(self, i):
        """Training point i: its text, and what is said of it."""
        return self.model.text(i), f"training review {self.model.name(i)}"

    def parts(self, text, target, whole=False):
        """What of a text speaks for a class: the hierarchy of its units, their words, and a picture.

        words: [text of the unit as it stands, score, whether white space follows] of each.
        """
        places = spans(text)[: self.model.max_length]
        words = [word for word, _, _ in places]
        ids = torch.tensor(self.model.numbers(words))
        of_units = runs(words)
        score = text_scores(self.model.network, ids, target, lengths=[len(ids)])
        hierarchy = agglomerate_text(
            lambda sets: score([[t for u in some for t in of_units[u]] for some in sets]), len(of_units)
        )
        ends = [(places[unit[0]][1], places[unit[-1]][2]) for unit in of_units]
        hierarchy.names = [" ".join(text[begin:end].split()) for begin, end in ends]
        found = {"hierarchy": hierarchy, "words": []}
        for name, value, (_, end) in zip(hierarchy.names, hierarchy.unit_scores[0].tolist(), ends):
            found["words"].append([name, value, text[end : end + 1].isspace()])
        if whole and len(of_units) == len(words):
            found["picture"] = _png(lambda path: draw_sentence(hierarchy, path))
        return found


def runs(words):
    """The units of a text, lists of token numbers: each token of a short one; of a longer one each sentence, or, of a
    sentence that is longer itself, each of its clauses.
    """
    if len(words) <= SHORT:
        return [[t] for t in range(len(words))]
    units = []
    for sentence in _cut(list(range(len(words))), words, SIGNS):
        units += _cut(sentence, words, COMMAS) if len(sentence) > SHORT else [sentence]
    return units


def _cut(tokens, words, signs):
    """Cut after the last of some signs in a row."""
    ends = [words[t] in signs for t in tokens]
    cuts = [i + 1 for i in range(len(tokens) - 1) if ends[i] and not ends[i + 1]]
    return [tokens[a:b] for a, b in zip([0, *cuts], [*cuts, len(tokens)])]


def _png(draw):
    """A picture as base64, as a page holds it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return b64encode(path.read_bytes()).decode()
