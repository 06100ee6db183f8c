"""Fit a linear head by Newton's method: the mean loss plus decay/2 |Theta|^2, to its minimum."""

import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.solvers import Curvature, solver_for

STEPS = 100
SMALL = 2000  # entries of the head that are solved exactly in each step


def fit_head(rows, Y, head, decay, tolerance=1e-9, weights=None):
    """The head at its minimum, from its given parameters.

    rows: `Rows`. Y (n,C): targets, labels or probabilities, of this rank's rows. decay: >= 0, of all parameters, the
    bias included. tolerance: of the gradient's largest entry. weights (n,): of the points' losses, None for 1 each.
    Raises UserError where it does not get there: without decay the minimum may not exist.
    """
    n = int(ranks.total(torch.tensor(len(rows), device=head.weight.device)))
    objective = rows, Y, decay, n, weights
    value, P, gradient = _at(head, *objective)
    for _ in range(STEPS):
        if float(gradient.abs().max()) <= tolerance:
            return head
        curvature = Curvature(rows, P, head, decay, weights)
        if head.weight.numel() <= SMALL:
            step = solver_for(curvature, "exact", rcond=1e-13).solve(gradient[None])[0]
        else:
            step = solver_for(curvature, "cg", tolerance=1e-3, steps=10000).solve(gradient[None])[0]
        if decay and head.kind == "multiclass":  # along the softmax's own direction only the decay pulls
            step = step + (gradient / decay).mean(1, keepdim=True)
        slope, size = float((gradient * step).sum()), 1.0
        while True:
            candidate = head.at(head.weight - size * step)
            new = _at(candidate, *objective)
            if new[0] <= value - 1e-4 * size * slope + 1e-15 * abs(value) or size < 1e-9:
                break
            size /= 2
        if size < 1e-9:
            break
        head, (value, P, gradient) = candidate, new
    worst = float(gradient.abs().max())
    if worst > max(1e3 * tolerance, 1e-6):
        raise UserError(f"the head's fit stopped at a gradient of {worst:.1e}: give more decay, or scale the features")
    return head


def probabilities(rows, head):
    """P (n,C) of a head over rows, in float64 whatever the rows are in."""
    P = torch.empty(len(rows), head.C, dtype=torch.float64, device=head.weight.device)
    for part, F in rows.blocks(3 * head.C):
        P[part] = head.probabilities(head.logits(F.double()))
    return P


def _at(head, rows, Y, decay, n, weights):
    """The objective, the probabilities (n,C) and the gradient (D,C) at a head."""
    P = torch.empty(len(rows), head.C, dtype=torch.float64, device=head.weight.device)
    gradient, value = torch.zeros_like(head.weight), torch.zeros((), dtype=torch.float64, device=head.weight.device)
    for part, F in rows.blocks(3 * head.C):
        F = F.double()
        Z = head.logits(F)
        P[part] = head.probabilities(Z)
        w = 1.0 if weights is None else weights[part, None]
        value += (w * head.losses(Z, Y[part])[:, None]).sum()
        gradient += F.T @ (w * (P[part] - Y[part]))
    value = float(ranks.total(value)) / n + decay / 2 * float(head.weight.square().sum())
    return value, P, ranks.total(gradient) / n + decay * head.weight
