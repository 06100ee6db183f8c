"""The points that are explained by, with the head on them: where they come from, checks, and passes over them."""

import hashlib
import inspect
from abc import ABC, abstractmethod

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.cache import Points, load_points
from explainer.attribution.checks import flag, number, settings
from explainer.attribution.collect import Features
from explainer.attribution.heads import Head
from explainer.attribution.linear_models import LinearModel
from explainer.attribution.rows import MEMORY, Rows, Taken, numbers
from explainer.attribution.solvers import Curvature, solver_for
from explainer.attribution.trees import TreeHead
from explainer.attribution.weighting import point_weights


class HeadOnPoints(ABC):
    """A linear head and the training points it was trained on: the half of `Attributor` that makes ready.

    rows: `Rows` of this rank. labels (n,) or (n,C), of all ranks. head: `Head`. decay (D,). n: points of all ranks.
    sample_weight (n,): the weights of their losses, of all ranks, or None for 1 each. groups (n,): the number of the
    training point that each row is a position of; None where every row is a point. count: of those points, or None.
    features: `Features` of a model, trees: `TreeHead` of a tree model; None where it was made from arrays.
    inputs: what reads rows and labels as the model takes them, a `TreeHead` or a `LinearModel`; None for others.
    classes: the labels that a scikit-learn model was fitted on, which 0, 1, … stand for; None for others.
    """

    features = trees = inputs = classes = None

    def __init__(
        self, model, loader, layer=-1, *, inputs_and_labels=None, logits=None, cache=None, device=None, **options
    ):
        self._check_options(options)
        self.features = ranks.every(lambda: Features(model, layer, inputs_and_labels, logits), ranks.place())
        points = self.features.collect(loader, cache)
        self._begin(points, device=device or self.features.device, **options)

    @classmethod
    def _check_options(cls, options):
        """Raise UserError for an option that there is not, before anything is collected."""
        known = [*inspect.signature(cls._begin).parameters, *inspect.signature(cls._prepare).parameters]
        known = [name for name in known if name not in ("self", "points", "own", "more")]
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
        self._begin(Points(features, labels, weight, bias), **options)
        return self

    @classmethod
    def from_cache(cls, folder, **options):
        """From the folder that `cache=` has filled, without the model: test points are given as features then."""
        cls._check_options(options)
        self = cls.__new__(cls)
        self._begin(load_points(folder), **options)
        return self

    @classmethod
    def from_sklearn(cls, estimator, X, y, *, sample_weight=None, class_weight=None, **options):
        """From a fitted linear model of scikit-learn and its training data: see `explainer.attribution.linear_models`.

        estimator: LogisticRegression, SGDClassifier (log_loss), or of squared loss Ridge, RidgeClassifier,
        LinearRegression, SGDRegressor, and those of them that end with CV; also as the last step of a pipeline or the
        best estimator of a search, whose transformers then read X and the test points. X, y, sample_weight: as given to
        its `fit`; X may be sparse. class_weight: by label, in place of the estimator's own.

        Penalty and weights are those of the estimator, unless they are given; labels of test points are those that it
        was fitted on. Warns where the head is not at the minimum of that loss, as with weights that are not given.
        """
        cls._check_options(options)
        model = LinearModel(estimator)
        features, labels = model.features(X), model.labels(y)
        model.check(features)
        options = {**model.options(features, y, sample_weight, class_weight), **options}
        self = cls.from_arrays(features, labels, model.weight, model.bias, **options)
        self.inputs, self.classes = model, model.classes
        model.warn_unless_stationary(features, labels, options.get("sample_weight"), self.decay.tolist())
        return self

    @classmethod
    def from_trees(cls, model, X, y, *, sample_weight=None, class_weight=None, **options):
        """From an additive tree model and its training data: see `explainer.attribution.trees`.

        model: also as the last step of a pipeline or the best estimator of a search. y holds the classes 0, 1, …, those
        of a scikit-learn model, or the targets of a regression of squared loss, as labels of test points do then. Test
        points are rows like those of X. sample_weight: as given to its `fit`. class_weight: by label, in place of the
        model's own (class_weight, scale_pos_weight, is_unbalance).

        Warns where the trees were grown with weights that are not given.
        """
        cls._check_options(options)
        head, self = TreeHead(model, X), cls.__new__(cls)
        self.trees = self.inputs = head
        self.classes = head.classes
        labels = head.labels(y)
        F = head.features(X)
        options = {**head.options(len(F), y, labels, sample_weight, class_weight), **options}
        self._begin(Points(F, labels, head.weight, head.bias), **options)
        head.warn_unless_weighed(X, labels, options.get("sample_weight"), sample_weight is not None)
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
        sample_weight=None,
        class_weight=None,
        label_smoothing=0.0,
        solver="auto",
        solver_settings=None,
        n_samples_for_hessian=None,
        seed=0,
        precision=None,
        device=None,
        memory_limit=MEMORY,
        **own,
    ):
        self.device = _device(_place(points.features) if device is None else device)
        flag("intercept", intercept)
        number("label_smoothing", label_smoothing, least=0, below=1)
        if precision not in (None, torch.float32, torch.float64):
            raise UserError(f"precision is {precision!r}: give torch.float32, torch.float64, or None")
        labels = numbers(points.labels).to(self.device)
        self.head = Head.of(points.weight, points.bias, labels, head, self.device, intercept, label_smoothing)
        self.rows = self._rows(points.features, precision, memory_limit)
        if len(labels) != self.rows.total:
            raise UserError(f"got {self.rows.total} rows of features and {len(labels)} labels: give as many of each")
        self.labels, self.n = labels, self.rows.total
        self.groups = None if points.groups is None else numbers(points.groups).to(self.device)
        self.count = points.count
        self.head.check(labels)
        if not self.head.separate and (labels == labels[:1]).all():
            raise UserError(f"every label is {labels.flatten()[0].item()}: give points of two classes at least")
        self.sample_weight = point_weights(sample_weight, class_weight, labels, self.head)
        number("damping", damping, least=0)
        number("seed", seed, least=0, whole=True)
        self.decay = self._decays(decay, decay_intercept)
        self.damping, self.seed = damping, seed
        self._solver, self._samples = (solver, settings("solver_settings", solver_settings)), n_samples_for_hessian
        self._agree()
        self._prepare(**own)

    def _decays(self, decay, intercept):
        """The decay (D,) of every feature. intercept: whether the constant decays as they do, or its own decay."""
        number("decay", decay, least=0)
        found = torch.full((self.head.D,), float(decay), dtype=torch.float64, device=self.device)
        if isinstance(intercept, (str, type(None))):
            raise UserError(f"decay_intercept is {intercept!r}: give True or False, or a decay of its own")
        if not isinstance(intercept, (bool, np.bool_)):
            number("decay_intercept", intercept, least=0)
        if self.head.bias and intercept is not True and intercept is not np.True_:
            found[-1] = float(intercept)
        return found

    def _agree(self):
        """Raise UserError where the ranks were given different data, heads or options."""
        if ranks.size() == 1:
            return
        shape = tuple(self.head.weight.shape)
        for what, tensors in (("labels", [self.labels]), ("weights", [self.head.weight, self.sample_weight])):
            digest = hashlib.sha256()
            for found in tensors:
                digest.update(b"none" if found is None else found.double().cpu().numpy().tobytes())
            ranks.agree(f"{what} {digest.hexdigest()[:16]}", self.device)
        options = f"{type(self).__name__} {self.n} {self.head.kind} {shape} {self.damping} {self.decay.tolist()}"
        ranks.agree(options, self.device)

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

    def _targets(self, rows):
        """Y (b,C) of a slice of this rank's rows, float64."""
        return self.head.targets(self._labels(rows))

    def _labels(self, rows):
        return self.labels[self.rows.first + rows.start : self.rows.first + rows.stop]

    @property
    def _own_weight(self):
        """The weights of the losses of this rank's rows, (rows.n,), or None for 1 each."""
        if self.sample_weight is None:
            return None
        return self.sample_weight[self.rows.first : self.rows.first + self.rows.n]

    def _weighed(self, R, rows):
        """What the losses of a slice of this rank's rows are multiplied by, times R (b,...)."""
        if self.sample_weight is None:
            return R
        w = self._own_weight[rows].to(R.dtype)
        return R * w.reshape(-1, *[1] * (R.ndim - 1))

    def _directions(self, rows):
        """The logit of every point's own label, (b,C): see `Head.own`."""
        return self.head.own(self._labels(rows))

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
            gradient += (F.T @ self._weighed(P[rows] - self._targets(rows).to(F.dtype), rows)).double()
        return P, ranks.total(gradient) / self.n

    def _solver_at(self, P, head):
        """The solver with the Hessian at a head with probabilities P (n,C)."""
        rows, weights = self.rows, self._own_weight
        if self._samples is not None:
            number("n_samples_for_hessian", self._samples, least=1, most=self.n, whole=True)
            wanted = max(1, round(self._samples * self.rows.n / self.n))
            picked = np.sort(np.random.default_rng([self.seed, ranks.rank()]).permutation(self.rows.n)[:wanted])
            rows = Taken(self.rows, picked)
            chosen = torch.as_tensor(picked, device=P.device)
            P, weights = P[chosen], None if weights is None else weights[chosen]
        name, settings = self._solver
        return solver_for(Curvature(rows, P, head, self.decay + self.damping, weights), name, **settings)


def _place(features):
    """Where features are: arrays are worked on there."""
    return features.device if isinstance(features, torch.Tensor) else "cpu"


def _device(name):
    try:
        torch.empty(0, device=name)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise UserError(f"device is {name!r} ({str(error).splitlines()[0]}): give cpu, or a device of yours") from error
    if torch.device(name).type == "meta":
        raise UserError("device is meta, which holds no numbers: give cpu, or a device of yours")
    return torch.device(name)
