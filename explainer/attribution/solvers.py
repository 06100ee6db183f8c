"""Solvers with the Hessian of the mean loss, H + damping: one class with one method, solve(V), each.

Letters as in `explainer.attribution.heads`. V (k,D,C) holds k right-hand sides, each shaped like the head. Every
solver returns (H + damping I)^-1 V where that exists, and the pseudo-inverse of H where damping is 0 and H is singular;
right-hand sides outside the range of H (no gradient is) lose what lies outside.
"""

import logging
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from config import UserError
from explainer.attribution import ranks
from explainer.last_layer import RCOND, inverse_hessian

LARGEST_EXACT = 6000  # entries of the head: a Hessian of 288 MB in float64, factored in some seconds
log = logging.getLogger(__name__)


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


class Exact(Solver):
    """Cholesky in float64; a truncated pseudo-inverse, with a RankWarning, where H is singular.

    rcond: eigenvalues of H below this share of the largest are left out. Time n D^2 K^2 / 2 + (DK)^3 / 3, and (DK)^2
    for each right-hand side; memory 8 (DK)^2 bytes, three times that while it is factored. K: classes - 1 for softmax.
    """

    name = "exact"

    def __init__(self, curvature, rcond=None):
        super().__init__(curvature)
        if rcond is None:  # what is lost in products of this precision cannot be told from 0
            rcond = max(RCOND, 30 * torch.finfo(curvature.rows.dtype).eps)
        self.inverses = [inverse_hessian(H, curvature.damping, rcond) for H in curvature.dense()]
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


class Dual(Solver):
    """Exact through the Gram matrix of the n K rows of the curvature's square root: for n K < D K.

    rcond as in `Exact`. Time (n K)^3 + n^2 D, and n D K + (n K)^2 for each right-hand side; memory 16 (n K)^2 bytes
    and the features. Every rank reads all rows.
    """

    name = "dual"

    def __init__(self, curvature, rcond=RCOND):
        super().__init__(curvature)
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


class ConjugateGradients(Solver):
    """Conjugate gradients on closed-form Hessian products, all right-hand sides at once.

    tolerance: stop when every residual is this share of its right-hand side. steps: at most so many (then an
    error). Time 4 n D C for each right-hand side and step; memory 5 times the right-hand sides.
    """

    name, exact = "cg", False

    def __init__(self, curvature, tolerance=1e-8, steps=2000):
        super().__init__(curvature)
        self.tolerance, self.steps, self.taken = tolerance, steps, 0

    def solve(self, V):
        c = self.curvature
        V = V.double() @ c.Q @ c.Q.T  # what no gradient has is left out
        X, residual = torch.zeros_like(V), V.clone()
        direction, rho = residual.clone(), residual.square().sum((1, 2))
        enough = self.tolerance**2 * rho
        for step_number in range(self.steps):
            if bool((rho <= enough).all()):
                self.taken = step_number
                return X
            product = c.product(direction)
            curved = (direction * product).sum((1, 2))
            step = torch.where((rho > enough) & (curved > 0), rho / curved.clamp_min(1e-300), 0.0)
            X += step[:, None, None] * direction
            residual -= step[:, None, None] * product
            new = residual.square().sum((1, 2))
            direction = residual + (new / rho.clamp_min(1e-300))[:, None, None] * direction
            rho = new
        worst = float((rho / (enough / self.tolerance**2).clamp_min(1e-300)).sqrt().max())
        raise UserError(
            f"conjugate gradients: the residual is {worst:.1e} after {self.steps} steps, wanted {self.tolerance:.0e}; "
            "add damping, give more steps, or take another solver"
        )


class LiSSA(Solver):
    """Agarwal, Bullins and Hazan (2017): the Neumann series of H^-1 on random batches, averaged over repeats.

    x <- v + (I - (H_batch + damping)/scale) x, `depth` times, and x / scale at last. scale: above the largest
    eigenvalue of every batch, found by a bound where it is None. Time 4 b D C for each right-hand side, step and
    repeat; memory 3 times the right-hand sides. Its error falls as (1 - smallest eigenvalue / scale)^depth, and has
    noise of the batches besides: it needs damping.
    """

    name, exact = "lissa", False

    def __init__(self, curvature, depth=2000, repeats=4, batch=256, scale=None, seed=0):
        super().__init__(curvature)
        if not curvature.damping > 0:
            raise UserError("lissa needs damping above 0: its series does not end otherwise; give damping")
        if ranks.size() > 1:
            raise UserError("lissa runs on one rank: take another solver")
        self.depth, self.repeats, self.batch, self.seed = depth, repeats, min(batch, len(curvature.rows)), seed
        if scale is None:  # |S_i| <= 1/2 for softmax, 1/4 for a sigmoid
            bound = 0.5 if curvature.head.kind == "multiclass" else 0.25
            largest = max(float(F.double().square().sum(1).max()) for F, _ in curvature.blocks())
            scale = bound * largest + curvature.damping
        self.scale = scale

    def solve(self, V):
        c, result = self.curvature, 0.0
        V = V.double() @ c.Q @ c.Q.T
        for repeat in range(self.repeats):
            generator = torch.Generator().manual_seed(self.seed + repeat)
            X = V.clone()
            for _ in range(self.depth):
                picked = torch.randint(len(c.rows), (self.batch,), generator=generator)
                F, P = c.rows.take(picked.tolist()).double(), c.P[picked].double()
                U = c.head.curved(P, torch.einsum("bd,kdc->bck", F, X))
                HX = torch.einsum("bd,bck->kdc", F, U) / self.batch
                X = V + X - (HX + c.damping * X) / self.scale
            result = result + X / self.scale
        if not torch.isfinite(result).all():
            raise UserError(f"lissa diverged with scale {self.scale:g}: give a larger scale")
        return result / self.repeats


