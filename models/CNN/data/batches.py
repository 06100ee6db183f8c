"""CIFAR-10's own archive, as torchvision keeps it: <root>/cifar-10-batches-py. Its files are pickles; none is loaded.

A file is compared with the published checksum first. What it holds is then read off a list of its operations, of which
none is carried out: the longest string is the pixels, red, green and blue planes of each image, and the whole numbers
after the string "labels" are the labels.
"""

import pickletools

import numpy as np

from config import UserError, shown
from models.archives import extract
from models.downloads import difference, download

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
ARCHIVE_HASH = "md5:c58f30108f718f92721af3b95e74349a"
TRAIN = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST = {"test_batch": "md5:40351d587109b95175f43aff81a1287e"}
SHAPE = 3, 32, 32
MOST = 2**26  # bytes of a batch, which has 31 MB
WHOLE = "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"  # operations that put a whole number on the stack
BESIDE = "MARK", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"


def read(root):
    """(images (n,32,32,3) in 0 ... 255, labels (n,) in 0 ... 9) of training and of test, downloaded where missing.

    Raises UserError where a file is not the published one, OSError where the archive cannot be downloaded.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        _fetched(root)
    parts = []
    for batches in (TRAIN, TEST):
        images, labels = zip(*(_batch(folder / name, known) for name, known in batches.items()))
        parts.append((np.concatenate(images), np.concatenate(labels)))
    return parts


def _fetched(root):
    """Unpack the archive, downloaded where it is not there."""
    archive = root / ARCHIVE
    if not archive.exists():
        download(URL, archive, ARCHIVE_HASH)
    elif (other := difference(archive, ARCHIVE_HASH)) is not None:
        raise UserError(f"{shown(archive)} there is damaged ({other}): delete it, so that it is fetched again")
    extract(archive, root / FOLDER, lambda path: len(path.parts) == 2, FOLDER)


def _batch(path, known):
    """The images and labels of one file."""
    remedy = f"remove {shown(path.parent)}, so that it is fetched again"
    try:
        if path.stat().st_size > MOST:
            raise UserError(f"{shown(path)} has {path.stat().st_size:,} bytes, too many for a batch: {remedy}")
        other = difference(path, known)
        if other is not None:
            raise UserError(f"{shown(path)} is not the published file ({other}): {remedy}")
        return parsed(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {shown(path)} ({error.strerror}): {remedy}") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{shown(path)} holds no batch of images ({error}): {remedy}") from error


def parsed(content):
    """The images (n,32,32,3) and labels (n,) of a batch. Raises ValueError where it holds something else."""
    pixels, order, labels, inside, before = "", "C", [], False, None
    for operation, value, _ in pickletools.genops(content):
        name = operation.name
        if isinstance(value, str) and name != "GLOBAL":
            inside = value == "labels"
            if len(value) > len(pixels):
                pixels, order = value, "F" if before == "NEWTRUE" else "C"
        elif inside and name in WHOLE:
            labels.append(value)
        elif name not in BESIDE:
            inside = False
        before = before if name in BESIDE else name
    size = int(np.prod(SHAPE))
    if not labels or len(pixels) != len(labels) * size:
        raise ValueError(f"{len(labels)} labels, {len(pixels)} bytes of pixels")
    rows = np.frombuffer(pixels.encode("latin-1"), np.uint8).reshape(len(labels), size, order=order)
    return rows.reshape(-1, *SHAPE).transpose(0, 2, 3, 1), np.array(labels)
