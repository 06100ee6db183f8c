"""Solvers with the Hessian of the mean loss, H + damping: one class with one method, solve(V), each.

Letters as in `explainer.attribution.heads`. V (k,D,C) holds k right-hand sides, each shaped like the head. Every
solver returns (H + damping I)^-1 V where that exists, and the pseudo-inverse of H where damping is 0 and H is singular;
right-hand sides outside the range of H (no gradient is) lose what lies outside. Softmax's own direction, the same
vector in every column, is left out of V and of the answer with damping as well.
"""

import inspect
import logging
import warnings

from config import UserError
from explainer.attribution.solvers.base import Curvature, Solver
from explainer.attribution.solvers.exact import Dual, Exact
from explainer.attribution.solvers.iterative import ConjugateGradients, LiSSA, LowRank
from explainer.attribution.solvers.kronecker import Kronecker

LARGEST_EXACT = 6000  # entries of the head: a Hessian of 288 MB in float64, factored in some seconds
log = logging.getLogger(__name__)

__all__ = ["SOLVERS", "Curvature", "Solver", "solver_for"]

SOLVERS = {solver.name: solver for solver in (Exact, Dual, ConjugateGradients, LiSSA, LowRank, Kronecker)}


def solver_for(curvature, solver="auto", **settings):
    """A solver by name, with its settings; "auto" picks by size, and logs which.

    exact up to D K = 6000; dual where there are fewer points than features and at most 6000 rows n K; else kronecker,
    with a warning where it is an approximation, for several classes. Where the intercept does not decay, which dual and
    kronecker cannot do, exact up to D K = 6000 and else cg. Raises UserError for an unknown name.
    """
    if solver == "auto":
        size, rows = curvature.D * curvature.K, curvature.n * curvature.K
        if curvature.uniform and rows <= LARGEST_EXACT and rows * 2 < size:
            solver = "dual"
        elif size <= LARGEST_EXACT:
            solver = "exact"
        else:
            solver = "kronecker" if curvature.uniform else "cg"
        log.info("solver: %s, for a head of %d x %d and %d points", solver, curvature.D, curvature.C, curvature.n)
        if solver == "kronecker" and curvature.K > 1:
            warnings.warn(
                f"the head has {size:,} parameters, too many for an exact inverse: the solver is kronecker, an "
                "approximation; solver='cg' is exact, and solver='kronecker' says that this one is wanted",
                stacklevel=2,
            )
    if isinstance(solver, type) and issubclass(solver, Solver) and not inspect.isabstract(solver):
        made = solver
    elif isinstance(solver, str) and solver in SOLVERS:
        made = SOLVERS[solver]
    else:
        raise UserError(f"solver is {solver!r}: give one of auto, {', '.join(SOLVERS)}, or a class of your own")
    known = list(inspect.signature(made).parameters)[1:]
    if not set(settings) <= set(known):
        raise UserError(f"solver_settings of {made.name}: got {list(settings)}; give some of {known}")
    return made(curvature, **settings)
