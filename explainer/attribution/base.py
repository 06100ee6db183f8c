"""Attributor: what all methods share. A method says how its scores are made; this class knows all the rest."""

import inspect
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.collect import Features, Points, load_points, numbered
from explainer.attribution.heads import Head
from explainer.attribution.rows import MEMORY, Rows, Taken, numbers
from explainer.attribution.scores import save_blocks, score_blocks
from explainer.attribution.search import approximate
from explainer.attribution.solvers import Curvature, solver_for
from explainer.attribution.topk import Running, TopK
from explainer.attribution.trees import TreeHead


class Attributor(ABC):
    """Explain a classifier with a linear head by its training points.

    model: a torch module that returns logits. loader: its training points in a fixed order, batches of (inputs,
    labels). layer: the head, by name or number among the linear layers. The options of every method:

    intercept: make the head's bias part of the decomposition, as the weight of a constant feature; False leaves it to
    the logits, unexplained.
    head: binary, multiclass, multilabel, or auto (by the number of logits and the shape of the labels).
    decay: the weight decay of a head that minimizes its mean loss plus decay/2 |Theta|^2; part of the loss that is
    expanded. decay_intercept: whether the bias decays as well (as in torch's optimizers) or not (as in scikit-learn).
    damping: added to the diagonal of H and to nothing else, for a Hessian that is nearly singular.
    solver: auto, or a key of `SOLVERS`, or a `Solver` class; solver_settings: what it takes.
    n_samples_for_hessian: average H over so many points drawn by `seed` instead of all.
    precision: of the products over the rows, a torch dtype; None is that of the features. Sums over blocks, the
    factorization and the solves are in float64.
    device: where the rows are worked on; None is the model's. memory_limit: bytes that a block and what is calculated
    from it may need. cache: a folder that keeps the features; see `from_cache`.

    Raises UserError, in one line, for whatever it could not work with. Nothing that is given is changed.
    """

    method: str
    unit: str
    trees = None  # of a tree model

    def __init__(self, model, loader, layer=-1, *, cache=None, device=None, **options):
        self._check_options(options)
        self.features = Features(model, layer)
        points = self.features.collect(loader, cache)
        self._begin(points, device=device or self.features.device, **options)

    @classmethod
    def _check_options(cls, options):
        """Raise UserError for an option that there is not, before anything is collected."""
        known = [*inspect.signature(cls._begin).parameters, *inspect.signature(cls._prepare).parameters]
        known = [name for name in known if name not in ("self", "points", "settings", "more")]
        for name in options:
            if name not in known:
                raise UserError(f"{cls.__name__} has no option {name!r}: give some of {', '.join(known)}")

    @classmethod
    def from_arrays(cls, features, labels, weight, bias=None, **options):
        """From arrays: features (n,d), labels (n,) or (n,C), and the head as nn.Linear or scikit-learn hold it.

        features: NumPy, torch, a memmap, the path of a .npy file, or a folder of them (`explainer.attribution.rows`).
        weight: (C,d), or (d,) for one logit. bias: (C,) or None.
        """
        cls._check_options(options)
        self = cls.__new__(cls)
        self.features = None
        self._begin(Points(features, labels, weight, bias), **options)
        return self

    @classmethod
    def from_cache(cls, folder, **options):
        """From the folder that `cache=` has filled, without the model: test points are given as features then."""
        return cls.from_arrays(*load_points(folder), **options)

    @classmethod
    def from_sklearn(cls, estimator, X, y, **options):
        """From a fitted logistic classifier of scikit-learn and its training data.

        The decay is that of LogisticRegression's C, unless it is given.
        """
        from sklearn.linear_model import LogisticRegression  # here, so that commands start fast

        if not hasattr(estimator, "coef_") or not hasattr(estimator, "predict_proba"):
            name = type(estimator).__name__
            raise UserError(f"{name} has no coef_ and predict_proba: give a fitted logistic classifier")
        labels = numbered(estimator.classes_, y)
        intercept = np.reshape(estimator.intercept_, -1) if estimator.fit_intercept else None
        if isinstance(estimator, LogisticRegression) and not estimator.l1_ratio and np.isfinite(estimator.C):
            options = {"decay": 1 / (estimator.C * len(labels)), "decay_intercept": False, **options}
        return cls.from_arrays(np.asarray(X, dtype=np.float64), labels, estimator.coef_, intercept, **options)

    @classmethod
    def from_trees(cls, model, X, y, **options):
        """From an additive tree model and its training data: see `explainer.attribution.trees`.

        y holds the classes 0, 1, …, or those of a scikit-learn model. Test points are rows like those of X.
        """
        if hasattr(model, "classes_"):
            y = numbered(model.classes_, y)
        head = TreeHead(model, X)
        self = cls.__new__(cls)
        self.features, self.trees = None, head
        self._begin(Points(head.features(X), y, head.weight, head.bias), **options)
        return self

    def _begin(
        self,
        points,
        *,
        intercept=True,
        head="auto",
        decay=0.0,
        decay_intercept=True,
        damping=0.0,
        solver="auto",
        solver_settings=None,
        n_samples_for_hessian=None,
        seed=0,
        precision=None,
        device="cpu",
        memory_limit=MEMORY,
        **settings,
    ):
        self.device = _device(device)
        if precision not in (None, torch.float32, torch.float64):
            raise UserError(f"precision is {precision!r}: give torch.float32, torch.float64, or None")
        labels = numbers(points.labels).to(self.device)
        self.head = Head.of(points.weight, points.bias, labels, head, self.device, intercept)
        self.rows = self._rows(points.features, precision, memory_limit)
        if len(labels) != self.rows.total:
            raise UserError(f"got {self.rows.total} rows of features and {len(labels)} labels: give as many of each")
        self.labels, self.n = labels, self.rows.total
        self.head.check(labels)
        if self.head.kind != "multilabel" and len(torch.unique(labels)) < 2:
            raise UserError(f"every label is {labels.flatten()[0].item()}: give points of two classes at least")
        for name, value in (("decay", decay), ("damping", damping)):
            if not value >= 0:
                raise UserError(f"{name} is {value}: give 0 or a number above it")
        self.decay = torch.full((self.head.D,), float(decay), dtype=torch.float64, device=self.device)
        if self.head.bias and not decay_intercept:
            self.decay[-1] = 0.0
        self.damping, self.seed = damping, seed
        self._solver, self._samples = (solver, solver_settings or {}), n_samples_for_hessian
        options = f"{type(self).__name__} {self.n} {self.head.kind} {tuple(self.head.weight.shape)} {damping} {decay}"
        ranks.agree(options, self.device)
        ranks.agree(f"the weight {self.head.weight.sum().item():.12g}", self.device)
        self._prepare(**settings)

    def _rows(self, features, precision, memory_limit, whole=False):
        rows = Rows(features, self.head.bias, precision, self.device, memory_limit, whole)
        if rows.D != self.head.D:
            d = self.head.D - self.head.bias
            raise UserError(
                f"the features have {rows.D - self.head.bias} columns and the head {d}: give those it is given"
            )
        return rows

    @abstractmethod
    def _prepare(self, **settings):
        """Check the method's settings and calculate what all its scores need: `self.terms` and the rest."""

    @abstractmethod
    def _queries(self, F, classes):
        """`Queries` of test points F (m,D) whose classes (m,) are explained."""

    @property
    @abstractmethod
    def parameters(self):
        """The parameters (D,C) that the weights of all training points sum to, float64."""

    # What methods are made of.

    def _targets(self, rows):
        """Y (b,C) of a slice of this rank's rows, float64."""
        return self.head.targets(self.labels[self.rows.first + rows.start : self.rows.first + rows.stop])

    def _directions(self, rows):
        """The logit of every point's own label, (b,C); of a multilabel head +1 for its labels and -1 for the others."""
        Y = self._targets(rows)
        return Y if self.head.kind == "multiclass" else 2 * Y - 1

    def _at(self, head, source=None):
        """P (n,C) of this rank's rows at a head, and the mean gradient (D,C) there over all ranks, float64.

        Raises UserError for features not finite.
        """
        source = source or self.rows
        P = torch.empty(source.n, head.C, dtype=source.dtype, device=self.device)
        gradient = torch.zeros_like(head.weight)
        for rows, F in source.blocks(4 * head.C):
            Z = head.logits(F)
            if not torch.isfinite(Z).all():
                bad = ~torch.isfinite(F).all(1)
                row = int((bad if bad.any() else ~torch.isfinite(Z).all(1)).nonzero()[0, 0])
                row += rows.start + source.first
                raise UserError(f"the features of row {row} are not finite: mend or leave out that point")
            P[rows] = head.probabilities(Z)
            gradient += (F.T @ (P[rows] - self._targets(rows).to(F.dtype))).double()
        return P, ranks.total(gradient) / self.n

    def _solver_at(self, P, head):
        """The solver with the Hessian at a head with probabilities P (n,C)."""
        rows = self.rows
        if self._samples is not None:
            if not 1 <= self._samples <= self.n:
                raise UserError(f"n_samples_for_hessian is {self._samples}: give 1 to {self.n}")
            wanted = max(1, round(self._samples * self.rows.n / self.n))
            picked = np.sort(np.random.default_rng([self.seed, ranks.rank()]).permutation(self.rows.n)[:wanted])
            rows = Taken(self.rows, picked)
            P = P[torch.as_tensor(picked, device=P.device)]
        name, settings = self._solver
        return solver_for(Curvature(rows, P, head, self.decay + self.damping), name, **settings)

    # What users ask.

    def self_influence(self):
        """The score of every training point for itself, its label being the explained class: (n,), never n x n."""
        found = [self._own(F, rows) for rows, F in self.rows.blocks(4 * self.head.C)]
        return ranks.gathered(torch.cat(found)).cpu().numpy()

    @abstractmethod
    def _own(self, F, rows):
        """`self_influence` of the rows (slice) F (b,D), (b,)."""

    def suspicion(self):
        """How suspicious the label of every training point is, (n,): the larger, the more; as the papers order them."""
        return np.abs(self.self_influence())

    def most_suspicious(self, k=10):
        """The k training points whose labels are the most suspicious, and how much: (indices (k,), suspicion (k,))."""
        self._check_k(k)
        suspicion = self.suspicion()
        indices = np.argsort(-suspicion, kind="stable")[:k]
        return indices, suspicion[indices]

    def influence(self, test, target="predicted", out=None):
        """Scores of every training point for every test point.

        test: a loader (of a model), or features (m,d), or (features, labels). target: the class that is explained:
        "predicted", "label", one class, or a class for each test point (m,).
        Returns an iterator over blocks (m_b, n) of test points; with out=PATH a memmap (m,n) of that .npy file, in
        float32.
        """
        F, classes = self._test(test, _asked(target))
        blocks = self._blocks(F, classes)
        if out is None:
            return blocks
        save_blocks(out, blocks, (len(F), self.n))
        return np.load(out, mmap_mode="r") if ranks.rank() == 0 else None

    def _blocks(self, F, classes):
        step = max(1, int(self.rows.memory_limit / (8 * self.n + 24 * self.head.weight.numel() * len(self.terms))))
        for start in range(0, len(F), step):
            some = slice(start, start + step)
            queries = self._queries(F[some], classes[some])
            parts = torch.cat([scores for _, scores in score_blocks(self.terms, queries)], 1)
            yield ranks.gathered(parts.T.contiguous()).T.cpu().numpy()

    def top_k(self, test, k=5, target="predicted", order="descending", search="exact", search_settings=None):
        """The k training points with the largest scores of each test point: `TopK`.

        test, target: as `influence` takes them. order: "descending" for those that speak most for the class,
        "ascending" for its opponents. search: "exact", in blocks; or "faiss", an approximate index that needs the faiss
        package, with its recall in the result. Raises UserError for k above the number of training points.
        """
        self._check_k(k)
        if order not in ("descending", "ascending"):
            raise UserError(f"order is {order!r}: give descending or ascending")
        F, classes = self._test(test, _asked(target))
        sign = 1 if order == "descending" else -1
        if search != "exact":
            found = approximate(self, F, classes, k, sign, search, **(search_settings or {}))
            return TopK(*found[:2], classes.cpu().numpy(), self.method, self.unit, found[2])
        found = [self._best(*part, k, sign) for part in self._parts(F, classes)]
        values, indices = (torch.cat(part).cpu().numpy() for part in zip(*found))
        return TopK(values, indices, classes.cpu().numpy(), self.method, self.unit)

    def _check_k(self, k):
        if not isinstance(k, (int, np.integer)) or not 1 <= k <= self.n:
            raise UserError(f"k is {k!r}: give 1 to {self.n}, the number of training points")

    def _parts(self, F, classes):
        """Test points in parts whose queries fit into the memory limit."""
        step = max(1, int(self.rows.memory_limit / (8 * self.head.weight.numel() * len(self.terms) * 3)))
        return [(F[start : start + step], classes[start : start + step]) for start in range(0, len(F), step)]

    def _best(self, F, classes, k, sign):
        queries = self._queries(F, classes)
        running = Running(len(F), k, self.rows.dtype, self.device)
        for first, scores in score_blocks(self.terms, queries, constant=False, reuse=True):
            running.add(scores if sign > 0 else scores.neg_(), first)
        values, indices = running.of_all_ranks()
        return sign * values + queries.constant[:, None].to(values.dtype), indices

    def logits(self, test):
        """The head's logits (m,C) of test points, from its given parameters."""
        return self.head.logits(self._test(test, None)[0].double()).cpu().numpy()

    def reproduced_logits(self, test):
        """The logits (m,C) that the weights of all training points sum to: test points times `parameters`."""
        return self.head.at(self.parameters).logits(self._test(test, None)[0].double()).cpu().numpy()

    def _test(self, test, target):
        """Features (m,D) of test points in the rows' precision, and the explained classes (m,)."""
        labels = None
        if isinstance(test, tuple) and len(test) == 2:
            test, labels = test
        if self.trees is not None:
            test = self.trees.features(test)
        elif self.features is not None and not _is_loader(test):
            raise UserError("this explainer was made from a model: give test points as a loader of its inputs")
        elif _is_loader(test):
            if self.features is None:
                raise UserError("this explainer was made from arrays: give features (m, d) instead of a loader")
            test, own = self.features.together(test)
            labels = own if labels is None else labels
        rows = self._rows(test, self.rows.dtype, self.rows.memory_limit, whole=True)
        F = torch.cat([block for _, block in rows.blocks()])
        bad = ~torch.isfinite(F).all(1)
        if bad.any():
            raise UserError(f"the features of test point {int(bad.nonzero()[0, 0])} are not finite: leave it out")
        return F, None if target is None else self._explained(F, labels, target)

    def _explained(self, F, labels, target):
        return self.head.explained(self.head.logits(F.double()), labels, target)

    def __repr__(self):
        kind = f"{self.head.kind} head {self.head.D} x {self.head.C}"
        solver = getattr(self, "solver", None)
        return f"{type(self).__name__}({self.n} points, {kind}{f', solver {solver.name}' if solver else ''})"


def _asked(target):
    if target is None:
        raise UserError("target is None: give predicted, label, or classes")
    return target


def _device(name):
    try:
        torch.empty(0, device=name)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise UserError(f"device is {name!r} ({str(error).splitlines()[0]}): give cpu, or a device of yours") from error
    return torch.device(name)


def _is_loader(test):
    array = isinstance(test, (torch.Tensor, np.ndarray, str, Path)) or hasattr(test, "shape")
    return hasattr(test, "__iter__") and not array
