"""The inverse Hessian of a linear head, its logistic probabilities, and checks of what is to be explained.

Letters: F (n,d) rows f_i, the last hidden layer; y (n,) in {0,1}; theta (d,) the weight of a head with one logit;
p = sigmoid(F theta); H the Hessian of the mean loss (`explainer.attribution.solvers.Curvature`).
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from scipy.linalg import lapack
from torch import Tensor

from config import UserError

BLOCK = 4096  # rows that are held in float64 at once
# Eigenvalues of H below this share of the largest are left out: the square root of float64's precision, about the
# level at which an H summed in float32 is rounding noise. A truncation chosen so, not forced by float64.
RCOND = torch.finfo(torch.float64).eps ** 0.5


class RankWarning(UserWarning):
    """H is singular or ill-conditioned and was truncated; the message names its rank and condition number."""


@dataclass(frozen=True)
class InverseHessian:
    """H^-1, or the pseudo-inverse of H without its smallest eigenvalues.

    factor: A (d,rank) with A A' the inverse. condition: the 2-norm condition number of H, where it had to be found out.
    """

    factor: Float[Tensor, "d rank"]
    rank: int
    condition: float | None

    @cached_property
    def matrix(self) -> Float[Tensor, "d d"]:
        """The inverse itself."""
        return self.factor @ self.factor.T

    def solve(self, V: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """The rows of V, each multiplied by H^-1."""
        return V @ self.matrix


def check_head(F, y):
    """Raise UserError, a ValueError, unless F holds floating-point features and y labels in {0,1}, one for each row."""
    if not F.is_floating_point():
        raise UserError(f"features are {F.dtype}: give float32 or float64")
    if len(y) != len(F) or not len(F):
        raise UserError(f"got {len(F)} rows of features and {len(y)} labels: give as many of each, at least one")
    if not ((y == 0) | (y == 1)).all():
        raise UserError(f"labels hold {y[(y != 0) & (y != 1)][:3].tolist()}: give only 0 and 1")


def probabilities(F: Float[Tensor, "n d"], theta: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """p = sigmoid(F theta), the head's probability of class 1, in float64 and in blocks of rows."""
    return torch.cat([block.double() @ theta for block in F.split(BLOCK)]).sigmoid()


def inverse_hessian(H: Float[Tensor, "d d"], damping: float = 0.0, rcond: float = RCOND) -> InverseHessian:
    """(H + damping I)^-1, by Cholesky where the matrix is well conditioned, else by its eigenvectors.

    In the second case the eigenvalues below `rcond` times the largest are left out (a truncated pseudo-inverse), with
    a `RankWarning`: dead or collinear features make H singular, and directions in which the data hardly vary would
    dominate the answer. rcond 0 leaves out only what float64 cannot tell from zero.
    Raises UserError where H is zero, as it is when every prediction is saturated, or not finite.
    """
    d = len(H)
    H = H + damping * torch.eye(d, dtype=H.dtype, device=H.device)
    # The 1-norm estimate may exceed the 2-norm condition number d times: only a clear pass skips the eigenvalues.
    rcond = max(rcond, torch.finfo(torch.float64).eps * d)
    regular = cholesky_inverse(H, rcond * d)
    if regular is not None:
        return regular
    s, U = torch.linalg.eigh(H)
    keep = s > rcond * s[-1]
    rank, condition = int(keep.sum()), float(s[-1] / s[0].clamp_min(0))
    if rank < d:
        warnings.warn(
            f"H has rank {rank} of {d} (condition number {condition:.1e}): directions below {rcond:.1e} of its largest "
            "eigenvalue are left out; change it by rcond (--rcond; of solver_settings in the library), or add damping",
            RankWarning,
            stacklevel=2,
        )
    return InverseHessian(U[:, keep] / s[keep].sqrt(), rank, condition)


def cholesky_inverse(H: Float[Tensor, "d d"], least: float) -> InverseHessian | None:
    """H^-1 by Cholesky, or None where LAPACK's estimate of 1 / (|H| |H^-1|) in the 1-norm is not above `least`.

    Raises UserError where H is zero or not finite.
    """
    norm = torch.linalg.matrix_norm(H, 1).item()
    if not norm < float("inf"):
        raise UserError("the Hessian of the last layer is not finite: scale the features, or give them in float64")
    if not norm:
        raise UserError(
            "the Hessian of the last layer is zero: the model is certain of every training point; train it for fewer "
            "epochs, or give damping"
        )
    L, failed = torch.linalg.cholesky_ex(H)
    if failed or not lapack.dpocon(L.cpu().numpy(), norm, uplo="L")[0] > least:
        return None
    identity = torch.eye(len(H), dtype=H.dtype, device=H.device)
    return InverseHessian(torch.linalg.solve_triangular(L, identity, upper=False).T, len(H), None)
