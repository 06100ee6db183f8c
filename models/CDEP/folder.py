"""Images of one's own with masks of what must not matter, such as colour patches beside a lesion (Rieger et al., 2020).

    <dir>/{train,validation,test}/<class>/*          images
    <dir>/masks/<class>/*                            masks of the training images, named as these; white must not matter

Both are read as a person sees them (`models.images`) and scaled to one side; a mask covers every pixel that anything
masked has a part in (`models.CDEP.masks`). With a backbone, a frozen network of torchvision, only a classifier of its
features is trained; the features of every training image are decomposed under its mask once, and the classifier's part
each step.
"""

import warnings
from functools import partial

import numpy as np
import torch
import torchvision
from torch import nn

from config import UserError, data_folder, expanded, shown
from explainer.decomposition import cd
from models import images
from models.CDEP import masks
from models.downloads import hub_state, reason
from models.memory import room
from models.training import initialized, load_tensors

BACKBONES = "resnet18", "vgg16"
PARTS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}  # in any case
HIDDEN, SMALLEST = 64, 16
_PIXEL = 4 * (3 * 3 + 1)  # bytes: three colours as they are read, normalized and in order, and the mask
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the backbones were trained on


def listed(folder, part, classes=None):
    """The images of a part, (path, class) in order, and the names of the classes."""
    root = images.subfolder(folder, *PARTS[part])
    if root is None:
        raise UserError(
            f"there is no folder {shown(folder / part)}: give {part} images there, in a folder for each class"
        )
    below = images.class_folders(root)
    names = [path.name for path in below]
    if len(names) < 2 or (classes is not None and names != classes):
        wanted = "two classes at least" if classes is None else ", ".join(classes)
        raise UserError(f"{shown(root)} holds the class folders {', '.join(names) or 'none'}: give {wanted}")
    found = []
    for k, path in enumerate(below):
        paths = images.listed(path)
        stems = sorted(masks.plain(path.stem) for path in paths)
        twice = next((a for a, b in zip(stems, stems[1:]) if a == b), None)
        if twice is not None:
            raise UserError(f"{shown(path)} holds two images named {twice}: rename one, masks go by the name")
        found += [(path, k) for path in paths]
    return found, names


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
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        try:
            state = hub_state(url)
        except UserError:
            raise
        except Exception as error:  # no network, no disk: urllib and torch raise many kinds
            raise UserError(
                f"cannot download the weights of {name}, {url} ({reason(error)}): give --backbone_weights FILE"
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


def read(folder, side=32, frozen=None, weights="default", batch=16, device="cpu"):
    """What a `models.CDEP.data.Task` needs: {train, validation, test: (x, y)}, masks (n,side,side), network, parts,
    and the names of the classes.

    frozen: the name of a backbone, None for a small network on the images themselves; device: where it computes. parts:
    with a backbone the two parts (n,d) of each training image's features under its mask.
    """
    folder = data_folder(folder)
    if side < SMALLEST:
        raise UserError(f"--side {side}: give at least {SMALLEST} pixels")
    found, classes = {}, None
    for part in PARTS:
        found[part], classes = listed(folder, part, classes)
    number = sum(len(some) for some in found.values())
    room(number * side**2 * _PIXEL, f"--side {side} of {number:,} images")
    of_train = masks.paths_of(folder, [path for path, _ in found["train"]])
    white = images.white_of([path for some in found.values() for path, _ in some])
    sets, sizes = {}, []
    for part, some in found.items():
        pixels, shapes = zip(*(images.scaled(path, side, white) for path, _ in some))
        sizes += shapes if part == "train" else ()
        x = (torch.from_numpy(np.stack(pixels)) - torch.tensor(MEAN)) / torch.tensor(STD)
        sets[part] = x.permute(0, 3, 1, 2).contiguous(), torch.tensor([k for _, k in some])
    _note_copies(found, sets)
    covers = torch.from_numpy(masks.read(folder, of_train, sizes, side)).float()
    if frozen is None:
        return sets, covers, partial(small_cnn, len(classes)), None, classes
    sets, parts = _features(backbone(frozen, weights).to(device), sets, covers, batch, device)
    return sets, covers, partial(classifier, sets["train"][0].shape[1], len(classes)), parts, classes


@torch.no_grad()
def _features(network, sets, covers, batch, device):
    """The features (n,d) of all images, and the two parts of the training images' under their masks, on the CPU."""
    both = zip(sets["train"][0].split(batch), covers.split(batch))
    pairs = [cd(network, x.to(device), m[:, None].to(device)) for x, m in both]
    parts = torch.cat([pair.rel[:, 0] for pair in pairs]).cpu(), torch.cat([pair.irrel[:, 0] for pair in pairs]).cpu()
    features = {
        part: (torch.cat([network(some.to(device)).cpu() for some in x.split(batch)]), y)
        for part, (x, y) in sets.items()
    }
    return features, parts


def _note_copies(found, sets):
    """Warn of images that are in two parts or two classes: what is learned of one is known of the other."""
    seen, copies = {}, []
    for part, some in found.items():
        for (path, k), x in zip(some, sets[part][0]):
            first = seen.setdefault(x.numpy().tobytes(), (part, k, path))
            copies += [(path, first[2])] if first[:2] != (part, k) else []
    if copies:
        a, b = (shown(path) for path in copies[0])
        count = f"{len(copies)} image{'s' * (len(copies) > 1)} of one part or class"
        warnings.warn(f"{count} can be found in another too, the first is {a} ({b}): remove one of each", stacklevel=3)


def classifier(features, classes):
    """Of a backbone's features: one hidden layer."""
    return nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
