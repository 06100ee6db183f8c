"""The two expansions in float32 with an explicit inverse of H, as the official release calculates them.

Not for use: it shows what rounding does to an ill-conditioned H (scripts/xgboost_sensitivity.py, the correlation
notebook). Letters as in `explainer.last_layer`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor


class Float32(NamedTuple):
    """weight_matrix: w_i of RPS-LJE, or of influence functions. suspicion: the score that orders the points."""

    weight_matrix: Float[Tensor, "n d"]
    suspicion: Float[Tensor, " n"]


def float32_weights(
    F: Float[Tensor, "n d"],
    y: Real[Tensor, " n"],
    theta: Float[Tensor, " d"],
    lr: float | None = None,
    outer: bool = True,
) -> Float32:
    """RPS-LJE with the step `lr`, or influence functions where it is None.

    outer: sum the outer products f_i f_i', the official way, or else take one matrix product. The two differ only in
    the order of the sums.
    """
    F, y, theta = F.float(), y.float(), theta.float()
    anchor = theta if lr is None else theta + lr * ((F @ theta).sigmoid() - y) @ F / len(F)
    p = (F @ anchor).sigmoid()
    S = F * (p * (1 - p))[:, None]
    H = torch.bmm(S[:, :, None], F[:, None, :]).mean(0) if outer else S.T @ F / len(F)
    G = (p - y)[:, None] * F
    step = G @ torch.inverse(H)
    if lr is None:
        return Float32(-step / len(F), (step * G).sum(1) / len(F))
    W = (anchor - step) / len(F)
    return Float32(W, (W * F).sum(1).abs())
