"""MNIST's digits and a small network for them: what the official demonstrations of ACD and CDEP work with."""

import contextlib
import gzip

import numpy as np
import torch
from torch import nn
from torchvision.datasets import MNIST

from config import DATA_ROOT, UserError, expanded, shown
from models.downloads import patience, reason
from models.training import Schedule, fit, initialized

MEAN, STD = 0.1307, 0.3081
SPLIT = 7000, 1000  # training and validation images; the rest are test images
FILES = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def read(data_dir=None, seed=0):
    """MNIST's 10,000 test images, split by seed: {part: (images (n,28,28) in 0 ... 255, labels (n,))}.

    Raises UserError where they are missing.
    """
    folder = expanded(data_dir or DATA_ROOT)
    images, labels = (_idx(folder, name) for name in FILES)
    if images.shape != (10000, 28, 28) or labels.shape != (10000,):
        raise UserError(f"{shown(folder)}: MNIST's test files hold {images.shape} images; get them again")
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, np.cumsum(SPLIT))
    return {name: (images[rows], labels[rows]) for name, rows in zip(("train", "validation", "test"), parts)}


def _idx(folder, name):
    """One file of the format of MNIST, as torchvision keeps it or packed."""
    places = [folder / below / f"{name}{end}" for below in ("mnist", "MNIST/raw", "") for end in ("", ".gz")]
    path = next((place for place in places if place.is_file()), None) or _downloaded(folder, name)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = np.frombuffer(data, ">i4", data[3], 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dimensions)).reshape(dimensions)
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise UserError(f"{shown(path)} is damaged ({error}): get it again") from error


def _downloaded(folder, name):
    """The same file, fetched as torchvision does. Raises UserError where that cannot be."""
    there = folder.exists()
    try:
        with patience():
            MNIST(folder, train=False, download=True)
    except Exception as error:  # no network, no disk: torchvision raises many kinds
        for empty in (folder / "MNIST" / "raw", folder / "MNIST", *([] if there else [folder])):  # it has made them
            with contextlib.suppress(OSError):
                empty.rmdir()
        raise UserError(
            f"no MNIST in {shown(folder)}: looked for {name} in mnist and MNIST/raw, and could not download it "
            f"({reason(error)}); give its folder as --data_dir"
        ) from error
    return folder / "MNIST" / "raw" / name


def normalized(images):
    """(n,1,28,28) as the network takes them."""
    return ((torch.as_tensor(images).float() / 255 - MEAN) / STD)[:, None]


def network():
    """Two convolutions and two linear layers: logits (n,10) of images (n,1,28,28)."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10),
    )  # fmt: skip


class Digits:
    """Images and labels in memory, shuffled, as `models.training.fit` takes them."""

    def __init__(self, x, y):
        self.x, self.y, self.device = x, torch.as_tensor(y).long(), x.device

    def rows(self, size, generator):
        return list(torch.randperm(len(self.x), generator=generator).split(size))

    def batch(self, rows, generator, done):
        return (self.x[rows],), self.y[rows]


def train(x, y, epochs=6, lr=1e-3, batch_size=64, seed=0, progress=None):
    """The network trained on images (n,1,28,28), in evaluation mode."""
    model = initialized(network, "mnist", seed)
    schedule = Schedule(epochs, lr, batch_size, "adam")
    fit(model, Digits(x, y), nn.functional.cross_entropy, schedule, seed, progress=progress)
    return model.eval()
