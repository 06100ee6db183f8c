"""RPS-LJE (paper, section 3): representer points by a local Jacobian expansion of the last layer.

One full-batch step of gradient *ascent* leads from the given weight theta to a nearby anchor

    theta_hat = theta + lr * grad L(theta).

Expanding each point's gradient around the anchor to first order gives every training point the weight

    w_i = (theta_hat - H^-1 g_i) / n = alpha_i f_i,        g_i and H at theta_hat,

so that the weights sum to the parameters theta_hat - H^-1 mean(g), and the pre-activation of a test point t is
sum_i w_i f_t = sum_i alpha_i f_i f_t.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from config import UserError
from explainer.last_layer import RCOND, check_head, hessian, inverse_hessian, mean_gradient, probabilities, row_blocks


class RPSLJE(NamedTuple):
    """weight_matrix: w_i. self_influence: w_i f_i. parameters: the sum of all w_i."""

    weight_matrix: Float[Tensor, "n d"]
    self_influence: Float[Tensor, " n"]
    parameters: Float[Tensor, " d"]


def rps_lje(
    F: Float[Tensor, "n d"],
    y: Real[Tensor, " n"],
    theta: Float[Tensor, " d"],
    lr: float,
    damping: float = 0.0,
    rcond: float = RCOND,
) -> RPSLJE:
    """Weights and self-influences of all training points.

    F, y, theta: the last hidden layer, the labels and the last layer's weight. lr: the step gamma to the anchor, > 0.
    damping: added to the diagonal of H. rcond: eigenvalues of H below this share of the largest are left out.

    w_i f_t is the share of training point i in the logit of test point t: positive speaks for class 1, negative for
    class 0; the shares of all points sum to the logit of the expanded model. abs(w_i f_i) orders points by suspicion.
    weight_matrix and self_influence have the precision of F; sums are taken in float64.
    Raises UserError, a ValueError, for lr <= 0, labels outside {0,1} and integer features; RankWarning as in
    `explainer.last_layer.inverse_hessian`.
    """
    check_head(F, y)
    if not lr > 0:
        raise UserError(f"lr is {lr}: give a number above 0")
    n, theta, y = len(F), theta.double(), y.double()
    anchor = theta + lr * mean_gradient(F, probabilities(F, theta) - y)
    p = probabilities(F, anchor)
    r = p - y
    H = inverse_hessian(hessian(F, p), damping, rcond)
    weight_matrix, self_influence = torch.empty_like(F), torch.empty(n, dtype=F.dtype, device=F.device)
    for rows in row_blocks(F):
        f = F[rows].double()
        w = (anchor - H.solve(f) * r[rows, None]) / n
        weight_matrix[rows] = w.to(F.dtype)
        self_influence[rows] = (w * f).sum(1).to(F.dtype)
    return RPSLJE(weight_matrix, self_influence, anchor - H.solve(mean_gradient(F, r)[None])[0])
