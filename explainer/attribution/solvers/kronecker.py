"""The solver for many classes: Kronecker factors with corrected eigenvalues."""

import torch

from explainer.attribution import ranks
from explainer.attribution.checks import number
from explainer.attribution.solvers.base import Solver
from explainer.last_layer import RCOND


class Kronecker(Solver):
    """H by its diagonal in the eigenvectors of mean f f' (x) mean S (Martens and Grosse, 2015; George et al., 2018).

    Exact for one logit, an approximation for several. rcond: diagonal entries below this share of the largest are left
    out where damping is 0. Time n D^2 + D^3 + C^3, and D C (D + C) for each right-hand side; memory
    8 (D^2 + C^2 + D C) bytes.
    """

    name = "kronecker"

    def __init__(self, curvature, rcond=RCOND):
        super().__init__(curvature)
        number("rcond", rcond, least=0, below=1)
        c = curvature
        self.exact = c.K == 1
        A = torch.zeros(c.D, c.D, dtype=torch.float64, device=c.device)
        B = torch.zeros(c.K, c.K, dtype=torch.float64, device=c.device)
        for F, P in c.blocks(c.C):
            weighted = F * c.head.curvature(P, c.Q)[:, :, 0].clamp_min(0).sqrt() if c.K == 1 else F
            A += (weighted.T @ weighted).double()
            B += self._summed_curvature(P.double())
        ranks.total(A), ranks.total(B)
        _, self.UA = torch.linalg.eigh(A / c.n)
        _, UB = torch.linalg.eigh(B / c.n)
        self.UB = c.Q @ UB  # (C,K)
        self.s = torch.zeros(c.D, c.K, dtype=torch.float64, device=c.device)
        for F, P in c.blocks(2 * c.D):
            P, squares = P.double(), (F @ self.UA.to(F.dtype)).double().square()
            if c.head.kind == "multiclass":
                own = P @ self.UB.square() - (P @ self.UB).square()
            else:
                own = c.head.slopes(P) @ self.UB.square()
            self.s += squares.T @ own
        self.s = ranks.total(self.s) / c.n
        self.inverse = 1 / (self.s + c.damping)
        if not c.damping:
            self.inverse = torch.where(self.s > rcond * self.s.max(), self.inverse, 0.0)

    def _summed_curvature(self, P):
        Q = self.curvature.Q
        if self.curvature.head.kind == "multiclass":
            PQ = P @ Q
            return Q.T @ (P.sum(0)[:, None] * Q) - PQ.T @ PQ
        return torch.diag(self.curvature.head.slopes(P).sum(0))

    def solve(self, V):
        inner = self.UA.T @ V.double() @ self.UB
        return self.UA @ (inner * self.inverse) @ self.UB.T

    def quadratic(self, F, R, E):
        left = (F @ self.UA.to(F.dtype)).double()
        middle = (R.double() @ self.UB) * (E.double() @ self.UB)
        return ((left.square() @ self.inverse) * middle).sum(1)

    def leverage(self, F):
        middle = (F @ self.UA.to(F.dtype)).double().square() @ self.inverse  # (b,K)
        return torch.einsum("ck,bk,ek->bce", self.UB, middle, self.UB)
