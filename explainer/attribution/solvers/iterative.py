"""The solvers that need products with the Hessian alone: conjugate gradients, LiSSA, and low rank."""

import warnings

import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.checks import number
from explainer.attribution.solvers.base import Curvature, Solver
from explainer.last_layer import RCOND, RankWarning

SMALL = 0.1  # of the damping: an eigenvalue that the low rank may leave to it without a warning


class ConjugateGradients(Solver):
    """Conjugate gradients on closed-form Hessian products, all right-hand sides at once.

    tolerance: stop when every residual is this share of its right-hand side. steps: at most so many (then an
    error); the products are in the rows' precision. Time 4 n D C for each right-hand side and step; memory 5 times the
    right-hand sides.
    """

    name, exact, shared = "cg", False, True

    def __init__(self, curvature, tolerance=1e-8, steps=2000):
        super().__init__(curvature)
        number("tolerance", tolerance, above=0)
        number("steps", steps, least=1, whole=True)
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
            product = c.product(direction) @ c.Q @ c.Q.T  # rounding must not lead out of the space
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
        for name, value in (("depth", depth), ("repeats", repeats), ("batch", batch)):
            number(name, value, least=1, whole=True)
        if scale is not None:
            number("scale", scale, above=0)
        number("seed", seed, least=0, whole=True)
        self.depth, self.repeats, self.batch, self.seed = depth, repeats, min(batch, len(curvature.rows)), seed
        if scale is None:  # |S_i| <= 1/2 for softmax, 1/4 for a sigmoid
            bound = {"multiclass": 0.5, "regression": 1.0}.get(curvature.head.kind, 0.25)
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
                F, P = c.take(picked)
                U = c.head.curved(P, torch.einsum("bd,kdc->bck", F, X))
                HX = torch.einsum("bd,bck->kdc", F, U) / self.batch
                X = V + X - (HX + c.damping * X) / self.scale
            result = result + X / self.scale
        if not torch.isfinite(result).all():
            raise UserError(f"lissa diverged with scale {self.scale:g}: give a larger scale")
        return result / self.repeats


class LowRank(Solver):
    """The largest eigenpairs of H by randomized subspace iteration with Rayleigh-Ritz (Nystroem, Arnoldi).

    rank: how many. The rest of the space is solved with the damping alone, or left out where damping is 0, with a
    RankWarning where its largest eigenvalue is more than a tenth of the damping. Time 4 n D C rank (iterations + 1),
    and D C rank for each right-hand side; memory 8 D C rank bytes, thrice.
    """

    name, exact = "lowrank", False

    def __init__(self, curvature, rank=64, iterations=4, seed=0, rcond=RCOND):
        super().__init__(curvature)
        number("rank", rank, least=1, whole=True)
        number("seed", seed, least=0, whole=True)
        number("iterations", iterations, least=0, whole=True)
        number("rcond", rcond, least=0, below=1)
        c, size = curvature, curvature.D * curvature.C
        generator = torch.Generator().manual_seed(seed)
        wanted = min(rank + 8, c.D * c.K)
        B = torch.randn(wanted, c.D, c.C, generator=generator, dtype=torch.float64).to(c.device) @ c.Q @ c.Q.T
        undamped = Curvature(c.rows, c.P, c.head, weights=c.weights)
        for step in range(iterations + 1):
            B = B if step == 0 else undamped.product(B)
            B = torch.linalg.qr(B.reshape(wanted, size).T)[0].T.reshape(wanted, c.D, c.C)
        small = undamped.product(B).reshape(wanted, size) @ B.reshape(wanted, size).T
        s, U = torch.linalg.eigh((small + small.T) / 2)
        left = float(s[-rank - 1]) if rank < wanted else 0.0
        s, U = s[-rank:], U[:, -rank:]
        keep = s > rcond * s[-1].clamp_min(1e-300)
        self.s, self.vectors = s[keep], U[:, keep].T @ B.reshape(wanted, size)
        self.rank = int(keep.sum())
        if left > max(SMALL * c.damping, rcond * float(s[-1])):
            rest = "solved with the damping alone" if c.damping else "left out"
            warnings.warn(
                f"lowrank keeps {rank} of {c.D * c.K} directions, with eigenvalues from {float(s[-1]):.1e} down to "
                f"{float(s[0]):.1e}, and the next is {left:.1e}: the rest is {rest}; give a larger rank in "
                "solver_settings, or another solver",
                RankWarning,
                stacklevel=2,
            )

    def solve(self, V):
        c = self.curvature
        V = (V.double() @ c.Q @ c.Q.T).reshape(len(V), -1)
        coefficients = V @ self.vectors.T
        if not c.damping:
            return (coefficients / self.s @ self.vectors).reshape(-1, c.D, c.C)
        change = 1 / (self.s + c.damping) - 1 / c.damping
        return (coefficients * change @ self.vectors + V / c.damping).reshape(-1, c.D, c.C)
