"""The exact solvers: through the Hessian, and through the Gram matrix of fewer points than features."""

import warnings

import torch

from explainer.attribution import ranks
from explainer.attribution.checks import number
from explainer.attribution.solvers.base import Solver
from explainer.last_layer import RCOND, RankWarning, cholesky_inverse, inverse_hessian

SAFE = 1000 * torch.finfo(torch.float32).eps  # the reciprocal condition of H above which float32 will do


class Exact(Solver):
    """Cholesky in float64; a truncated pseudo-inverse, with a RankWarning, where H is singular.

    H is summed up from products in the rows' precision, and from products in float64 where that shows it to be
    ill-conditioned. rcond: eigenvalues of H below this share of the largest are left out. Time
    n D^2 K^2 / 2 + (DK)^3 / 3, and (DK)^2 for each right-hand side; memory 8 (DK)^2 bytes, three times that while it is
    factored. K: classes - 1 for softmax.
    """

    name = "exact"

    def __init__(self, curvature, rcond=RCOND):
        super().__init__(curvature)
        number("rcond", rcond, least=0, below=1)
        self.inverses, self._single = [None], False
        if curvature.rows.dtype != torch.float64:
            least = max(SAFE, rcond * curvature.D * curvature.K)
            self.inverses = [cholesky_inverse(_damped(H, curvature), least) for H in curvature.dense()]
        if any(inverse is None for inverse in self.inverses):  # what float32 has lost would count
            blocks = curvature.dense(torch.float64)
            self.inverses = [inverse_hessian(_damped(H, curvature), 0.0, rcond) for H in blocks]
        else:
            self._single = curvature.C == 1  # of an H that is so well-conditioned that float32 has summed it up
        self.rank = sum(inverse.rank for inverse in self.inverses)
        self._factors = {}

    def solve(self, V):
        c = self.curvature
        if c.C == 1:
            return self.inverses[0].solve(V[:, :, 0].double())[:, :, None]
        VQ = V.double() @ c.Q  # (k,D,K)
        if len(self.inverses) > 1:
            solved = torch.stack([inverse.solve(VQ[:, :, a]) for a, inverse in enumerate(self.inverses)], 2)
        else:
            flat = VQ.transpose(1, 2).reshape(len(V), -1)
            solved = self.inverses[0].solve(flat).reshape(len(V), c.K, c.D).transpose(1, 2)
        return solved @ c.Q.T

    def solve_for_scores(self, V):
        if not self._single:
            return self.solve(V)
        A = self.factor(0, self.curvature.rows.dtype)
        return (V[:, :, 0].to(A.dtype) @ (A @ A.T))[:, :, None]

    def factor(self, a, dtype):
        """A (KD,rank) with A A' the inverse, in a precision."""
        key = a, dtype
        if key not in self._factors:
            self._factors[key] = self.inverses[a].factor.to(dtype)
        return self._factors[key]

    def quadratic(self, F, R, E):
        c, Q = self.curvature, self.curvature.Q.to(F.dtype)
        R, E = R.to(F.dtype) @ Q, E.to(F.dtype) @ Q
        if len(self.inverses) > 1:
            squares = [(F @ self.factor(a, F.dtype)).square().sum(1) for a in range(c.K)]
            return (torch.stack(squares, 1) * R * E).sum(1)
        A = self.factor(0, F.dtype)
        if c.K == 1:
            return (F @ A).square().sum(1) * R[:, 0] * E[:, 0]
        left = (R[:, :, None] * F[:, None, :]).flatten(1) @ A
        return (left * ((E[:, :, None] * F[:, None, :]).flatten(1) @ A)).sum(1)

    def leverage(self, F):
        c = self.curvature
        G = torch.zeros(len(F), c.K, c.K, dtype=torch.float64, device=F.device)
        for a in range(c.K):
            if len(self.inverses) > 1 or c.K == 1:
                G[:, a, a] = (F @ self.factor(a, F.dtype)).square().sum(1).double()
                continue
            A = self.factor(0, F.dtype).reshape(c.K, c.D, -1)
            left = F @ A[a]
            for b in range(a + 1):
                G[:, a, b] = G[:, b, a] = (left * (F @ A[b])).sum(1).double()
        return c.Q @ G @ c.Q.T


def _damped(H, curvature):
    """A block of H with the ridge of its features on its diagonal, for every class in it."""
    return H + torch.diag(curvature.ridge.repeat(len(H) // curvature.D))


class Dual(Solver):
    """Exact through the Gram matrix of the n K rows of the curvature's square root: for n K < D K.

    rcond as in `Exact`. Time (n K)^3 + n^2 D, and n D K + (n K)^2 for each right-hand side; memory 16 (n K)^2 bytes
    and the features. Every rank reads all rows.
    """

    name = "dual"

    def __init__(self, curvature, rcond=RCOND):
        super().__init__(curvature)
        number("rcond", rcond, least=0, below=1)
        c, Q = curvature, curvature.Q
        self.F = ranks.gathered(torch.cat([F for F, _ in c.blocks()]).double())
        P = ranks.gathered(c.P.double())
        s, U = torch.linalg.eigh(c.head.curvature(P, Q))
        self.A = (U * s.clamp_min(0).sqrt()[:, None]) @ U.mT  # (n,K,K), A_i A_i = S_i
        n, K = len(self.F), c.K
        gram = torch.einsum("iak,jkb,ij->iajb", self.A, self.A, self.F @ self.F.T).reshape(n * K, n * K) / n
        s, U = torch.linalg.eigh(gram)
        keep = s > max(rcond, torch.finfo(torch.float64).eps * n * K) * s[-1].clamp_min(1e-300)
        self.s, self.U, self.rank = s[keep], U[:, keep], int(keep.sum())
        if not c.damping and self.rank < c.D * c.K:
            warnings.warn(
                f"H has rank {self.rank} of {c.D * c.K}: {n} points do not determine the head; add damping",
                RankWarning,
                stacklevel=2,
            )

    def solve(self, V):
        c, n = self.curvature, len(self.F)
        VQ = V.double() @ c.Q
        U = torch.einsum("nd,kda,nab->knb", self.F, VQ, self.A).reshape(len(V), -1) / n**0.5
        coefficients = (U @ self.U) / self.s.sqrt()  # on the eigenvectors of H
        inner = (
            (coefficients / (self.s + c.damping))
            if not c.damping
            else coefficients * (1 / (self.s + c.damping) - 1 / c.damping)
        )
        back = ((inner / self.s.sqrt()) @ self.U.T).reshape(len(V), n, c.K) / n**0.5
        solved = torch.einsum("knb,nba,nd->kda", back, self.A, self.F)
        return (solved + VQ / c.damping if c.damping else solved) @ c.Q.T
