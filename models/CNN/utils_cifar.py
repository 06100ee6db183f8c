"""The two classes as tensors in memory, and the weights that a training starts from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config import UserError, a_file_or, at_least_two, expanded, shown
from models.CNN.CNN import ResNet20
from models.CNN.data.prepare import read
from models.downloads import hub_state, reason
from models.outputs import ALIKE, difference, settled, spread
from models.states import load_state, wrong_values
from models.training import initialized, load_tensors

PRETRAINED = Path(__file__).resolve().parent / "data" / "cifar10_resnet20.pt"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of red, green, blue; the official release's

# cifar10_resnet20 of chenyaofo/pytorch-cifar-models, whose name ends in its checksum: what the official release loads.
HUB = "https://github.com/chenyaofo/pytorch-cifar-models/releases/download/resnet/cifar10_resnet20-4118986f.pt"
WEIGHTS = ("auto", "hub", "carried", "none")
PROBES = 16  # images whose features are compared


@dataclass(frozen=True)
class TwoClasses:
    """The images of two classes on the computing device, those of class 0 first.

    x_train (n,32,32,3), x_test (m,32,32,3): normalized, float32. y_train (n,), y_test (m,): 0 or 1, float32.
    classes: the names of 0 and 1. source: where the images come from. fingerprint: a hash of images and labels.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, str]
    source: str
    fingerprint: str


