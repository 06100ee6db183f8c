"""Data sets with a fault that a network learns where nobody forbids it, and the masks that say what must not matter.

decoymnist, decoydigits   a grey patch in a random corner, whose grey tells the class while training and another one in
                          the test; the mask is all four corners (Ross, Hughes, Doshi-Velez, 2017)
colormnist, colordigits   every digit in a colour of its class while training, in that of 9 - class in the test; a pixel
                          by itself must not matter, so the masks are single pixels, drawn by how often they are ink
                          (Rieger et al., 2020)

text_gender, text_article, text_decoy   a word that tells the class (`models.CDEP.text`)
folder                    images of one's own with masks (`models.CDEP.folder`)

Validation data have the fault too, so that nothing but the masks knows of it. The paper chooses the epoch on data
without it; the colours have such data as well.
"""

import colorsys
import hashlib
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from config import UserError
from explainer.decomposition import mnist
from models.CDEP import folder, text

COLOURS = np.array([colorsys.hls_to_rgb(hue, 0.5, 1.0) for hue in np.linspace(0, 0.8, 10)])  # red to purple
CORNER = {28: 5, 12: 2}  # pixels of a patch's side, by the image's
DIGITS_SPLIT = 1000, 200  # training and validation images of scikit-learn's 1,797


class Task(NamedTuple):
    """x_* (n,C,H,W), (n,F) or, of text, ids (n,T), as the network takes them; y_* (n,) classes. make(): the network.

    masks(rows, generator): what must not matter in these training inputs, as `cdep_penalty` takes it. mask: the same
    for all inputs, as RRR and EG take it; None: each has its own. against: (x, y), a second test set in which the fault
    says something else than the label. clean: (x, y), validation data without the fault. parts: of a frozen network's
    features, both parts (n,d) under the masks. classes: their names, none for their numbers.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_validation: torch.Tensor
    y_validation: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    make: object
    masks: object
    mask: torch.Tensor | None
    name: str
    against: tuple | None = None
    clean: tuple | None = None
    parts: tuple | None = None
    classes: tuple = ()

    def to(self, device):
        """The same on a device; the masks are moved batch by batch."""

        def moved(value):
            return tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)

        names = [*self._fields[:6], "mask", "against", "clean", "parts"]
        values = {name: getattr(self, name) for name in names}
        return self._replace(**{name: moved(value) for name, value in values.items() if value is not None})

    def fingerprint(self):
        """A hash of the inputs, the labels and the masks, by which a training knows its data."""
        masks = self.masks(torch.arange(len(self.y_train)), torch.Generator().manual_seed(0))
        digest = hashlib.sha256()
        for tensor in (*self[:6], masks, *(self.against or ()), *(self.clean or ()), *(self.parts or ())):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def digits(seed=0):
    """scikit-learn's digits (n,8,8) in 0 ... 1: {part: (images, labels)}."""
    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    parts = np.split(order, np.cumsum(DIGITS_SPLIT))
    names = "train", "validation", "test"
    return {name: (found.images[rows] / 16, found.target[rows]) for name, rows in zip(names, parts)}


def mnist_digits(data_dir=None, seed=0):
    """MNIST's (n,28,28) in 0 ... 1."""
    return {name: (x / 255, y) for name, (x, y) in mnist.read(data_dir, seed).items()}


