"""Influence functions of the last layer (Koh and Liang, 2017, equation 2; Cook and Weisberg, 1982).

Removing training point i moves the minimizer of the mean loss by -w_i to first order, with

    w_i = -H^-1 g_i / n,        g_i and H at the given weight theta,

and so changes the loss of test point t, whose gradient is (p_t - y_t) f_t, by -(p_t - y_t) f_t w_i.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from explainer.last_layer import RCOND, check_head, hessian, inverse_hessian, mean_gradient, probabilities, row_blocks


class InfluenceFunction(NamedTuple):
    """weight_matrix: w_i. self_influence: g_i H^-1 g_i / n. parameters: theta plus the sum of all w_i."""

    weight_matrix: Float[Tensor, "n d"]
    self_influence: Float[Tensor, " n"]
    parameters: Float[Tensor, " d"]


def influence_function(
    F: Float[Tensor, "n d"],
    y: Real[Tensor, " n"],
    theta: Float[Tensor, " d"],
    damping: float = 0.0,
    rcond: float = RCOND,
) -> InfluenceFunction:
    """Weights and self-influences of all training points.

    F, y, theta: the last hidden layer, the labels and the last layer's weight. damping: added to the diagonal of H.
    rcond: eigenvalues of H below this share of the largest are left out.

    self_influence[i] >= 0 estimates how much the loss of point i grows when the model is trained without it; large
    values are suspicious. Where theta is no minimizer of the loss on F (a network's last layer rarely is), the
    weights do not sum to zero, and `parameters` is theta after one Newton step, not theta.
    weight_matrix and self_influence have the precision of F; sums are taken in float64.
    Raises UserError, a ValueError, for labels outside {0,1} and integer features; RankWarning as in
    `explainer.last_layer.inverse_hessian`.
    """
    check_head(F, y)
    n, theta = len(F), theta.double()
    p = probabilities(F, theta)
    r = p - y.double()
    H = inverse_hessian(hessian(F, p), damping, rcond)
    weight_matrix, self_influence = torch.empty_like(F), torch.empty(n, dtype=F.dtype, device=F.device)
    for rows in row_blocks(F):
        f = F[rows].double()
        Hf = H.solve(f)
        weight_matrix[rows] = (Hf * (-r[rows, None] / n)).to(F.dtype)
        self_influence[rows] = ((Hf * f).sum(1) * r[rows] ** 2 / n).to(F.dtype)
    return InfluenceFunction(weight_matrix, self_influence, theta - H.solve(mean_gradient(F, r)[None])[0])


def loss_gradients(
    F_test: Float[Tensor, "m d"], y_test: Real[Tensor, " m"], theta: Float[Tensor, " d"]
) -> Float[Tensor, "m d"]:
    """The loss gradients (p_t - y_t) f_t of the test points, in the precision of F_test."""
    r = probabilities(F_test, theta.double()) - y_test.double()
    return F_test * r[:, None].to(F_test.dtype)