def load(dataset="cifar", data_dir=None, classes=None, device="cpu", samples=None):
    """Read and normalize two classes (see data/prepare.py). samples: keep so many training images, half of each class.

    Raises UserError where the images are missing, or fewer than `samples`.
    """
    images = read(dataset, data_dir, classes, None if samples is None else samples - samples // 2)
    images = images if samples is None else _fewer(images, samples)
    x_train, y_train = images.x_train, images.y_train
    digest = hashlib.sha256()
    for array in (x_train, y_train, images.x_test, images.y_test):
        digest.update(np.ascontiguousarray(array))
    x_train, x_test = (normalized(torch.from_numpy(x)).to(device) for x in (x_train, images.x_test))
    y_train, y_test = (torch.from_numpy(y).float().to(device) for y in (y_train, images.y_test))
    return TwoClasses(x_train, y_train, x_test, y_test, images.classes, images.source, digest.hexdigest()[:16])


def _fewer(images, samples):
    """So many of the training images, half of each class. Raises UserError where there are fewer."""
    halves = samples - samples // 2, samples // 2
    rows = [np.flatnonzero(images.y_train == k)[:half] for k, half in enumerate(halves)]
    if [len(r) for r in rows] != list(halves):
        most = 2 * min(len(r) for r in rows)
        raise UserError(f"--num_of_samples: got {samples}; give at most {most} of these images, half of each class")
    rows = np.concatenate(rows)
    return images._replace(x_train=images.x_train[rows], y_train=images.y_train[rows])


def images_behind(outputs, network, dataset="cifar", data_dir=None, classes=None):
    """The images (`models.CNN.data.prepare.Images`) that a model's saved outputs are of.

    Raises UserError where they are missing, not as many as the outputs, or others than those: the network's features of
    some of them are compared with the saved ones.
    """
    images, n, m = read(dataset, data_dir, classes), len(outputs.labels_train), len(outputs.labels_test)
    if len(images.x_test) != m or len(images.x_train) < n:
        there = f"{len(images.x_train)} training and {len(images.x_test)} test images"
        raise UserError(
            f"there are {there}, and the outputs are of {n} and {m}: give --saved_path and --dataset of one model"
        )
    images = images if len(images.x_train) == n else _fewer(images, n)
    parts = (images.x_train, outputs.intermediate_train), (images.x_test, outputs.intermediate_test)
    for x, known in parts:
        rows = spread(len(x), PROBES)
        with torch.inference_mode():
            found = network.features(as_channels_last(normalized(torch.from_numpy(x[rows])))).numpy()
        off = difference(found, known[rows])
        if not off <= ALIKE:
            raise UserError(
                f"the images of {images.source} are not those behind the outputs, or the network is another: its "
                f"features differ by {off:.0%}; give the model's --dataset, --data_dir and --classes"
            )
    return images


def normalized(images):
    """Images (...,3) in 0 ... 255 as the network takes them: float32, about zero mean and unit variance."""
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def as_channels_last(images):
    """Images (b,h,w,3) as the convolutions read them fastest: (b,3,h,w) over the same memory."""
    return images.permute(0, 3, 1, 2)


class ImageBatches:
    """Normalized images (n,32,32,3) and their labels (n,), shuffled."""

    def __init__(self, images, labels):
        self.images, self.labels, self.device = images, labels, images.device

    def rows(self, size, generator):
        """An epoch's batches, as `models.training.Batches` says."""
        return torch.randperm(len(self.labels), generator=generator).to(self.device, non_blocking=True).split(size)

    def batch(self, rows, generator, done):
        """The images (b,3,32,32) of `rows`, as they are, and their labels."""
        return (as_channels_last(self.images[rows]),), self.labels[rows]


class Start:
    """Where every training starts: ResNet-20's pretrained body and one fixed draw of the binary last layer.

    weights: "hub" (the official release's, downloaded), "carried" (those of pretrain.py, in this repository), "auto"
    (the first of them that can be had), "none" (no pretraining), or a file of torch.save.
    name: which it was. fingerprint: a hash of all parameters.
    Raises UserError where the weights cannot be had, belong to another network or are not finite.
    """

    def __init__(self, weights="auto"):
        self.state = initialized(ResNet20).state_dict()
        body, self.name = _body(weights)
        for name, value in body.items():
            if name.startswith("fc."):
                continue  # of another number of classes
            mine = self.state.get(name)
            if mine is None or not isinstance(value, Tensor) or mine.shape != value.shape:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                wanted = "no such parameter" if mine is None else tuple(mine.shape)
                raise UserError(
                    f"{self.name} is of another network ({name} is {got}, expected {wanted}): give a ResNet-20's"
                )
            if problem := wrong_values(value, mine):
                raise UserError(f"{self.name} is damaged ({name} {problem}): give a ResNet-20's")
        missing = [name for name in self.state if name not in body and not name.startswith("fc.")] if body else []
        if missing:
            raise UserError(f"{self.name} is of another network (it has no {missing[0]}): give a ResNet-20's")
        self.state |= {name: value for name, value in body.items() if not name.startswith("fc.")}
        digest = hashlib.sha256()
        for value in self.state.values():
            digest.update(value.contiguous().numpy())
        self.fingerprint = digest.hexdigest()[:16]

    def network(self, device="cpu"):
        """A new network with these weights, in the memory format that the convolutions read fastest."""
        network = ResNet20()
        network.load_state_dict(self.state)
        return network.to(device, memory_format=torch.channels_last)


def load_network(folder):
    """The trained binary network of a run folder. Raises UserError, with what to do, where it is missing or another."""
    remedy = "run python models/CNN/train.py again"
    path, network = settled(folder) / "model" / "resnet20.pt", ResNet20()
    load_state(network, load_tensors(path, remedy), path, remedy)
    return network.eval()


def _body(weights):
    """The parameters that `weights` names, {} for none, and a name for them."""
    if weights == "none":
        return {}, "no pretraining"
    if weights == "carried":
        return load_tensors(PRETRAINED, "run python models/CNN/pretrain.py"), PRETRAINED.name
    if weights not in ("auto", "hub"):
        path = expanded(weights)
        return load_tensors(path, f"give a file of torch.save, or one of {', '.join(WEIGHTS)}"), shown(path.resolve())
    try:
        return hub_state(HUB, 5.0), HUB.rpartition("/")[2]
    except UserError:  # of a file that is there and is another
        raise
    except Exception as error:  # no network, no disk: urllib and torch raise many kinds
        if weights == "auto":
            return _body("carried")
        raise UserError(f"--weights hub: cannot download {HUB} ({reason(error)}); give --weights carried") from error


def add_training_options(parser):
    """The options of a training, beside its learning rate and epochs."""
    explained = "starting weights: hub (the official release's), carried (pretrain.py's), auto (hub where it can be "
    explained += "reached, else carried), none, or a file"
    parser.add_argument("--weights", type=a_file_or(*WEIGHTS), default="auto", help=explained)
    parser.add_argument("--batch_size", type=at_least_two, default=128, help="images per step")
    explained = "train in bfloat16: faster on GPUs and on CPUs with bfloat16 products"
    parser.add_argument("--bfloat16", action="store_true", help=explained)
    explained = "keep so many training images, half of each class (default: all)"
    parser.add_argument("--num_of_samples", type=at_least_two, help=explained)
