"""The influence of a set of training points, removed together (Koh et al., 2019; Basu et al., 2020).

Removing the set U from a fitted head's sum of losses moves its minimizer, in one Newton step, by

    Delta = (n H - H_U)^-1 g_U,        g_U = sum over U of f_i r_i',    H_U = sum over U of S_i (x) f_i f_i'.

The sum of the points' influences is the first term, (n H)^-1 g_U, of the series
Delta_k = (n H)^-1 (g_U + H_U Delta_k-1); order 2 adds how the removal changes the curvature, which matters when many
points go at once.
"""

from numbers import Integral

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.checks import tensor
from explainer.attribution.influence_function import InfluenceFunction

CONVERGED, STEPS = 1e-10, 1000


class GroupInfluence(InfluenceFunction):
    """As `InfluenceFunction`, and `effect` for sets of points."""

    def displacement(self, indices, order=2):
        """Delta (D,C), how the head's parameters move when the points are removed; order as in `effect`."""
        picked = np.unique(np.atleast_1d(tensor(indices, "indices").cpu().numpy()))
        if not len(picked) or picked.min() < 0 or picked.max() >= self.n or not np.issubdtype(picked.dtype, np.integer):
            raise UserError(f"indices: give numbers of training points, from 0 to {self.n - 1}, at least one")
        if len(picked) == self.n:
            raise UserError(f"indices: they are all {self.n} training points; leave one at least")
        if order != "newton" and not (isinstance(order, Integral) and not isinstance(order, bool) and order >= 1):
            raise UserError(f'order is {order!r}: give 1, 2, … or "newton"')
        picked = picked.astype(np.int64)
        own = picked[(picked >= self.rows.first) & (picked < self.rows.first + self.rows.n)] - self.rows.first
        F = self.rows.take(own.tolist()).double()
        rows = torch.as_tensor(own, device=self.device)
        P = self.P[rows].double()
        w = 1.0 if self.sample_weight is None else self._own_weight[rows, None]
        g = ranks.total(F.T @ (w * (P - self.head.targets(self.labels[rows + self.rows.first]))))

        def step(delta):
            curved = F.T @ (w * self.head.curved(P, F @ delta))
            return self.solver.solve((g + ranks.total(curved))[None])[0] / self.n

        delta = step(torch.zeros_like(g))
        for _ in range(STEPS if order == "newton" else order - 1):
            before, delta = delta, step(delta)
            if float((delta - before).abs().max()) <= CONVERGED * float(delta.abs().max()):
                return delta
        if order == "newton":
            raise UserError("the series does not converge: the points carry the head alone; add damping")
        return delta

    def effect(self, indices, test, order=2):
        """The change of the logits (m,C) of test points when the training points `indices` are removed and the head is
        refitted. order: 1, the sum of the points' influences; 2, with the second-order correction; more terms; or
        "newton", the whole series. test as in `influence`.
        """
        F = self._test(test, None).features
        return (F.double() @ self.displacement(indices, order)).cpu().numpy()
