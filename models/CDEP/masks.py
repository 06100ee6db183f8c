"""Masks of the images of a folder: which file is whose, and what they cover once the image is scaled."""

import re
import unicodedata
import warnings

import numpy as np

from config import UserError, shown
from models import images

ENDINGS = r"[ ._-](masks?|seg|segmentation)"  # of a name, as in 03_mask.png
NEARLY_ALL = 0.9


def plain(name):
    """A name as it is compared: in one case, and with accents written in one way."""
    return unicodedata.normalize("NFC", name).casefold()


def paths_of(folder, paths):
    """The mask of each of these images: in masks/<class>/, named as the image, or with _mask and the like after that.

    Raises UserError, naming the first one, where some are missing or an image has two.
    """
    root, known, found, missing = images.subfolder(folder, "masks", "mask"), {}, [], []
    for path in paths:
        if path.parent not in known:
            below = None if root is None else images.subfolder(root, path.parent.name)
            known[path.parent] = {} if below is None else _by_name(below, [p for p in paths if p.parent == path.parent])
        some = known[path.parent].get(path, [])
        if len(some) > 1:
            names = " and ".join(mask.name for mask in some[:2])
            raise UserError(f"{shown(some[0].parent)} holds two masks of {path.name}, {names}: keep one")
        missing += [] if some else [path]
        found += some
    if missing:
        first = f"{missing[0].parent.name}/{missing[0].stem}"
        where = shown(folder / "masks" if root is None else root)
        raise UserError(
            f"{len(missing)} of {len(paths)} training images have no mask in {where}, the first is "
            f"{first}: give one each, black where nothing is to be ignored"
        )
    return found


def _by_name(folder, paths):
    """{image: its masks}. A mask that is named as an image is that one's, even if its name ends in _mask."""
    owners = {plain(path.name): path for path in paths} | {plain(path.stem): path for path in paths}
    found = {}
    for mask in sorted(folder.iterdir()):
        if images.hidden(mask) or mask.suffix.lower() not in images.SUFFIXES or mask.is_dir():
            continue
        name = plain(mask.stem)
        owner = owners.get(name) or owners.get(re.sub(f"{ENDINGS}$", "", name))
        if owner is not None:
            found.setdefault(owner, []).append(mask)
    return found


def read(folder, paths, sizes, side):
    """What the masks cover (n,side,side) of images of these sizes (W, H) that are scaled to one side.

    They are compared with half of white first and scaled then, as the image is, so that a small one does not vanish.
    Raises UserError for a mask of another size than its image, and for one that has grey but nothing white.
    """
    white, found, brightest, shares = images.white_of(paths), [], [], []
    for path, size in zip(paths, sizes):
        mask, largest = images.read_mask(path, white)
        if mask.shape[::-1] != tuple(size):
            raise UserError(f"the mask {shown(path)} has {mask.shape[::-1]} pixels, its image {size}: give as many")
        found.append(images.covered(mask, side))
        brightest.append(largest)
        shares.append(mask.mean())
    _check(paths, np.array(brightest), np.array(shares), paths[0].parent.parent)
    return np.stack(found)


def _check(paths, brightest, shares, root):
    """Raise UserError for masks without white, and warn of those that are all black or nearly all white."""
    remedy = "give 255 where nothing may matter"
    if not shares.any():
        raise UserError(
            f"no mask in {shown(root)} has a white pixel, the brightest is {brightest.max()} of 255: {remedy}"
        )
    dim = np.flatnonzero((shares == 0) & (brightest > 0))
    if len(dim):
        said = f"the mask {shown(paths[dim[0]])} has no white pixel, the brightest is {brightest[dim[0]]} of 255"
        raise UserError(f"{said}: {remedy}, and 0 elsewhere")
    for rows, what in (
        (np.flatnonzero(shares == 0), "all black, so that nothing of their images is left out"),
        (np.flatnonzero(shares > NEARLY_ALL), f"white on more than {NEARLY_ALL:.0%}: white is what must not matter"),
    ):
        if len(rows):
            first = shown(paths[rows[0]])
            warnings.warn(f"of {len(paths)} masks {len(rows)}, the first is {first}, are {what}", stacklevel=4)
