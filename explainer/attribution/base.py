"""Attributor: what all methods share. A method says how its scores are made; this class knows all the rest."""

import sys
from abc import abstractmethod
from numbers import Real
from pathlib import Path

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.checks import flag, number, path, settings
from explainer.attribution.problem import HeadOnPoints
from explainer.attribution.questions import Question, Tested
from explainer.attribution.rows import Rows, floating, numbers
from explainer.attribution.scores import Kept, Term, save_blocks, score_blocks
from explainer.attribution.search import approximate
from explainer.attribution.ties import settled
from explainer.attribution.topk import Running, TopK, finite, largest


class Attributor(HeadOnPoints):
    """Explain a classifier with a linear head by its training points.

    model: a torch module that returns logits. loader: its training points in the data set's order, batches of (inputs,
    labels). layer: the head, by name or number among the linear layers, or itself. inputs_and_labels, logits: functions
    that find those in a batch, and in what the model returns (`Features`). The options of every method:

    intercept: make the head's bias part of the decomposition, as the weight of a constant feature; False leaves it to
    the logits, unexplained.
    head: binary, multiclass, multilabel, regression (squared loss), or auto (one of the first three, by the number of
    logits and the shape of the labels).
    decay: the weight decay of a head that minimizes its mean loss plus decay/2 |Theta|^2; part of the loss that is
    expanded. decay_intercept: whether the bias decays as well (as in torch's optimizers) or not (as in scikit-learn),
    or the decay that it has instead.
    damping: added to the diagonal of H and to nothing else, for a Hessian that is nearly singular.
    sample_weight (n,), class_weight, label_smoothing: of the loss that was trained on (`weighting`, `heads`).
    solver: auto, or a key of `SOLVERS`, or a `Solver` class; solver_settings: what it takes.
    n_samples_for_hessian: average H over so many points drawn by `seed` instead of all.
    precision: of the products over the rows, a torch dtype; None is that of the features. Sums over blocks, the
    factorization and the solves are in float64, but for the test points' side of the scores of one logit where H is
    well-conditioned.
    device: where the rows are worked on; None is where the model, or the array of features, is. memory_limit: bytes
    that a block and what is calculated from it may need. cache: a folder that keeps the features; see `from_cache`.

    Raises UserError, in one line, for whatever it could not work with. Nothing that is given is changed.
    """

    method: str
    unit: str

    @abstractmethod
    def _queries(self, F, classes):
        """`Queries` of test points F (m,D) whose classes (m,) are explained."""

    @property
    @abstractmethod
    def parameters(self):
        """The parameters (D,C) that the weights of all training points sum to, float64."""

    def self_influence(self):
        """The score of every training point for itself, its own (smoothed) label being explained: (n,), never n x n."""
        found = torch.empty(self.rows.n, dtype=torch.float64, device=self.device)
        for rows, F in self.rows.blocks(4 * self.head.C):
            found[rows] = self._own(F, rows).double()
        return ranks.gathered(found).cpu().numpy()

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

    def influence(self, test, target="predicted", out=None, *, candidates=None, mean=False, per="row"):
        """Scores of every training point for every test point.

        test: a loader (of a model), or features (m,d), or (features, labels). target: the class that is explained:
        "predicted", "label", one class, or a class for each test point (m,). Of a regression: the number of an output;
        of its loss, the labels.
        candidates: score these in place of the training points, given as test points with their labels: each as a
        training point of weight 1 at the same head, so that a point's score is minus what adding it would do.
        mean: one row, the mean over the test points. per: "row", or "point" for the sums over the rows that are
        positions of one point, of training and test points alike.
        Returns an iterator over blocks (m_b, n) of test points; with out=PATH a memmap (m,n) of that .npy file, in
        float32.
        """
        question = self._question(test, target, candidates, mean, per)
        blocks, out = self._blocks(question), path("out", out)
        if out is None:
            return blocks
        save_blocks(out, blocks, (question.tests, question.points))
        return np.load(out, mmap_mode="r", allow_pickle=False) if ranks.rank() == 0 else None

    def _blocks(self, question):
        for queries in self._parts(question, 8 * question.rows):
            yield self._whole(question, queries).cpu().numpy()

    def _whole(self, question, queries):
        """All scores of some queries (m_b,n), of all ranks, summed by point where that is asked for."""
        parts = torch.cat([scores for _, scores in score_blocks(question.terms, queries)], 1)
        return question.summed(ranks.gathered(parts.T.contiguous()).T)

    def top_k(
        self,
        test,
        k=5,
        target="predicted",
        order="descending",
        search="exact",
        search_settings=None,
        *,
        candidates=None,
        mean=False,
        per="row",
    ):
        """The k training points with the largest scores of each test point: `TopK`.

        test, target, candidates, mean, per: as `influence` takes them. order: "descending" for those that speak most
        for the class, "ascending" for its opponents; equal ones by index. search: "exact", in blocks; or "faiss", an
        approximate index that needs the faiss package, with its recall in the result. Raises UserError for k above the
        number of training points.
        """
        if order not in ("descending", "ascending"):
            raise UserError(f"order is {order!r}: give descending or ascending")
        self._check_k(k, self.n if candidates is None else sys.maxsize)
        question = self._question(test, target, candidates, mean, per)
        self._check_k(k, question.points)
        sign = 1 if order == "descending" else -1
        if search != "exact":
            if candidates is not None or mean or per != "row":
                raise UserError(f"search {search} takes no candidates, mean or per: take search='exact'")
            found = approximate(self, question, k, sign, search, settings("search_settings", search_settings))
            return TopK(*found[:2], question.shown(), self.method, self.unit, found[2])
        more = 0 if question.columns is None else 8 * question.rows
        found = [self._best(question, queries, k, sign) for queries in self._parts(question, more)]
        values, indices = (torch.cat(part).cpu().numpy() for part in zip(*found))
        return TopK(values, indices, question.shown(), self.method, self.unit)

    def _check_k(self, k, most=None):
        number("k", k, least=1, most=self.n if most is None else most, whole=True)

    def _question(self, test, target, candidates, mean, per):
        flag("mean", mean)
        if per not in ("row", "point"):
            raise UserError(f"per is {per!r}: give row or point")
        tested = self._test(test, _asked(target))
        if candidates is None:
            terms, columns, rows, labels, weights = self.terms, self.groups, self.n, self.labels, self.sample_weight
        else:
            given = self._test(candidates, None)
            terms, columns, rows = self._candidates(given), given.groups, len(given.features)
            labels, weights = given.labels.to(self.device), None
        groups, columns = (tested.groups, columns) if per == "point" else (None, None)
        counts = tested.count, self.count if candidates is None else given.count
        return Question(tested.features, tested.classes, groups, terms, columns, rows, mean, labels, weights, counts)

    def _candidates(self, given):
        """Terms over rows that are no training points; each rank has its share of them."""
        if given.labels is None:
            raise UserError("the candidates have no labels: give (features, labels), or a loader that has them")
        labels = given.labels.to(self.device)
        if len(labels) != len(given.features):
            raise UserError(f"got {len(given.features)} candidates and {len(labels)} labels: give as many of each")
        self.head.check(labels)
        features = given.features.split(self.head.D, 1)
        terms, constant = [], int(self.head.bias)
        for f, c in zip(features, self._coefficients([f.double() for f in features], labels)):
            inner = f[:, : self.head.D - constant]
            rows = Rows(inner, constant, self.rows.dtype, self.device, self.rows.memory_limit)
            terms.append(Term(rows, Kept(c[rows.first : rows.first + rows.n])))
        return terms

    @abstractmethod
    def _coefficients(self, features, labels):
        """[c (b,C)] of points with features [(b,D)] and labels, one of each for every term, as if in training."""

    def _parts(self, question, more=0):
        """`Queries` of parts of the test points that, with `more` bytes for each, fit into the memory limit."""
        step = max(1, int(self.rows.memory_limit / (24 * self.head.weight.numel() * len(self.terms) + more)))
        yield from question.queries(self._queries, step)

    def _best(self, question, queries, k, sign):
        m = len(queries.constant)
        if question.columns is not None:
            values, indices = largest(sign * finite(self._whole(question, queries)), k)
            return sign * values, indices
        running = Running(m, min(k + 1, question.rows), self.rows.dtype, self.device)
        queries = queries.signed(sign)
        for first, scores in score_blocks(question.terms, queries, constant=False, reuse=True):
            running.add(scores, first)
        values, indices = settled(self, question, queries, *running.of_all_ranks(), k)
        return sign * (values + queries.constant[:, None].to(values.dtype)), indices

    def logits(self, test):
        """The head's logits (m,C) of test points, from its given parameters."""
        return self.head.logits(self._test(test, None)[0].double()).cpu().numpy()

    def reproduced_logits(self, test):
        """The logits (m,C) that the weights of all training points sum to: test points times `parameters`."""
        return self.head.at(self.parameters).logits(self._test(test, None)[0].double()).cpu().numpy()

    def _test(self, test, target):
        """`Tested`: features (m,D) of test points in the rows' precision, and the explained classes (m,)."""
        labels = groups = count = None
        if isinstance(test, tuple) and len(test) == 2:
            test, labels = test
        if labels is not None and self.inputs is not None:
            labels = self.inputs.labels(labels)
        if self.inputs is not None and not isinstance(test, (str, Path)):
            test = self.inputs.features(test)
        elif self.features is not None and not _is_loader(test):
            raise UserError("this explainer was made from a model: give test points as a loader of its inputs")
        elif _is_loader(test):
            if self.features is None:
                raise UserError("this explainer was made from arrays: give features (m, d) instead of a loader")
            test, own, groups, count = self.features.together(test)
            labels = own if labels is None else labels
        elif self.features is None and not isinstance(test, (str, Path)):
            test = floating(test, self.rows.dtype)
        rows = self._rows(test, self.rows.dtype, self.rows.memory_limit, whole=True)
        F = torch.cat([block for _, block in rows.blocks()])
        bad = ~torch.isfinite(F).all(1)
        if bad.any():
            raise UserError(f"the features of test point {int(bad.nonzero()[0, 0])} are not finite: leave it out")
        labels = None if labels is None else numbers(labels)
        groups = None if groups is None else groups.to(self.device)
        return Tested(F, None if target is None else self._explained(F, labels, target), groups, labels, count)

    def _explained(self, F, labels, target):
        return self._chosen(self.head, F, labels, target)

    def _chosen(self, head, F, labels, target):
        Z = head.logits(F.double())
        loss_of_numbers = head.kind == "regression" and self.unit == "loss"
        return head.wanted(Z, labels, target) if loss_of_numbers else head.explained(Z, labels, target)

    def __repr__(self):
        kind = f"{self.head.kind} head {self.head.D} x {self.head.C}"
        solver = getattr(self, "solver", None)
        return f"{type(self).__name__}({self.n} points, {kind}{f', solver {solver.name}' if solver else ''})"


def _asked(target):
    if target is None:
        raise UserError("target is None: give predicted, label, or classes")
    return target


def _is_loader(test):
    array = isinstance(test, (torch.Tensor, np.ndarray, str, Path)) or hasattr(test, "shape")
    if isinstance(test, list) and test and isinstance(test[0], (list, tuple)):
        array = all(isinstance(entry, Real) for entry in test[0])  # rows of numbers
    return hasattr(test, "__iter__") and not array
