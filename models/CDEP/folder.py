"""Images of one's own with masks of what must not matter, such as colour patches beside a lesion (Rieger et al., 2020).

    <dir>/{train,validation,test}/<class>/*          images
    <dir>/masks/<class>/*                            masks of the training images, named as these; white must not matter

Images are scaled to one side. With a backbone, a frozen network of torchvision, only a classifier of its features is
trained; the features of every training image are decomposed under its mask once, and the classifier's part each step.
"""

from functools import partial

import numpy as np
import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import nn

from config import UserError, expanded, shown
from explainer.decomposition import cd
from models.downloads import patience, reason
from models.training import initialized, load_tensors

BACKBONES = "resnet18", "vgg16"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
HIDDEN, SMALLEST = 64, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the backbones were trained on


def listed(folder, part, classes=None):
    """The images of a part, (path, class) in order, and the names of the classes."""
    root = folder / part
    if not root.is_dir():
        raise UserError(f"there is no folder {shown(root)}: give {part} images there, in a folder for each class")
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2 or (classes is not None and names != classes):
        wanted = "two classes at least" if classes is None else ", ".join(classes)
        raise UserError(f"{shown(root)} holds the class folders {', '.join(names) or 'none'}: give {wanted}")
    found = []
    for k, name in enumerate(names):
        paths = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not paths:
            known = ", ".join(sorted(SUFFIXES))
            raise UserError(f"{shown(root / name)} holds no images ({known}): give some, or remove it")
        stems = [path.stem for path in paths]
        twice = next((a for a, b in zip(stems, stems[1:]) if a == b), None)
        if twice is not None:
            raise UserError(f"{shown(root / name)} holds two images named {twice}: rename one, masks go by the name")
        found += [(path, k) for path in paths]
    return found, names


def opened(path, side, mode="RGB"):
    """An image as (side,side,...) in 0 ... 255. Raises UserError where it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode).resize((side, side), Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"cannot read the image {shown(path)}: replace or remove it") from error


def masks_of(folder, images, side):
    """The masks (n,side,side) of training images. Raises UserError, naming the first one, where some are missing."""
    found, missing = [], []
    for path, _ in images:
        below = folder / "masks" / path.parent.name
        mask = next((below / f"{path.stem}{s}" for s in SUFFIXES if (below / f"{path.stem}{s}").exists()), None)
        missing += [path] if mask is None else []
        found.append(mask)
    if missing:
        first = f"{missing[0].parent.name}/{missing[0].stem}"
        raise UserError(
            f"{len(missing)} of {len(images)} training images have no mask in {shown(folder / 'masks')}, the first is "
            f"{first}: give one each, black where nothing is to be ignored"
        )
    for (path, _), mask in zip(images, found):
        if _size(path) != _size(mask):
            raise UserError(f"the mask {shown(mask)} has {_size(mask)} pixels, its image {_size(path)}: give as many")
    masks = np.stack([opened(path, side, "L") for path in found])
    if masks.max() <= 127:
        raise UserError(
            f"no mask in {shown(folder / 'masks')} has a white pixel, the brightest is {masks.max()} of 255: give 255 "
            "where nothing may matter"
        )
    return torch.from_numpy(masks > 127).float()


def _size(path):
    """The width and height of an image."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"cannot read the image {shown(path)}: replace or remove it") from error


def small_cnn(classes):
    """Three convolutions, for images of any side from 16 up."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


def backbone(name, weights="default"):
    """A frozen network of torchvision without its last layer: features (n,d) of images.

    weights: "default" (torchvision's, downloaded), "none" (random), or a file of torch.save.
    """
    network = initialized(getattr(torchvision.models, name), "backbone", name)
    if weights == "default":
        try:
            with patience():
                state = torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=False)
        except Exception as error:  # no network, no disk: urllib and torch raise many kinds
            raise UserError(
                f"cannot download the weights of {name} ({reason(error)}): give --backbone_weights FILE"
            ) from error
    elif weights != "none":
        state = load_tensors(expanded(weights), "give a file of torch.save as --backbone_weights")
    if weights != "none":
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"{weights} is of another network than {name}: give its --backbone_weights") from error
    if name == "vgg16":
        network.classifier = nn.Identity()
    else:
        network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


def read(folder, side=32, frozen=None, weights="default", batch=16):
    """The parts of a `models.CDEP.data.Task`: {train, validation, test: (x, y)}, masks (n,side,side), network, parts.

    frozen: the name of a backbone, None for a small network on the images themselves. parts: with a backbone the two
    parts (n,d) of each training image's features under its mask.
    """
    folder = expanded(folder)
    if side < SMALLEST:
        raise UserError(f"--side {side}: give at least {SMALLEST} pixels")
    sets, classes = {}, None
    for part in ("train", "validation", "test"):
        images, classes = listed(folder, part, classes)
        x = torch.from_numpy(np.stack([opened(path, side) for path, _ in images])).float() / 255
        x = ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()
        sets[part] = x, torch.tensor([k for _, k in images])
        if part == "train":
            masks = masks_of(folder, images, side)
    if frozen is None:
        return sets, masks, partial(small_cnn, len(classes)), None
    network = backbone(frozen, weights)
    with torch.no_grad():
        pairs = [cd(network, x, m[:, None]) for x, m in zip(sets["train"][0].split(batch), masks.split(batch))]
        parts = torch.cat([pair.rel[:, 0] for pair in pairs]), torch.cat([pair.irrel[:, 0] for pair in pairs])
        for part, (x, y) in sets.items():
            sets[part] = torch.cat([network(some) for some in x.split(batch)]), y
    return sets, masks, partial(classifier, sets["train"][0].shape[1], len(classes)), parts


def classifier(features, classes):
    """Of a backbone's features: one hidden layer."""
    return nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
