"""Influence functions of a linear head (Koh and Liang, 2017, equation 2; Cook and Weisberg, 1982).

Removing training point i moves the minimizer Theta of the mean loss, to first order, by

    -W_i,        W_i = -H^-1 f_i r_i' / n,  (D,C),        r_i = p_i - y_i and H at Theta.
"""

from explainer.attribution.expansion import Expansion
from explainer.attribution.scores import Queries


class InfluenceFunction(Expansion):
    """Influence functions of the head; the options are those of `Attributor`.

    score(t, i) = g_t'H^-1 g_i / n, with g_t = f_t r_t' the gradient of the loss that test point t has when the
    explained class is its label: an estimate of how much that loss would grow if point i were removed and the head
    refitted. Positive supports the class, negative opposes it. The score of a point for itself is never negative. Of a
    regression the loss is that of the test point's label, which must be given.
    """

    method, unit = "Influence function", "loss"

    def _prepare(self):
        self._expand(self.head)

    def _queries(self, F, classes):
        f = F.double()
        r = self.head.residuals(self.head.probabilities(self.head.logits(f)), classes)
        V = self.solver.solve_for_scores(f[:, :, None] * r[:, None, :])
        return Queries([V.div_(self.n)], f.new_zeros(len(F)))

    def _own(self, F, rows):
        return self.solver.quadratic(F, self.residuals(rows), self._unweighted(rows)).double() / self.n

    def weights(self):
        """W_i in blocks: (slice of the training points, (b,D,C)), float64."""
        for rows, F in self.rows.blocks(8 * self.head.D * self.head.C):
            yield rows, -self.newton_weights(F, rows) / self.n
