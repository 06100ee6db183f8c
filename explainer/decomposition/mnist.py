"""MNIST's digits and a small network for them: what the official demonstrations of ACD and CDEP work with."""

import hashlib

import numpy as np
import torch
from torch import nn

from config import UserError, data_folder, shown
from models.archives import Broken, gunzipped
from models.downloads import download, reason
from models.training import Schedule, fit, initialized

MEAN, STD = 0.1307, 0.3081
SPLIT = 7000, 1000  # training and validation images; the rest are test images
URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # torchvision's first place
MOST = 2**24  # bytes of a file, which has 7.8 MB at most
FILES = {  # where the pixels or labels begin, the published checksum, and that of the packed file
    "t10k-images-idx3-ubyte": (
        16,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "md5:9fb629c4189551a2d022fa330f9573f3",
    ),
    "t10k-labels-idx1-ubyte": (
        8,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "md5:ec29112dd5afa0611ce80d1b7f02629c",
    ),
}


def read(data_dir=None, seed=0):
    """MNIST's 10,000 test images, split by seed: {part: (images (n,28,28) in 0 ... 255, labels (n,))}.

    Raises UserError where they are missing, or other files than the published ones.
    """
    folder = data_folder(data_dir)
    images, labels = (np.frombuffer(_content(folder, name), np.uint8, offset=FILES[name][0]) for name in FILES)
    images = images.reshape(-1, 28, 28)
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, np.cumsum(SPLIT))
    return {name: (images[rows], labels[rows]) for name, rows in zip(("train", "validation", "test"), parts)}


def _content(folder, name):
    """One of the files, as torchvision keeps it or packed, whose checksum is the published one."""
    places = [folder / below / f"{name}{end}" for below in ("mnist", "MNIST/raw", "") for end in ("", ".gz")]
    path = next((place for place in places if place.is_file()), None) or _downloaded(folder, name)
    try:
        if path.suffix == ".gz":
            data = gunzipped(path, MOST)
        elif path.stat().st_size > MOST:
            raise Broken(f"it has more than {MOST:,} bytes")
        else:
            data = path.read_bytes()
    except (OSError, Broken) as error:
        raise UserError(f"{shown(path)} is damaged ({reason(error)}): get it again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != FILES[name][1]:
        other = f"its sha256 is {found}, expected {FILES[name][1]}"
        raise UserError(f"{shown(path)} is not MNIST's file ({other}): get it again")
    return data


def _downloaded(folder, name):
    """The same file, packed, where torchvision keeps it. Raises UserError where it cannot be had."""
    path = folder / "MNIST" / "raw" / f"{name}.gz"
    try:
        download(f"{URL}{path.name}", path, FILES[name][2], MOST)
    except OSError as error:
        raise UserError(
            f"no MNIST in {shown(folder)}: looked for {name} in mnist and MNIST/raw, and could not download "
            f"{reason(error)}; give its folder as --data_dir"
        ) from error
    return path


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
