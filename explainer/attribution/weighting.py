"""The weights of the training points' losses, from weights of points and of classes.

The loss that is expanded is L = 1/n sum over i of w_i l_i + decay/2 |Theta|^2: a mean over the n points, whatever the
weights sum to. A training on torch's cross_entropy(weight=) divides by their sum W instead: its minimum is that of L
with W/n times its weight decay.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

from config import UserError
from explainer.attribution.checks import tensor
from explainer.attribution.loss_weights import sample_weights


def point_weights(sample_weight: ArrayLike | None, class_weight, labels, head):
    """w (n,) float64 on the labels' device: those of the points times those of their classes; None where all are 1.

    sample_weight: (n,), from 0 up. class_weight: {class number: weight}, the others 1; (classes,); or "balanced",
    n / (classes x points of the class), as scikit-learn has it. Raises UserError for others, and where all are 0.
    """
    n, device = len(labels), labels.device
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = sample_weight.detach().cpu().double()
    found = None if sample_weight is None else torch.as_tensor(sample_weights(sample_weight, n)).to(device)
    if class_weight is not None:
        if head.separate:
            raise UserError(f"class_weight of a {head.kind} head: it is for heads with one class for each point")
        numbers = labels.reshape(n).long()
        by_class = _of_classes(class_weight, torch.bincount(numbers, minlength=head.classes)).to(device)[numbers]
        found = by_class if found is None else found * by_class
    if found is not None and not bool(found.sum() > 0):
        raise UserError("every training point has the weight 0: give some more")
    return found


def _of_classes(given, counts):
    """The weight of each class (classes,), float64; counts: the points of each."""
    classes = len(counts)
    if isinstance(given, str):
        if given != "balanced":
            raise UserError(f"class_weight is {given!r}: give balanced, a dictionary, or one for each class")
        return counts.sum() / (classes * counts.double().clamp_min(1))
    if hasattr(given, "items"):
        known, weights = range(classes), torch.ones(classes, dtype=torch.float64)
        for name, weight in given.items():
            if isinstance(name, bool) or name not in known:
                raise UserError(f"class_weight has the key {name!r}: give numbers of classes, 0 to {classes - 1}")
            weights[int(name)] = torch.as_tensor(sample_weights(np.array([weight]), 1))[0]
        return weights
    weights = tensor(given, "class_weight").double().cpu().reshape(-1)
    if len(weights) != classes or not (weights.isfinite() & (weights >= 0)).all():
        raise UserError(
            f"class_weight has {len(weights)} entries: give a number from 0 up for each of {classes} classes"
        )
    return weights
