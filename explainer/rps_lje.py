"""RPS-LJE of a head with one logit and no bias, in the shapes of the official release.

See `explainer.attribution.rps_lje`.

Letters: F (n,d) rows f_i, the last hidden layer; y (n,) labels in {0,1}; theta (d,) the last layer's weight. Every
training point gets the weight

    w_i = (theta_hat - H^-1 g_i) / n,        theta_hat = theta + lr grad L(theta), g_i and H at theta_hat,

so that the pre-activation of a test point t, by the expanded model, is sum_i w_i f_t: the paper's sum_i alpha_i f_i f_t
with the vector alpha_i = w_i / f_i, entry by entry.
"""

from typing import NamedTuple

from jaxtyping import Float, Real
from torch import Tensor

from explainer.attribution.expansion import one_logit
from explainer.attribution.rps_lje import RPSLJE
from explainer.last_layer import RCOND, check_head


class Weights(NamedTuple):
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
) -> Weights:
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
    explainer, W, own = one_logit(RPSLJE, F, y, theta, damping, rcond, lr=lr)
    return Weights(W, own.to(F.dtype), explainer.parameters[:, 0])
