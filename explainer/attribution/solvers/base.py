"""What solvers solve with, and what they must do."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from config import UserError
from explainer.attribution import ranks

CHUNK = 2**22  # entries of right-hand sides that are solved together


class Curvature:
    """The Hessian H of the mean loss over the points, as products that never need it whole.

    rows: `Rows` of the points that H is averaged over. P (n,C): their probabilities. head: `Head`.
    ridge (D,): added to its diagonal, in every class; or one number for all features. weights (n,): of the points, None
    for 1 each. A solver sees the rows times their roots: w_i S_i (x) f_i f_i' is S_i (x) of those.
    """

    def __init__(self, rows, P, head, ridge=0.0, weights=None):
        self.rows, self.P, self.head = rows, P, head
        self.weights, self.roots = weights, None if weights is None else weights.sqrt()
        self.ridge = torch.as_tensor(ridge, dtype=torch.float64, device=head.weight.device).expand(head.D)
        self.Q = head.basis()
        self.D, self.C, self.K = head.D, head.C, self.Q.shape[1]
        self.n = int(ranks.total(torch.tensor(len(rows), device=self.Q.device)))  # points of all ranks
        self.device = self.Q.device

    def blocks(self, more=0):
        """(block (b,D) of weighted rows, probabilities (b,C)) over the rows, in their precision."""
        for rows, F in self.rows.blocks(more):
            yield self._weighted(F, rows), self.P[rows].to(F.dtype)

    def take(self, picked):
        """Weighted rows and their probabilities, (b,D) and (b,C), by their numbers (b,), float64."""
        return self._weighted(self.rows.take(picked.tolist()), picked).double(), self.P[picked].double()

    def _weighted(self, F, rows):
        return F if self.roots is None else F * self.roots[rows, None].to(F.dtype)

    @property
    def damping(self):
        """The ridge as one number. Raises UserError where the features have different ones."""
        if not self.uniform:
            raise UserError("a decay_intercept other than the decay needs the solver exact or cg: take one of them")
        return float(self.ridge[0])

    @property
    def uniform(self):
        """Whether all features have the same ridge."""
        return bool((self.ridge == self.ridge[0]).all())

    def product(self, V: Tensor) -> Tensor:
        """(H + ridge) V for V (k,D,C), by two matrix products over the rows."""
        k, result = len(V), torch.zeros_like(V)
        flat = V.transpose(0, 1).reshape(self.D, k * self.C)
        for F, P in self.blocks(3 * k * self.C):
            U = (F @ flat.to(F.dtype)).reshape(-1, k, self.C).transpose(1, 2)  # (b,C,k)
            U = self.head.curved(P, U).transpose(1, 2).reshape(len(F), k * self.C)
            result += (F.T @ U).double().reshape(self.D, k, self.C).transpose(0, 1)
        return ranks.total(result) / self.n + self.ridge[:, None] * V

    def dense(self, dtype=None) -> Tensor:
        """H on the basis Q, without damping: (1,KD,KD), or a block (C,D,D) for each logit with a loss of its own.

        dtype: of the products, None for that of the rows; sums over blocks are in float64.
        """
        K, D, separate = self.K, self.D, self.head.separate
        H = torch.zeros(K, K, D, D, dtype=torch.float64, device=self.device)
        for F, P in self.blocks(self.D + K * K):
            F, P = F.to(dtype or F.dtype), P.to(dtype or P.dtype)
            if separate or K == 1:
                S = self.head.slopes(P) if separate else self.head.curvature(P, self.Q)[:, :, 0]
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
    shared = False  # whether a solve is work of all ranks together, so that each must ask for the same

    def __init__(self, curvature: Curvature):
        self.curvature = curvature

    @abstractmethod
    def solve(self, V: Tensor) -> Tensor:
        """(H + damping)^-1 V for V (k,D,C), float64."""

    def solve_for_scores(self, V: Tensor) -> Tensor:
        """`solve`, in no more than the precision of the scores that are made of it, that of the rows."""
        return self.solve(V)

    def needs_one_rank(self):
        """Raise UserError where every rank would ask for rows of its own, and solves are shared."""
        if self.shared and ranks.size() > 1:
            raise UserError(
                f"solver {self.name} solves for test points alone on several ranks: take exact or kronecker"
            )

    def quadratic(self, F: Tensor, R: Tensor, E: Tensor) -> Tensor:
        """(f_i e_i')' (H + damping)^-1 (f_i r_i') for each row (b,) of F (b,D), R (b,C) and E (b,C)."""
        self.needs_one_rank()
        size, found = max(1, CHUNK // self.curvature.head.weight.numel()), []
        for f, r, e in zip(F.split(size), R.split(size), E.split(size)):
            V = self.solve(f.double()[:, :, None] * r.double()[:, None, :])
            found.append(torch.einsum("bdc,bd,bc->b", V, f.double(), e.double()))
        return torch.cat(found)

    def leverage(self, F: Tensor) -> Tensor:
        """(f_i (x) I)' (H + damping)^-1 (f_i (x) I), (b,C,C), for each row of F (b,D)."""
        self.needs_one_rank()
        C, found = self.curvature.C, []
        unit = torch.eye(C, dtype=torch.float64, device=F.device)
        for f in F.split(max(1, CHUNK // (C * self.curvature.head.weight.numel()))):
            V = f.double()[:, None, :, None] * unit[None, :, None, :]  # (b,C,D,C)
            solved = self.solve(V.reshape(len(f) * C, -1, C)).reshape(len(f), C, -1, C)
            found.append(torch.einsum("bcdk,bd->bck", solved, f.double()))
        return torch.cat(found)
