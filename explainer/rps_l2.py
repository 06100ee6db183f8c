"""RPS-l2 (Yeh et al., 2018): representer points of an l2-regularized last layer.

The last layer is fine-tuned, from the given weight, to reproduce the model's own predictions p under a penalty,

    min over theta of  L(theta) = mean BCE(sigmoid(F theta), p) + lmbd |theta|^2,

by gradient descent with a backtracking line search. At the minimum theta = sum_i alpha_i f_i with

    alpha_i = -(sigmoid(f_i theta) - p_i) / (2 lmbd n).
"""

import warnings
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from explainer.attribution.rps_l2 import alphas

LARGEST_STEP = 10.0  # the line search of the published code starts here,
SMALLEST_STEP = 1e-10  # halves, and gives up here
TOLERANCE = 1 / 200  # it stops when the mean absolute gradient has fallen to this share of its first value


class RPSl2(NamedTuple):
    """alpha: the weights alpha_i. parameters: sum_i alpha_i f_i. epochs: how many were run."""

    alpha: Float[Tensor, " n"]
    parameters: Float[Tensor, " d"]
    epochs: int
    converged: bool
    gradient_share: float  # the smallest mean absolute gradient that was reached, as a share of the first


class ConvergenceWarning(UserWarning):
    """The fine-tuning of RPS-l2 stopped before its gradient was small."""


def rps_l2(
    F: Float[Tensor, "n d"],
    pred: Float[Tensor, " n"],
    theta: Float[Tensor, " d"],
    lmbd: float,
    epoch: int,
    tolerance: float = TOLERANCE,
    progress=lambda epochs: epochs,
) -> RPSl2:
    """Weights of all training points.

    F, pred, theta: the last hidden layer, the model's own probabilities of class 1 (not the labels) and the last
    layer's weight, where the fine-tuning starts. lmbd: the penalty, > 0. epoch: at most so many steps.
    tolerance: stop when the mean absolute gradient is this share of the first. progress: wraps the range of steps.

    alpha_i f_i f_t is the share of training point i in the logit of test point t: positive speaks for class 1,
    negative for class 0. abs(alpha_i) orders points by suspicion. The shares sum to the fine-tuned logit up to
    f_t grad L / (2 lmbd): the published tolerance stops early, and a smaller one makes the sum exact. Warns with
    ConvergenceWarning where `epoch` steps are not enough.
    """
    F, pred, theta = F.double(), pred.double(), theta.double()
    n, z = len(F), F @ theta  # the logits follow each step without a product of their own
    best, best_theta, first, power = float("inf"), theta, None, 0
    for done in progress(range(1, epoch + 1)):  # noqa: B007
        gradient = F.T @ (z.sigmoid() - pred) / n + 2 * lmbd * theta
        size = gradient.abs().mean().item()
        first = first or size
        if size < best:
            best, best_theta = size, theta
        if best <= tolerance * first:
            break
        Fg = F @ gradient
        t, power = _line_search(z, Fg, pred, theta, gradient, lmbd, power)
        theta, z = theta - t * gradient, z - t * Fg
    converged = best <= tolerance * (first or 0.0)
    if not converged:
        warnings.warn(
            f"RPS-l2 did not converge in {epoch} epochs: its gradient is {best / first:.1e} of the first, wanted "
            f"{tolerance:.0e}; give a larger --epoch or --lmbd",
            ConvergenceWarning,
            stacklevel=2,
        )
    alpha = alphas((F @ best_theta).sigmoid(), pred, lmbd, n)
    return RPSl2(alpha, F.T @ alpha, done, converged, best / first if first else 0.0)


def _line_search(z, Fg, pred, theta, gradient, lmbd, power):
    """The largest t = LARGEST_STEP / 2^k with L(theta - t g) < L(theta) - t |g|^2 / 2, and its k.

    L is convex, so the steps that decrease it enough are those up to some bound: searching up or down from the last
    step's k finds the same t as halving from LARGEST_STEP each time. Each trial costs O(n), with no product.
    """
    tt, tg, gg = theta @ theta, theta @ gradient, gradient @ gradient

    def loss(t):
        zt = z - t * Fg
        return (softplus(zt) - pred * zt).mean() + lmbd * (tt - 2 * t * tg + t * t * gg)

    start = loss(0.0)

    def enough(k):
        t = LARGEST_STEP / 2**k
        return t < SMALLEST_STEP or bool(loss(t) < start - t * gg / 2)

    if enough(power):
        while power > 0 and enough(power - 1):
            power -= 1
    else:
        power += 1
        while not enough(power):
            power += 1
    return LARGEST_STEP / 2**power, power
