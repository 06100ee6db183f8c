"""Scores of sets of units, for the hierarchies: by contextual decomposition, build-up or occlusion."""

import numpy as np
import torch

from config import UserError
from explainer.decomposition.baselines import build_up, occlusion, picked
from explainer.decomposition.cd import cd, cd_text

METHODS = ("cd", "build_up", "occlusion")


def image_scores(model, x, units, target, method="cd", **options):
    """phi of sets of an image's units for a class, as `agglomerate_image` asks for it.

    x (C,H,W). units (H,W). target: the class; None: the scores of all classes, (n,K), for `draw_image`. method: of
    METHODS; options: those of its function.
    """
    units = torch.as_tensor(np.asarray(units), device=x.device)
    if units.shape != x.shape[-2:]:
        raise UserError(f"units have the shape {tuple(units.shape)}: give {tuple(x.shape[-2:])}, that of the image")

    def score(sets):
        masks = torch.stack([torch.isin(units, torch.as_tensor(some, device=x.device)) for some in sets])
        return _scored(model, x[None], masks, target, method, cd, options)

    return score


def text_scores(model, ids, target, method="cd", **options):
    """phi of sets of a sentence's tokens for a class, as `agglomerate_text` asks for it.

    ids (T,). target: the class, the score being its logit minus the mean of the others (of one logit, that logit, for
    class 0 its negative). method, options: as for `image_scores`; `lengths` where the model takes them.
    """

    def score(sets):
        masks = torch.zeros(len(sets), len(ids), dtype=torch.bool, device=ids.device)
        for row, some in enumerate(sets):
            masks[row, some] = True
        return _scored(model, ids[None], masks, target, method, cd_text, options, contrast=True)

    return score


def _scored(model, x, masks, target, method, decompose, options, contrast=False):
    if method not in METHODS:
        raise UserError(f"method is {method!r}: give one of {', '.join(METHODS)}")
    with torch.no_grad():
        if method == "cd":
            found = decompose(model, x, masks, **options).rel
        else:
            found = {"build_up": build_up, "occlusion": occlusion}[method](model, x, masks, **options)
        scores = picked(found, target)
        if contrast and found.shape[-1] > 1:
            scores = scores - (found.sum(-1) - scores) / (found.shape[-1] - 1)
    return scores[0].double().cpu().numpy()
