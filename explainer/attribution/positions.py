"""The rows of a batch: one for each point, or one for each position of it, such as tokens and pixels."""

from typing import NamedTuple

import torch

from config import UserError
from explainer.attribution.checks import tensor

IGNORED = -100  # the label that torch's cross entropy leaves out


class Part(NamedTuple):
    """Rows of features (r,d), their labels or None, and the number of the point that each belongs to, or None."""

    features: torch.Tensor
    labels: torch.Tensor | None
    groups: torch.Tensor | None


def rows_of(features, labels, layer, width):
    """`Part` of a batch: features (b,d) with labels (b,...); or (b,T...,d) with labels (b,T...), a row each position.

    layer: the head's name, width: how many logits it has. Positions with the label -100 are left out; without labels
    none are.

    Raises UserError for labels that do not fit.
    """
    if not features.ndim or features.ndim == 1:
        raise UserError(
            f"layer {layer} is given {tuple(features.shape)}: it must see one row for each point, or one for each "
            "position; wrap a data set in a DataLoader"
        )
    n = len(features)
    labels = None if labels is None else tensor(labels, "labels").detach().cpu()
    if features.ndim == 2:
        if labels is not None and (not labels.ndim or len(labels) != n or labels.numel() < n):
            raise UserError(f"a batch has {n} points and labels {tuple(labels.shape)}: give one for each point")
        return Part(features, labels, None)
    inside = features.shape[:-1]
    groups = torch.arange(n).reshape(-1, *[1] * (len(inside) - 1)).expand(inside).reshape(-1)
    rows = features.reshape(-1, features.shape[-1])
    if labels is None:
        return Part(rows, None, groups)
    several = labels.shape == (*inside, width) and labels.shape != inside  # zeros and ones of every position
    if labels.shape != inside and not several:
        raise UserError(
            f"layer {layer} is given {tuple(features.shape)}, several rows for each point, and labels are "
            f"{tuple(labels.shape)}: give a label for each row, {tuple(inside)}, -100 where there is none, or a model "
            "that pools before the layer"
        )
    labels = labels.reshape(-1, width) if several else labels.reshape(-1)
    kept = (labels != IGNORED).all(1) if several else labels != IGNORED
    return Part(rows[kept.to(rows.device)], labels[kept], groups[kept])


def joined(parts, points):
    """One `Part` of those of successive batches with so many points each. Raises UserError where these differ."""
    for name in ("labels", "groups"):
        some = [getattr(part, name) is None for part in parts]
        if any(some) and not all(some):
            what = "labels" if name == "labels" else "several rows for each point"
            raise UserError(f"some batches of the loader have {what} and some have not: give them all alike")
    labels = None if parts[0].labels is None else torch.cat([part.labels for part in parts])
    return Part(torch.cat([part.features for part in parts]), labels, numbered(parts, points))


def numbered(parts, points):
    """The groups of successive batches with so many points each, counted through; None where there are none."""
    if parts[0].groups is None:
        return None
    first = torch.tensor([0, *points]).cumsum(0)[:-1].tolist()
    return torch.cat([part.groups + start for part, start in zip(parts, first)])
