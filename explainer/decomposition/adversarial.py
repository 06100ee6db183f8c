"""Adversarial images: attacks, and whether explanations keep the order of an image's parts under them.

An attack changes the prediction and hardly the image, so that an explanation of the image should order its parts much
as before (Singh, Murdoch, Yu, ICLR 2019, section 4.3).
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from explainer.decomposition.agglomerate import agglomerate_image
from explainer.decomposition.baselines import build_up, gradient_times_input, integrated_gradients, occlusion, picked
from explainer.decomposition.cd import cd
from explainer.decomposition.scoring import image_scores

STRENGTHS = tuple(np.round(np.geomspace(0.02, 2.0, 25), 4).tolist())  # of FGSM, in units of the input
SCORED = {"CD": cd, "build-up": build_up, "occlusion": occlusion}
GRADIENTS = {"gradient × input": gradient_times_input, "integrated gradients": integrated_gradients}
METHODS = ("ACD", *SCORED, *GRADIENTS)


@torch.no_grad()
def predicted(model, x):
    """The predicted classes (N,): of one logit 0 or 1."""
    z = model(x)
    return (z.reshape(len(x)) > 0).long() if z.ndim == 1 or z.shape[1] == 1 else z.argmax(1)


def _gradient(model, x, y):
    """The gradient of the logit of class y, for each image."""
    x = x.detach().requires_grad_()
    z = model(x)
    return torch.autograd.grad(picked(z.reshape(len(x), -1), y).sum(), x)[0]


def fgsm(model, x, y, strengths=STRENGTHS):
    """Goodfellow et al. (2015): x - strength sign(gradient of the logit of y), with the smallest strength that flips.

    Returns images like x and which of them are no longer predicted as y (N,); the others have the largest strength.
    """
    direction, found, flipped = _gradient(model, x, y).sign(), x.clone(), torch.zeros(len(x), dtype=torch.bool)
    for strength in strengths:
        candidate = x - strength * direction
        flips = (predicted(model, candidate) != y) & ~flipped
        found[~flipped] = candidate[~flipped]
        flipped |= flips
    return found, flipped


def gradient_attack(model, x, y, step=0.05, steps=200):
    """Steps of length `step` (of the image's own length, 1) down the gradient of the logit of y, until it flips."""
    found, flipped = x.clone(), torch.zeros(len(x), dtype=torch.bool)
    length = step * x.flatten(1).norm(dim=1) / 4
    for _ in range(steps):
        left = ~flipped
        if not left.any():
            break
        g = _gradient(model, found[left], y[left])
        norm = g.flatten(1).norm(dim=1).clamp_min(1e-12)
        found[left] = found[left] - g * (length[left] / norm).reshape(-1, *[1] * (x.ndim - 1))
        flipped = predicted(model, found) != y
    return found, flipped


def boundary_attack(model, x, y, others, steps=300, seed=0):
    """Brendel, Rauber, Bethge (2018): from another image along the boundary towards x, by predictions alone.

    others: images, the nearest of which that is predicted otherwise is where each begins.
    """
    generator, shape = torch.Generator().manual_seed(seed), (-1, *[1] * (x.ndim - 1))
    known = predicted(model, others)
    distance = torch.cdist(x.flatten(1), others.flatten(1)).masked_fill(known[None] == y[:, None], torch.inf)
    found = others[distance.argmin(1)].clone()
    possible = distance.amin(1) < torch.inf
    near, far = torch.zeros(len(x)), torch.ones(len(x))  # first onto the boundary, on the line to x
    for _ in range(15):
        middle = (near + far) / 2
        flips = predicted(model, x + middle.reshape(shape) * (found - x)) != y
        near, far = torch.where(flips, near, middle), torch.where(flips, middle, far)
    found = x + far.reshape(shape) * (found - x)
    around, towards = torch.full((len(x),), 0.1), torch.full((len(x),), 0.1)
    for _ in range(steps):
        way = x - found
        size = way.flatten(1).norm(dim=1).clamp_min(1e-12)
        noise = torch.randn(x.shape, generator=generator)
        unit = way / size.reshape(shape)
        noise = noise - (noise * unit).flatten(1).sum(1).reshape(shape) * unit  # along the sphere around x
        noise = noise * (around * size / noise.flatten(1).norm(dim=1)).reshape(shape)
        candidate = found + noise + (towards * size).reshape(shape) * unit
        good = predicted(model, candidate) != y
        found[good] = candidate[good]
        around, towards = (s * torch.where(good, 1.1, 0.8).clamp(0.01, 2) for s in (around, towards))
    return found, possible & (predicted(model, found) != y)


def unit_scores(model, x, units, target, method):
    """What each unit of images (N,...) adds to the logit of `target` (N,) by a method of METHODS, (N,U).

    Of ACD: how early the unit is chosen, the later the less.
    """
    U = int(units.max()) + 1
    if method == "ACD":
        return np.stack([_order(model, image, units, int(t)) for image, t in zip(x, target)])
    masks = torch.stack([torch.as_tensor(units == u) for u in range(U)])
    if method in SCORED:
        with torch.no_grad():
            found = SCORED[method](model, x, masks)
            found = picked(found.rel if method == "CD" else found, target)
        return found.numpy()
    values = GRADIENTS[method](model, x, target).detach().sum(1)  # over the channels
    return torch.einsum("nhw,uhw->nu", values, masks.to(values.dtype)).numpy()


def _order(model, image, units, target):
    hierarchy = agglomerate_image(image_scores(model, image, units, target), units)
    rounds = np.stack([level > 0 for level in hierarchy.levels])
    return rounds.sum(0).astype(float)  # in how many levels it is part of a component


def compare(model, x, changed, y, units, methods=METHODS):
    """Spearman's correlation of the units' scores before and after an attack, for the class y that was predicted.

    Returns a table (N, methods).
    """
    table = {method: [] for method in methods}
    for method in methods if len(x) else ():
        before, after = (unit_scores(model, images, units, y, method) for images in (x, changed))
        table[method] = [_spearman(a, b) for a, b in zip(before, after)]
    return pd.DataFrame(table)


def _spearman(a, b):
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)
