"""What RPS-LJE and influence functions share: they expand the mean loss to second order around some parameters."""

from typing import NamedTuple

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.base import Attributor
from explainer.attribution.scores import Term

LARGEST_CONDITION = 1e8  # of I - Q S; beyond it the head without the point is not determined
LARGEST_INVERSE = {torch.float64: 1e11, torch.float32: 1e4}  # norm of its inverse, by the precision of H's products


class LeaveOneOut(NamedTuple):
    """Of every training point without itself: logits (n,C), probabilities (n,C), (n,) each for a head of one logit."""

    logits: np.ndarray
    probabilities: np.ndarray


class Expansion(Attributor):
    """An `Attributor` with an expansion around `center`, a Head: P (n,C), the gradient with decay, `solver` there."""

    def _expand(self, center):
        self.center = center
        self.P, self.gradient = self._at(center)
        self._check_center()
        self.gradient = self.gradient + self.decay[:, None] * center.weight
        self.solver = self._solver_at(self.P, center)
        self.terms = [Term(self.rows, self.residuals)]

    def _check_center(self):
        """Raise UserError where nothing can be expanded around the center."""

    def residuals(self, rows):
        """R = w (P - Y) (b,C) of a slice of this rank's rows, in their precision."""
        return self._weighed(self._unweighted(rows), rows)

    def _unweighted(self, rows):
        return self.P[rows] - self._targets(rows).to(self.P.dtype)

    def _coefficients(self, features, labels):
        return [self.center.probabilities(self.center.logits(features[0])) - self.head.targets(labels)]

    @property
    def parameters(self):
        return self.center.weight - self._step(self.gradient)

    def _step(self, pull):
        """H^-1 pull, (D,C), for a pull with a part of the decay, which softmax's own direction meets with its ridge."""
        step = self.solver.solve(pull[None])[0]
        if self.head.kind == "multiclass":
            ridge = (self.decay + self.damping)[:, None]
            step = step + torch.where(ridge > 0, pull.mean(1, keepdim=True) / ridge.clamp_min(1e-300), 0.0)
        return step

    def leave_one_out(self):
        """Logits and probabilities of every training point from the head refitted without it, in closed form.

        One Newton step from the expansion's center on the loss of the others,
        z_-i = f_i'Theta - (I - Q_i S_i)^-1 (f_i'H^-1 g - Q_i r_i), with the leverage
        Q_i = (f_i (x) I)'(n H)^-1 (f_i (x) I) and the mean gradient g: the leverage-corrected logit (Pregibon, 1981;
        Cook and Weisberg, 1982); H and g include the decay, r_i and S_i the weight. Exact for a quadratic loss, as of a
        regression, whose outputs are logits and probabilities alike; at a fitted head close to a refit. Raises
        UserError for a point that determines a direction of the head alone, as far as the rows' precision tells
        (leverages above 1 - 1e-4 in float32).
        """
        solver, head = self.solver, self.center
        logits = torch.empty(self.rows.n, head.C, dtype=torch.float64, device=self.device)
        newton = self._step(self.gradient)
        solver.needs_one_rank()
        identity = torch.eye(head.C, dtype=torch.float64, device=self.device)
        for rows, F in self.rows.blocks(8 * head.C * head.C):
            f, P, R = F.double(), self.P[rows].double(), self.residuals(rows).double()
            Q, S = solver.leverage(f) / self.n, self._weighed(head.curvature(P, identity), rows)
            u = f @ newton - torch.einsum("bce,be->bc", Q, R)
            left = identity - Q @ S
            corrected, failed = torch.linalg.inv_ex(left)
            norm = torch.linalg.matrix_norm(corrected, 1)
            condition = torch.linalg.matrix_norm(left, 1) * norm  # 1 where there is one logit, whatever is left
            alone = (failed != 0) | ~(condition < LARGEST_CONDITION) | ~(norm < LARGEST_INVERSE[self.rows.dtype])
            if alone.any():
                row = int(alone.nonzero()[0, 0]) + rows.start + self.rows.first
                more = "" if self.rows.dtype == torch.float64 else ", or give precision=torch.float64"
                raise UserError(
                    f"training point {row} is fitted by a direction of its own (leverage 1): add damping{more}"
                )
            logits[rows] = head.logits(f) - (corrected @ u[:, :, None])[:, :, 0]
        logits = ranks.gathered(logits)
        P = head.probabilities(logits)
        if head.C == 1:
            logits, P = logits[:, 0], P[:, 0]
        return LeaveOneOut(logits.cpu().numpy(), P.cpu().numpy())

    def newton_weights(self, F, rows):
        """H^-1 f_i r_i' (b,D,C) of the rows (slice) F (b,D), float64."""
        self.solver.needs_one_rank()
        return self.solver.solve(F.double()[:, :, None] * self.residuals(rows).double()[:, None, :])


def one_logit(method, F, y, theta, damping, rcond, **settings):
    """A method's weights for a head theta (d,) of one logit without a bias, every product in float64.

    Returns the explainer, the weights w_i (n,d) in the precision of F (n,d), and w_i f_i (n,) in float64, of all ranks.
    """
    more = {"damping": damping, "solver": "exact", "solver_settings": {"rcond": rcond}, "device": F.device}
    explainer = method.from_arrays(F, y, theta, head="binary", precision=torch.float64, **more, **settings)
    W, own, first = F.new_empty(explainer.rows.n, F.shape[1]), [], explainer.rows.first
    for rows, w in explainer.weights():
        w = w[:, :, 0]
        W[rows] = w.to(F.dtype)
        own.append((w * F[rows.start + first : rows.stop + first].double()).sum(1))
    return explainer, ranks.gathered(W), ranks.gathered(torch.cat(own))