def decoyed(images, labels, grey, generator):
    """A copy of images (n,H,H) with a patch of grey(label) in a corner drawn for each."""
    images, side = images.copy(), CORNER[images.shape[1]]
    far = images.shape[1] - side
    for image, label, corner in zip(images, labels, generator.integers(0, 4, len(labels))):
        row, column = far * (corner // 2), far * (corner % 2)
        image[row : row + side, column : column + side] = grey(label)
    return images


def corners(size):
    """The mask (size,size) of all four corners."""
    side, mask = CORNER[size], torch.zeros(size, size)
    for rows in (slice(0, side), slice(size - side, size)):
        for columns in (slice(0, side), slice(size - side, size)):
            mask[rows, columns] = 1
    return mask


def decoy(source, name, make, low=0.0, seed=0):
    """The decoy task of {part: (images (n,H,H) in 0 ... 1, labels)}, as rows; inputs from `low` to 1."""
    generator, found = np.random.default_rng(seed), []
    for part in ("train", "validation", "test"):
        images, labels = source[part]
        told = (lambda label: 25 * label / 255) if part == "test" else (lambda label: 1 - 25 * label / 255)
        images = decoyed(images, labels, told, generator)
        x = torch.as_tensor(images).float() * (1 - low) + low
        found += [x.flatten(1), torch.as_tensor(labels).long()]
    mask = corners(images.shape[1]).flatten()
    return Task(*found, make, lambda rows, generator: mask, mask, name)


def coloured(images, colours):
    """Images (n,H,W) in 0 ... 1 in colours (n,3): (n,3,H,W)."""
    return images[:, None] * colours[:, :, None, None]


def colour(source, name, make, pixels=1, seed=0):
    """The colour task; pixels: single ones that are masked, drawn for each image of a batch."""
    found, ink = [], None
    for part, turned in (("train", False), ("validation", False), ("test", True), ("validation", True)):
        images, labels = source[part]
        x = coloured(images, COLOURS[9 - labels if turned else labels])
        if part == "train":
            mean, std = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
            ink = torch.as_tensor((images > 0).mean(0)).float().flatten()
        found += [torch.as_tensor((x - mean) / std).float(), torch.as_tensor(labels).long()]
    height, width = images.shape[1:]

    def masks(rows, generator):
        picked = torch.multinomial(ink, len(rows) * pixels, replacement=True, generator=generator)
        drawn = torch.zeros(len(rows) * pixels, height * width)
        drawn[torch.arange(len(drawn)), picked] = 1
        return drawn.reshape(len(rows), pixels, height, width)

    return Task(*found[:6], make, masks, torch.ones(height, width), name, clean=tuple(found[6:]))


def mlp(inputs, hidden, classes=10):
    """A multilayer perceptron."""
    widths = [inputs, *hidden]
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def color_cnn(size):
    """ColorMNIST's network: two convolutions, two linear layers; smaller for small images."""
    if size == 28:
        return nn.Sequential(
            nn.Conv2d(3, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def _padded(source):
    """Digits of 8 x 8 in the middle of 12 x 12."""
    return {name: (np.pad(x, ((0, 0), (2, 2), (2, 2))), y) for name, (x, y) in source.items()}


def words(fault, texts="sst", data_dir=None, seed=0):
    """A text task: `fault` of `models.CDEP.text.WORDS`."""
    found = text.faulty(text.read(texts, data_dir, seed), fault, seed)
    vocabulary = text.vocabulary_of(found["train"][0])
    sets = {}
    for part, (some, _) in found.items():
        sets[part] = text.numbers(some, vocabulary), torch.tensor([phrase.label for phrase in some])
    places = torch.tensor(found["train"][1])

    def masks(rows, generator):
        return (torch.arange(text.LONGEST + 1) == places[rows, None])[:, None]  # all False without the word

    splits = sets["train"], sets["validation"], sets["test"]
    network = partial(text.PhraseLSTM, len(vocabulary) + 2)
    return Task(*(part for both in splits for part in both), network, masks, None, f"text, {fault}", sets["against"])


def of_folder(data_dir, **images):
    """The task of a folder of images and masks (`models.CDEP.folder`)."""
    if data_dir is None:
        raise UserError("--dataset folder: give the folder of the images and their masks as --data_dir")
    sets, masks, network, parts, names = folder.read(data_dir, **images)
    splits = (part for name in ("train", "validation", "test") for part in sets[name])
    more = {"parts": parts, "classes": tuple(names)}
    return Task(*splits, network, lambda rows, generator: masks[rows, None], None, "images of a folder", **more)


DATASETS = (
    "decoydigits",
    "decoymnist",
    "colordigits",
    "colormnist",
    *(f"text_{fault}" for fault in text.WORDS),
    "folder",
)


def task(name, data_dir=None, seed=0, texts="sst", **images):
    """A `Task` by name. texts: of a text task, "sst" or "snippets". images: of the folder, as `folder.read` takes them.

    Raises UserError for an unknown one, and where its data are missing.
    """
    if name == "decoydigits":
        return decoy(_padded(digits(seed)), "DecoyDigits", partial(mlp, 144, (50, 30)), 0.0, seed)
    if name == "decoymnist":
        return decoy(mnist_digits(data_dir, seed), "DecoyMNIST", partial(mlp, 784, (50, 30)), -1.0, seed)
    if name == "colordigits":
        return colour(digits(seed), "ColorDigits", partial(color_cnn, 8), 1, seed)
    if name == "colormnist":
        return colour(mnist_digits(data_dir, seed), "ColorMNIST", partial(color_cnn, 28), 1, seed)
    if name == "folder":
        return of_folder(data_dir, **images)
    if name not in DATASETS:
        raise UserError(f"--dataset {name}: give one of {', '.join(DATASETS)}")
    return words(name.removeprefix("text_"), texts, data_dir, seed)
