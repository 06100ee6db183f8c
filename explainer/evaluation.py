"""How good is an explanation? Measures that compare scores with what really happens to a linear head that is refitted.

All measures use one head: the minimum of the mean loss plus decay/2 |Theta|^2 on given features. A score claims how
much the *support* of a test point falls when a training point is removed: the logit of its class for methods that
explain logits, minus its loss for those that explain losses. Here points are removed, and the head is fitted again.
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from config import UserError
from explainer.agreement import distinct_explanations, overlap
from explainer.attribution import checks
from explainer.attribution.fitting import fit_head
from explainer.attribution.heads import Head
from explainer.attribution.rows import Rows


class Evaluation:
    """Features (n,d) and labels of training points, features (m,d) and classes (m,) of test points, and a fitted head.

    decay: the head's weight decay, > 0, its bias included. The classes of the test points are explained. All is worked
    on where the training points' features are.
    """

    def __init__(self, features, labels, test_features, classes, decay=1e-3):
        checks.number("decay", decay, above=0)  # so that every refit has a minimum
        self.F, self.F_test = (checks.tensor(F, "features").double() for F in (features, test_features))
        self.F_test = self.F_test.to(self.F.device)
        self.labels, self.classes = (_whole(y).to(self.F.device) for y in (labels, classes))
        for F, y in ((self.F, self.labels), (self.F_test, self.classes)):
            if len(F) != len(y):
                raise UserError(f"got {len(F)} rows of features and {len(y)} labels: give as many of each")
        if self.F.ndim != 2 or self.F_test.shape[1:] != self.F.shape[1:]:
            shapes = f"{tuple(self.F.shape)} and {tuple(self.F_test.shape)}"
            raise UserError(f"the features have the shapes {shapes}: give (n, d) and (m, d)")
        for F in (self.F, self.F_test):
            if not torch.isfinite(F).all():
                row = int((~torch.isfinite(F)).any(1).nonzero()[0, 0])
                raise UserError(f"the features of row {row} are not finite: mend or leave out that point")
        self.decay, self.n, self._refits = decay, len(self.F), {}
        C = int(self.labels.max()) + 1 if self.n else 0
        if C < 2 or self.labels.min() < 0:
            raise UserError(
                f"the labels go from {min(self.labels.tolist(), default=0)} to {C - 1}: give 0, 1, … of two"
            )
        if not len(self.classes):
            raise UserError("got 0 test points: give at least one")
        if self.classes.min() < 0 or self.classes.max() >= C:
            raise UserError(f"the test points' classes go beyond those of the labels: give 0 to {C - 1}")
        kind, logits = ("binary", 1) if C == 2 else ("multiclass", C)
        start = Head.of(torch.zeros(logits, self.F.shape[1]), torch.zeros(logits), self.labels, kind, self.F.device)
        self.head = self._fit(torch.arange(self.n), decay, start)

    def _fit(self, kept, decay, start):
        rows = Rows(self.F[kept], bias=True, device=self.F.device)
        return fit_head(rows, start.targets(self.labels[kept]), start, decay)

    def explainer(self, method, **settings):
        """A method of `explainer.attribution` on the fitted head; its decay is the head's."""
        if "decay" in settings:
            raise UserError("decay is that of the fitted head: give it to Evaluation")
        for name in ("sample_weight", "class_weight", "label_smoothing"):
            if name in settings:
                raise UserError(f"{name}: the heads are fitted to the plain mean loss; leave it out")
        weight, bias = self.head.weight[:-1].T, self.head.weight[-1]
        arrays = self.F, self.labels, weight, bias
        return method.from_arrays(*arrays, head=self.head.kind, decay=self.decay, **settings)

    def support(self, head, unit):
        """The support (m,) of every test point by a head: the logit of its class, or minus its loss."""
        Z = head.logits(torch.cat([self.F_test, self.F_test.new_ones(len(self.F_test), 1)], 1))
        if unit == "logit":
            return (Z * head.directions(self.classes)).sum(1).cpu().numpy()
        return -head.losses(Z, head.targets(self.classes)).cpu().numpy()

    def refit(self, kept, decay):
        """The head fitted to some of the training points; kept, so that every method is measured by the same refits."""
        key = np.asarray(kept).tobytes(), decay
        if key not in self._refits:
            self._refits[key] = self._fit(kept, decay, self.head)
        return self._refits[key]

    def without(self, groups, unit):
        """How much every test point's support falls without each group of training points, (groups,m)."""
        whole, falls = self.support(self.head, unit), []
        for group in groups:
            kept = np.setdiff1d(np.arange(self.n), group)
            falls.append(whole - self.support(self.refit(kept, self.decay * self.n / len(kept)), unit))
        return np.stack(falls)

    def _scores(self, explainer):
        if explainer.n != self.n:
            raise UserError(f"the explainer has {explainer.n} training points: make it by Evaluation.explainer")
        return np.concatenate(list(explainer.influence(self.F_test, self.classes)))

    def leave_out_correlation(self, explainer, number=100, k=1, seed=0):
        """The Pearson correlation of a group's summed scores with the fall of the support that its removal brings.

        number: groups of k training points each, drawn by seed. The mean over the test points.
        """
        checks.number("k", k, least=1, most=self.n - 1, whole=True)
        checks.number("number", number, least=2, whole=True)
        generator = np.random.default_rng(seed)
        groups = np.stack([generator.choice(self.n, k, replace=False) for _ in range(number)])
        predicted = self._scores(explainer)[:, groups].sum(2)  # (m,groups)
        return _mean_correlation(predicted, self.without(groups, explainer.unit).T)

    def datamodeling_score(self, explainer, number=50, seed=0):
        """The linear datamodeling score (Park et al., 2023): on random halves of the training points, the rank
        correlation of a half's summed scores with the support after fitting on it, mean over the test points.
        """
        checks.number("number", number, least=2, whole=True)
        generator, scores = np.random.default_rng(seed), self._scores(explainer)
        predicted, happened = [], []
        for _ in range(number):
            half = np.sort(generator.choice(self.n, self.n // 2, replace=False))
            predicted.append(scores[:, half].sum(1))
            happened.append(self.support(self.refit(half, self.decay), explainer.unit))
        ranked = [rankdata(np.stack(x, 1), axis=1) for x in (predicted, happened)]
        return _mean_correlation(*ranked)

    def mislabelled_found(self, method, portion=0.2, seed=0, **settings):
        """Flip labels, fit the head to them, order the points by suspicion: the share of flips found at `portion`
        checked, and the area under the curve of found against checked, in [0, 1].
        """
        checks.number("portion", portion, least=1 / self.n, below=1)
        generator = np.random.default_rng(seed)
        flipped = generator.permutation(self.n)[: int(self.n * portion)]
        labels, C = self.labels.clone(), self.head.classes
        shift = torch.as_tensor(generator.integers(1, C, len(flipped))).to(labels.device)
        labels[flipped] = (labels[flipped] + shift) % C
        other = Evaluation(self.F, labels, self.F_test, self.classes, self.decay)
        order = np.argsort(-other.explainer(method, **settings).suspicion(), kind="stable")
        return found_at(order, flipped, portion), area(order, flipped)

    def collapse(self, explainer, k=5):
        """How alike the explanations of a class are: a table with a row per class, see `distinct_explanations`."""
        best = explainer.top_k(self.F_test, k, self.classes).indices.T
        return distinct_explanations(best, self.classes.cpu().numpy())

    def stability(self, method, settings, k=5):
        """The mean share of the k best that two of the settings, dictionaries of options, have in common."""
        if len(settings) < 2:
            raise UserError(f"got {len(settings)} settings: give two at least, to compare")
        tops = [self.explainer(method, **options).top_k(self.F_test, k, self.classes).indices.T for options in settings]
        return overlap(tops)

    def table(self, methods, stabilities=None, seed=0, number=100, halves=50, k=5):
        """Every measure for every method. methods: {name: (class, options)}.

        stabilities: {column: {name: list of options}}, over which settings the stability of a method is measured.
        """
        if not isinstance(methods, dict) or not all(isinstance(entry, tuple) for entry in methods.values()):
            raise UserError("methods: give {name: (class, options)}, such as {'RPS-LJE': (RPSLJE, {'lr': 0.01})}")
        rows, few = {}, max(2, self.n // 100)
        for name, (method, options) in methods.items():
            explainer = self.explainer(method, **options)
            found, under = self.mislabelled_found(method, seed=seed, **options)
            collapse = self.collapse(explainer, k)
            rows[name] = {
                "leave one out": self.leave_out_correlation(explainer, number, 1, seed),
                f"leave {few} out": self.leave_out_correlation(explainer, number, few, seed),
                "datamodeling score": self.datamodeling_score(explainer, halves, seed),
                "mislabelled found at 20 %": found,
                "area under found": under,
                "different sets": collapse["different sets"].sum() / collapse["test points"].sum(),
            }
            for column, settings in (stabilities or {}).items():
                rows[name][column] = self.stability(method, settings[name], k) if name in settings else np.nan
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _whole(labels):
    """Labels (n,) as whole numbers. Raises UserError for others."""
    labels = checks.tensor(labels, "labels")
    if labels.ndim != 1 or (labels != labels.long()).any():
        raise UserError(f"labels have the shape {tuple(labels.shape)}: give one whole number for each point, (n,)")
    return labels.long()


def found_at(order, flipped, share):
    """The share of the flipped points among the first `share` of an order."""
    return float(np.isin(order[: int(len(order) * share)], flipped).sum() / len(flipped))


def area(order, flipped):
    """The area under the share of the flipped points found against the share of the order checked, in [0, 1]."""
    found = np.concatenate([[0], np.cumsum(np.isin(order, flipped)) / len(flipped)])
    return float((found[:-1] + found[1:]).sum() / (2 * len(order)))


def _mean_correlation(a, b):
    """The mean over the rows of a and b (m,p) of the correlation of their p columns."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return float(np.mean((a * b).sum(1) / np.where(size > 0, size, 1.0)))
