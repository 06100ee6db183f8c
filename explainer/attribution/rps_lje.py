"""RPS-LJE for any linear head (paper, section 3): representer points by a local Jacobian expansion of the last layer.

One full-batch step of gradient *ascent* leads from the given parameters Theta (D,C) to a nearby anchor,

    Theta_hat = Theta + lr grad L(Theta),

and expanding every point's gradient around it to first order gives each training point the weight

    W_i = (Theta_hat - H^-1 f_i r_i') / n,  (D,C),        r_i = p_i - y_i and H at Theta_hat.

The weights of all points sum to Theta_hat - H^-1 mean(f r'), the parameters of the expanded model: one Newton step from
the anchor, which leads back to Theta up to the square of the step where Theta is a stationary point of the loss. Where
the head was trained with a weight decay, L includes decay/2 |Theta|^2, H the decay, and f_i r_i' + decay Theta_hat
stands for f_i r_i'.
"""

from config import UserError
from explainer.attribution.checks import number
from explainer.attribution.expansion import Expansion
from explainer.attribution.scores import Queries

SHARE = 1e-6  # of the mean curvature of the losses at the head, that must be left at the anchor


class RPSLJE(Expansion):
    """RPS-LJE. lr: the step gamma to the anchor, > 0; the other options are those of `Attributor`.

    score(t, i) = f_t'W_i e_c is the share of training point i in the logit of class c, the explained one, of test point
    t: positive supports the class, negative opposes it, and over all i the shares sum to the logit of the expanded
    model. Its second part, -f_t'H^-1 f_i r_i'e_c / n, estimates how much that logit would fall if point i were removed
    and the head refitted; the first, f_t'Theta_hat e_c / n, is the same for all i. For class 0 of a binary head the
    logit is minus the one that the head gives. Of a regression it is the output that `target` numbers.
    """

    method, unit = "RPS-LJE", "logit"

    def _prepare(self, lr=0.01):
        number("lr", lr, above=0)
        P, gradient = self._at(self.head)
        self.lr, self._curved = lr, float(self.head.traces(P).mean())
        self._expand(self.head.at(self.head.weight + lr * (gradient + self.decay[:, None] * self.head.weight)))
        pull = self.decay[:, None] * self.center.weight  # of the decay, the same for every point
        self.common = self.center.weight - self._step(pull)

    def _check_center(self):
        curved = float(self.head.traces(self.P).mean())
        if self.head.kind == "regression" or not self._curved or curved > SHARE * self._curved:
            return
        step = self.center.weight - self.head.weight
        moved = max(float((F.double() @ step).abs().max()) for _, F in self.rows.blocks())
        raise UserError(
            f"the step to the anchor is too long: lr {self.lr:g} moves the logits by up to {moved:.3g}, where the "
            f"model is certain of every point; give lr below {self.lr / moved:.1g}, or features of a smaller scale"
        )

    def _queries(self, F, classes):
        f, E = F.double(), self.head.directions(classes)
        constant = ((f @ self.common) * E).sum(1) / self.n
        return Queries([self.solver.solve_for_scores(f[:, :, None] * E[:, None, :]).div_(-self.n)], constant)

    def _own(self, F, rows):
        E = self._directions(rows)
        own = ((F @ self.common.to(F.dtype)).double() * E).sum(1)
        return (own - self.solver.quadratic(F, self.residuals(rows), E).double()) / self.n

    def weights(self):
        """W_i in blocks: (slice of the training points, (b,D,C)), float64."""
        for rows, F in self.rows.blocks(8 * self.head.D * self.head.C):
            yield rows, (self.common - self.newton_weights(F, rows)) / self.n
