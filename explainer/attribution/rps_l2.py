"""RPS-l2 for any linear head (Yeh et al., 2018): representer points of an l2-regularized last layer.

The head is fitted to reproduce the model's own predictions P under a penalty,

    min over Theta of  mean cross-entropy(F Theta, P) + lmbd |Theta|^2,

and at its minimum Theta = sum_i f_i alpha_i', with alpha_i = -w_i (p_i(Theta) - p_i) / (2 lmbd n), (C,), of a point
with the weight w_i.
"""

import torch

from explainer.attribution import ranks
from explainer.attribution.base import Attributor
from explainer.attribution.checks import number
from explainer.attribution.fitting import fit_head, probabilities
from explainer.attribution.scores import Kept, Queries, Term


def alphas(fitted, P, lmbd, n):
    """alpha (n,C) from the probabilities of the fitted head and of the model, (n,C) each."""
    return (fitted - P) / (-2 * lmbd * n)


class RPSL2(Attributor):
    """RPS-l2. lmbd: the penalty, > 0, of all parameters, the bias included; other options as those of `Attributor`.

    score(t, i) = alpha_ic f_i'f_t is the share of training point i in the logit of class c, the explained one, of test
    point t: positive supports the class, negative opposes it, and over all i the shares sum to the logit of the
    *fitted* head, which is not the model's. It is no counterfactual: for one class alpha_ic is the same for all test
    points, so that they differ by f_i'f_t alone. For class 0 of a binary head the logit is minus the one it gives.
    The damping and the solver of `Attributor` have no part in it.
    """

    method, unit = "RPS-l2", "logit"

    def _prepare(self, lmbd=0.003):
        number("lmbd", lmbd, above=0)
        P = self._at(self.head)[0].double()
        tolerance = max(1e-15, min(1e-9, 1e-7 * lmbd))  # alpha divides the gradient by lmbd
        self.lmbd, self.fitted = lmbd, fit_head(self.rows, P, self.head, 2 * lmbd, tolerance, self._own_weight)
        alpha = alphas(probabilities(self.rows, self.fitted), P, lmbd, self.n)
        self.alpha = self._weighed(alpha, slice(0, self.rows.n))
        self.terms = [Term(self.rows, Kept(self.alpha))]

    def _coefficients(self, features, labels):
        fitted, own = (head.probabilities(head.logits(features[0])) for head in (self.fitted, self.head))
        return [alphas(fitted, own, self.lmbd, self.n)]

    @property
    def parameters(self):
        result = torch.zeros_like(self.head.weight)
        for rows, F in self.rows.blocks(self.head.C):
            result += F.double().T @ self.alpha[rows]
        return ranks.total(result)

    def _queries(self, F, classes):
        return Queries([(F, self.head.directions(classes))], F.new_zeros(len(F)))

    def _own(self, F, rows):
        return (self.alpha[rows] * self._directions(rows)).sum(1) * F.double().square().sum(1)

    def suspicion(self):
        alpha = self.alpha.abs()
        if self.head.kind == "multiclass":
            alpha = alpha * self._directions(slice(0, self.rows.n))
        return ranks.gathered(alpha.sum(1)).cpu().numpy()

    def weights(self):
        """W_i = f_i alpha_i' in blocks: (slice of the training points, (b,D,C)), float64."""
        for rows, F in self.rows.blocks(8 * self.head.D * self.head.C):
            yield rows, F.double()[:, :, None] * self.alpha[rows][:, None, :]
