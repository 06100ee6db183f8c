"""Influence functions of a head with one logit and no bias, in the shapes of the official release.

See `explainer.attribution.influence_function`. Removing training point i moves the minimizer of the mean loss by -w_i
to first order, with

    w_i = -H^-1 g_i / n,        g_i and H at the given weight theta,

and so changes the loss of test point t, whose gradient is (p_t - y_t) f_t, by -(p_t - y_t) f_t w_i.
"""

from typing import NamedTuple

from jaxtyping import Float, Real
from torch import Tensor

from explainer.attribution import ranks
from explainer.attribution.expansion import one_logit
from explainer.attribution.influence_function import InfluenceFunction
from explainer.last_layer import RCOND, check_head, probabilities


class Weights(NamedTuple):
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
) -> Weights:
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
    explainer, W, own = one_logit(InfluenceFunction, F, y, theta, damping, rcond)
    self_influence = -own * ranks.gathered(explainer.residuals(slice(0, explainer.rows.n)))[:, 0]
    return Weights(W, self_influence.to(F.dtype), explainer.parameters[:, 0])


def loss_gradients(
    F_test: Float[Tensor, "m d"], y_test: Real[Tensor, " m"], theta: Float[Tensor, " d"]
) -> Float[Tensor, "m d"]:
    """The loss gradients (p_t - y_t) f_t of the test points, in the precision of F_test."""
    r = probabilities(F_test, theta.double()) - y_test.double()
    return F_test * r[:, None].to(F_test.dtype)
