"""What solvers solve with, and what they must do."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from config import UserError
from explainer.attribution import ranks


class Curvature:
    """The Hessian H of the mean loss over the points, as products that never need it whole.

    rows: `Rows` of the points that H is averaged over. P (n,C): their probabilities. head: `Head`.
    damping: added to its diagonal.
    """

    def __init__(self, rows, P, head, damping=0.0):
        if not damping >= 0:
            raise UserError(f"damping is {damping}: give 0 or a number above it")
        self.rows, self.P, self.head, self.damping = rows, P, head, damping
        self.Q = head.basis()
        self.D, self.C, self.K = head.D, head.C, self.Q.shape[1]
        self.n = int(ranks.total(torch.tensor(len(rows), device=self.Q.device)))  # points of all ranks
        self.device = self.Q.device

    def blocks(self, more=0):
        """(block (b,D), probabilities (b,C)) over the rows, in the rows' precision."""
        for rows, F in self.rows.blocks(more):
            yield F, self.P[rows].to(F.dtype)

    def product(self, V: Tensor) -> Tensor:
        """(H + damping) V for V (k,D,C), by two matrix products over the rows."""
        k, result = len(V), torch.zeros_like(V)
        flat = V.transpose(0, 1).reshape(self.D, k * self.C)
        for F, P in self.blocks(3 * k * self.C):
            U = (F @ flat.to(F.dtype)).reshape(-1, k, self.C).transpose(1, 2)  # (b,C,k)
            U = self.head.curved(P, U).transpose(1, 2).reshape(len(F), k * self.C)
            result += (F.T @ U).double().reshape(self.D, k, self.C).transpose(0, 1)
        return ranks.total(result) / self.n + self.damping * V

    def dense(self) -> Tensor:
        """H on the basis Q, without damping: (1,KD,KD), or a block (C,D,D) for each label of a multilabel head."""
        K, D, separate = self.K, self.D, self.head.kind == "multilabel"
        H = torch.zeros(K, K, D, D, dtype=torch.float64, device=self.device)
        for F, P in self.blocks(self.D + K * K):
            if separate or K == 1:
                S = P * (1 - P) if separate else self.head.curvature(P, self.Q)[:, :, 0]
                for a in range(K):
                    weighted = F * S[:, a, None].clamp_min(0).sqrt()
                    H[a, a] += (weighted.T @ weighted).double()
                continue
            S = self.head.curvature(P, self.Q)
            for a in range(K):
                for b in range(a + 1):
                    H[a, b] += (F.T @ (F * S[:, a, b, None])).double()
        ranks.total(H)
        H /= self.n
        if separate:
            return H[range(K), range(K)]
        for a in range(K):
            for b in range(a):
                H[b, a] = H[a, b].T
        return H.transpose(1, 2).reshape(1, K * D, K * D)


class Solver(ABC):
    """A way to apply the inverse Hessian. name: as `solver=` chooses it. curvature: the `Curvature` it solves with."""

    name: str
    exact = True

    def __init__(self, curvature: Curvature):
        self.curvature = curvature

    @abstractmethod
    def solve(self, V: Tensor) -> Tensor:
        """(H + damping)^-1 V for V (k,D,C), float64."""

    def quadratic(self, F: Tensor, R: Tensor, E: Tensor) -> Tensor:
        """(f_i e_i')' (H + damping)^-1 (f_i r_i') for each row (b,) of F (b,D), R (b,C) and E (b,C)."""
        V = self.solve(F.double()[:, :, None] * R.double()[:, None, :])
        return torch.einsum("bdc,bd,bc->b", V, F.double(), E.double())

    def leverage(self, F: Tensor) -> Tensor:
        """(f_i (x) I)' (H + damping)^-1 (f_i (x) I), (b,C,C), for each row of F (b,D)."""
        b, C = len(F), self.curvature.C
        unit = torch.eye(C, dtype=torch.float64, device=F.device)
        V = F.double()[:, None, :, None] * unit[None, :, None, :]  # (b,C,D,C)
        solved = self.solve(V.reshape(b * C, -1, C)).reshape(b, C, -1, C)
        return torch.einsum("bcdk,bd->bck", solved, F.double())
