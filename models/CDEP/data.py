"""Data sets with a fault that a network learns where nobody forbids it, and the masks that say what must not matter.

decoymnist, decoydigits   a grey patch in a random corner, whose grey tells the class while training and another one in
                          the test; the mask is all four corners (Ross, Hughes, Doshi-Velez, 2017)
colormnist, colordigits   every digit in a colour of its class while training, in that of 9 - class in the test; a pixel
                          by itself must not matter, so the masks are single pixels, drawn by how often they are ink
                          (Rieger et al., 2020)

Validation images are like the test's, as in the paper: the choice of the epoch knows what is wrong.
"""

import colorsys
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from config import UserError
from explainer.decomposition import mnist

COLOURS = np.array([colorsys.hls_to_rgb(hue, 0.5, 1.0) for hue in np.linspace(0, 0.8, 10)])  # red to purple
CORNER = {28: 5, 12: 2}  # pixels of a patch's side, by the image's
DIGITS_SPLIT = 1000, 200  # training and validation images of scikit-learn's 1,797


class Task(NamedTuple):
    """x_* (n,C,H,W) or (n,F) as the network takes them; y_* (n,) classes. make(): the network.

    masks(x, y, generator): those of a batch, as `cdep_penalty` takes them; mask (H,W): where RRR and EG penalize.
    name: what it is.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_validation: torch.Tensor
    y_validation: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    make: object
    masks: object
    mask: torch.Tensor
    name: str


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


def decoy(source, name, make, flat, seed=0):
    """The decoy task of {part: (images (n,H,H) in 0 ... 1, labels)}; inputs in [-1,1], flat: as rows."""
    generator, found = np.random.default_rng(seed), []
    for part in ("train", "validation", "test"):
        images, labels = source[part]
        if part == "train":
            images = decoyed(images, labels, lambda label: 1 - 25 * label / 255, generator)
        else:
            images = decoyed(images, labels, lambda label: 25 * label / 255, generator)
        x = torch.as_tensor(images).float() * 2 - 1
        found += [x.flatten(1) if flat else x[:, None], torch.as_tensor(labels).long()]
    mask = corners(images.shape[1])
    mask = mask.flatten() if flat else mask
    return Task(*found, make, lambda x, y, generator: mask, mask, name)


def coloured(images, colours):
    """Images (n,H,W) in 0 ... 1 in colours (n,3): (n,3,H,W)."""
    return images[:, None] * colours[:, :, None, None]


def colour(source, name, make, pixels=1, seed=0):
    """The colour task; pixels: single ones that are masked, drawn for each image of a batch."""
    found, ink = [], None
    for part in ("train", "validation", "test"):
        images, labels = source[part]
        x = coloured(images, COLOURS[labels if part == "train" else 9 - labels])
        if part == "train":
            mean, std = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
            ink = torch.as_tensor((images > 0).mean(0)).float().flatten()
        found += [torch.as_tensor((x - mean) / std).float(), torch.as_tensor(labels).long()]
    height, width = images.shape[1:]

    def masks(x, y, generator):
        picked = torch.multinomial(ink, len(x) * pixels, replacement=True, generator=generator)
        drawn = torch.zeros(len(x) * pixels, height * width)
        drawn[torch.arange(len(drawn)), picked] = 1
        return drawn.reshape(len(x), pixels, height, width)

    return Task(*found, make, masks, torch.ones(height, width), name)


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


TASKS = {
    "decoydigits": lambda data_dir, seed: decoy(
        _padded(digits(seed)), "DecoyDigits", lambda: mlp(144, (50, 30)), True, seed
    ),
    "decoymnist": lambda data_dir, seed: decoy(
        mnist_digits(data_dir, seed), "DecoyMNIST", lambda: mlp(784, (50, 30)), True, seed
    ),
    "colordigits": lambda data_dir, seed: colour(digits(seed), "ColorDigits", lambda: color_cnn(8), 1, seed),
    "colormnist": lambda data_dir, seed: colour(
        mnist_digits(data_dir, seed), "ColorMNIST", lambda: color_cnn(28), 1, seed
    ),
}


def task(name, data_dir=None, seed=0):
    """A `Task` by name. Raises UserError for an unknown one, and where its images are missing."""
    if name not in TASKS:
        raise UserError(f"--dataset {name}: give one of {', '.join(TASKS)}")
    return TASKS[name](data_dir, seed)