class LowRank(Solver):
    """The largest eigenpairs of H by randomized subspace iteration with Rayleigh-Ritz (Nystroem, Arnoldi).

    rank: how many. The rest of the space is solved with the damping alone, or left out where damping is 0. Time
    4 n D C rank (iterations + 1), and D C rank for each right-hand side; memory 8 D C rank bytes, thrice.
    """

    name, exact = "lowrank", False

    def __init__(self, curvature, rank=64, iterations=4, seed=0, rcond=RCOND):
        super().__init__(curvature)
        c, size = curvature, curvature.D * curvature.C
        generator = torch.Generator().manual_seed(seed)
        wanted = min(rank + 8, c.D * c.K)
        B = torch.randn(wanted, c.D, c.C, generator=generator, dtype=torch.float64).to(c.device) @ c.Q @ c.Q.T
        undamped = Curvature(c.rows, c.P, c.head)
        for _ in range(iterations):
            B = torch.linalg.qr(undamped.product(B).reshape(wanted, size).T)[0].T.reshape(wanted, c.D, c.C)
        small = undamped.product(B).reshape(wanted, size) @ B.reshape(wanted, size).T
        s, U = torch.linalg.eigh((small + small.T) / 2)
        s, U = s[-rank:], U[:, -rank:]
        keep = s > rcond * s[-1].clamp_min(1e-300)
        self.s, self.vectors = s[keep], U[:, keep].T @ B.reshape(wanted, size)
        self.rank = int(keep.sum())

    def solve(self, V):
        c = self.curvature
        V = (V.double() @ c.Q @ c.Q.T).reshape(len(V), -1)
        coefficients = V @ self.vectors.T
        if not c.damping:
            return (coefficients / self.s @ self.vectors).reshape(-1, c.D, c.C)
        change = 1 / (self.s + c.damping) - 1 / c.damping
        return (coefficients * change @ self.vectors + V / c.damping).reshape(-1, c.D, c.C)


class Kronecker(Solver):
    """H by its diagonal in the eigenvectors of mean f f' (x) mean S (Martens and Grosse, 2015; George et al., 2018).

    Exact for one logit, an approximation for several. rcond: diagonal entries below this share of the largest are left
    out where damping is 0. Time n D^2 + D^3 + C^3, and D C (D + C) for each right-hand side; memory
    8 (D^2 + C^2 + D C) bytes.
    """

    name = "kronecker"

    def __init__(self, curvature, rcond=RCOND):
        super().__init__(curvature)
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
                own = (P * (1 - P)) @ self.UB.square()
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
        return torch.diag((P * (1 - P)).sum(0))

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


SOLVERS = {solver.name: solver for solver in (Exact, Dual, ConjugateGradients, LiSSA, LowRank, Kronecker)}


def solver_for(curvature, solver="auto", **settings):
    """A solver by name, with its settings; "auto" picks by size, and logs which.

    exact up to D K = 6000; dual where there are fewer points than features and at most 6000 rows n K; else kronecker,
    which is an approximation for several classes. Raises UserError for an unknown name.
    """
    if isinstance(solver, type) and issubclass(solver, Solver):
        return solver(curvature, **settings)
    if solver == "auto":
        size, rows = curvature.D * curvature.K, curvature.n * curvature.K
        if rows < size and rows <= LARGEST_EXACT and rows * 2 < size:
            solver = "dual"
        else:
            solver = "exact" if size <= LARGEST_EXACT else "kronecker"
        log.info("solver: %s, for a head of %d x %d and %d points", solver, curvature.D, curvature.C, curvature.n)
    if solver not in SOLVERS:
        raise UserError(f"solver is {solver!r}: give one of auto, {', '.join(SOLVERS)}")
    return SOLVERS[solver](curvature, **settings)
