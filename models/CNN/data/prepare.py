"""Read the images of some classes: class 0 first, then class 1, each in the order of its data set.

The paper's data are automobile (0) and horse (1) of CIFAR-10: 10,000 training and 2,000 test images. A source is one of
class folders   <dir>/{train,test}/<class>/*, or the same below <dir>/cifar10_images; images of 32 x 32 pixels
CIFAR-10        as torchvision keeps it, <dir>/cifar-10-batches-py; downloaded into <dir> where it can be
digits          the handwritten digits that scikit-learn carries, enlarged from 8 x 8; needs no folder

python models/CNN/data/prepare.py --data_dir DIR says what is found there.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

from typing import NamedTuple

import numpy as np
from PIL import Image

from config import ArgumentParser, UserError, a_data_folder, a_text, data_folder, run_command, shown
from models import images
from models.CNN.data import batches
from models.downloads import reason

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
DEFAULT_CLASSES = {"cifar": ("automobile", "horse"), "digits": ("3", "8")}
SIDE = 32
_WITHOUT = "to train without any: --dataset digits"


class Images(NamedTuple):
    """Images of k classes.

    x_train (n,32,32,3) and x_test (m,32,32,3): red, green, blue in 0 ... 255. y_train (n,), y_test (m,): 0 ... k - 1.
    classes: the k names. source: where they come from.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    source: str


def read(dataset="cifar", data_dir=None, classes=None, limit=None):
    """The images of `classes` (default: the paper's two) in the data set "cifar" or "digits".

    limit: the first so many training images of each class, None for all; never more than there are.

    Raises UserError where they are not found, cannot be downloaded or are unusable.
    """
    classes = tuple(classes or DEFAULT_CLASSES[dataset])
    if len(set(classes)) < max(2, len(classes)):
        raise UserError(f"--classes: got {' '.join(classes)}; give different classes, such as automobile horse")
    if dataset == "digits":
        parts, source = _digits(classes, limit), "scikit-learn's handwritten digits"
    else:
        parts, source = _cifar(data_folder(data_dir), classes, limit)
    arrays = []
    for part in parts:  # one list of (k,32,32,3) per part, in the order of `classes`
        arrays += [np.concatenate(part), np.repeat(np.arange(len(classes)), [len(x) for x in part])]
    return Images(*arrays, classes, source)


def _digits(classes, limit):
    """The first four fifths of each digit for training, the rest for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    _known(classes, [str(name) for name in digits.target_names], "digits")
    train, test = [], []
    for name in classes:
        small = digits.images[digits.target == int(name)] * (255 / 16)
        grey = [Image.fromarray(x.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for x in small]
        rgb = np.stack([np.asarray(x.convert("RGB")) for x in grey])
        cut = len(rgb) * 4 // 5
        train.append(rgb[:cut][:limit])
        test.append(rgb[cut:])
    return train, test


def _cifar(root, classes, limit):
    for folder in (root, root / "cifar10_images"):
        train, test = images.subfolder(folder, "train"), images.subfolder(folder, "test")
        if train is None:
            continue
        if test is None:
            where = shown(folder / "test")
            raise UserError(f"{where} is missing: lay the images out as {where}/<class>/*; {_WITHOUT}")
        found = _class_folders(train, classes, limit), _class_folders(test, classes)
        white = images.white_of([path for part in found for paths in part for path in paths])
        return [[_pixels(paths, white) for paths in part] for part in found], f"class folders in {folder}"
    _known(classes, CIFAR10, "CIFAR-10")
    return _archive(root, classes, limit), f"CIFAR-10 in {root}"


def _known(classes, known, source):
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise UserError(f"--classes: {source} has no class {unknown[0]}; it has {', '.join(known)}")


def _class_folders(folder, classes, limit=None):
    """The first `limit` images of each class folder, by name: their paths."""
    below = {path.name: path for path in images.class_folders(folder)}
    _known(classes, list(below), shown(folder))
    return [images.listed(below[name])[:limit] for name in classes]


def _pixels(paths, white):
    """Images (k,32,32,3)."""
    found = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    for image, path in zip(found, paths):
        pixels = images.read(path, white)
        if pixels.shape != image.shape:
            height, width, _ = pixels.shape
            raise UserError(
                f"{shown(path)} has {width} x {height} pixels, expected {SIDE} x {SIDE}: resize or remove it"
            )
        image[:] = pixels
    return found


def _archive(root, classes, limit):
    """Of CIFAR-10's own archive (`models.CNN.data.batches`)."""
    try:
        parts = batches.read(root)
    except OSError as error:
        raise UserError(
            f"no CIFAR-10 in {shown(root)}: looked for train/<class>/*, cifar10_images/train/<class>/* and "
            f"{batches.FOLDER}, and could not download {reason(error)}; give its folder as --data_dir; {_WITHOUT}"
        ) from error
    found = []
    for (pixels, labels), first in zip(parts, (limit, None)):
        found.append([pixels[labels == CIFAR10.index(name)][:first] for name in classes])
    return found


def add_data_options(parser):
    """The options that choose the images."""
    parser.add_argument("--dataset", default="cifar", choices=list(DEFAULT_CLASSES), help="images to train on")
    parser.add_argument(
        "--data_dir", type=a_data_folder, help="folder of the images (default: $RPS_LJE_DATA, else data/)"
    )
    parser.add_argument(
        "--classes",
        type=a_text,
        nargs=2,
        metavar=("CLASS0", "CLASS1"),
        help="two classes (default: automobile horse, for digits 3 8)",
    )


def main():
    parser = ArgumentParser(description="Say which images there are.")
    add_data_options(parser)
    options = parser.parse_args()
    found = read(options.dataset, options.data_dir, options.classes)
    print(f"source: {found.source}")
    for part, labels in (("train", found.y_train), ("test", found.y_test)):
        counts = ", then ".join(f"{(labels == i).sum():,} {name}" for i, name in enumerate(found.classes))
        print(f"{part}: {counts}")


if __name__ == "__main__":
    run_command(main)
