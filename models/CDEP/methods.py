"""The methods that are compared (none, CDEP, RRR, EG), and the batches that they are given."""

from functools import partial
from typing import NamedTuple

import torch

from config import UserError
from explainer.attribution.checks import number
from models.CDEP.penalty import cdep_parts_penalty, cdep_penalty, cdep_text_penalty, eg_penalty, rrr_penalty

METHODS = "none", "cdep", "rrr", "eg"
CLASS_WEIGHTS = "none", "balanced"


class Settings(NamedTuple):
    """How a network is trained. lam: the penalty's weight. mode, relu, detach_share: of CDEP. classes: whose score it
    penalizes, "all" or "label". references: of EG, for each input. steps: batches of an epoch, None for all.
    class_weight: "balanced" lets every class count as much in the cross-entropy, however few inputs it has."""

    method: str = "none"
    lam: float = 0.0
    mode: str = "softmax"
    relu: str = "acd"
    detach_share: bool = False
    classes: str = "all"
    epochs: int = 40
    lr: float = 1e-3
    batch_size: int = 64
    references: int = 10
    steps: int | None = None
    seed: int = 0
    class_weight: str = "none"


def cdep(data, mode, classes="all", **options):
    """The CDEP penalty of a `Task`: penalty(network, x, y, what, generator), what: as `Masked` gives it."""

    def penalty(network, x, y, what, noise):
        chosen = y if classes == "label" else "all"
        if data.parts is not None:
            return cdep_parts_penalty(network, *what, mode=mode, classes=chosen, **options)
        function = cdep_penalty if x.is_floating_point() else cdep_text_penalty
        return function(network, x, what, mode=mode, classes=chosen, **options)

    return penalty


def _gradients(function):
    """RRR or EG as penalty(network, x, y, what, generator): of images and rows, or of the vectors of words."""

    def penalty(data, network, x, y, what, noise):
        if x.is_floating_point():
            return function(network, x, y, what[:, 0] if data.mask is None else data.mask, noise)
        vectors, lengths = network.embedding(x).detach(), (x != 0).sum(1)
        mask = what[:, 0, :, None].expand_as(vectors)

        def of_vectors(v):
            with torch.backends.cudnn.flags(enabled=False):  # its LSTM has no second derivative
                return network.of_vectors(v, lengths.repeat(len(v) // len(lengths)))

        return function(of_vectors, vectors, y, mask, noise)

    return penalty


def penalty_of(settings, data):
    """penalty(network, x, y, what, generator) -> a scalar, for `Settings` and a `Task`. Raises UserError for none."""
    if settings.method not in METHODS:
        raise UserError(f"method is {settings.method!r}: give one of {', '.join(METHODS)}")
    number("lam", settings.lam, least=0)
    if settings.classes not in ("all", "label"):
        raise UserError(f"classes is {settings.classes!r}: give all or label")
    if settings.class_weight not in CLASS_WEIGHTS:
        raise UserError(f"class_weight is {settings.class_weight!r}: give one of {', '.join(CLASS_WEIGHTS)}")
    if settings.method == "none":
        return lambda network, x, y, what, noise: torch.zeros((), device=x.device)
    if settings.method == "cdep":
        return cdep(data, settings.mode, settings.classes, relu=settings.relu, detach_share=settings.detach_share)
    if data.parts is not None:
        raise UserError(f"--method {settings.method} needs the images themselves: train without --backbone")
    if settings.method == "rrr":
        found = _gradients(lambda network, x, y, mask, noise: rrr_penalty(network, x, y, mask))
    else:
        found = _gradients(
            lambda network, x, y, mask, noise: eg_penalty(network, x, y, mask, x, settings.references, generator=noise)
        )
    return partial(found, data)


class Masked:
    """The training inputs of a `Task` and what must not matter in them, as `models.training.fit` takes them."""

    def __init__(self, data, steps=None):
        self.data, self.device, self.steps = data, data.x_train.device, steps

    def rows(self, size, generator):
        """An epoch is `steps` batches, or every input once."""
        return list(torch.randperm(len(self.data.y_train), generator=generator).split(size))[: self.steps]

    def batch(self, rows, generator, done):
        """(x, y, what, generator) and y. what: masks, or both parts of a frozen network's features."""
        data = self.data
        where = rows.to(self.device)
        x, y = data.x_train[where], data.y_train[where]
        if data.parts is not None:
            return (x, y, tuple(part[where, None] for part in data.parts), generator), y
        what = data.masks(rows, generator).to(self.device)  # drawn on the CPU, the same on every device
        if not x.is_floating_point():
            longest = int((x != 0).sum(1).max())
            x, what = x[:, :longest], what[..., :longest]
        return (x, y, what, generator), y
