"""TracIn on the last layer (Pruthi et al., 2020, section 3.2): what training on a point did to a test point's loss.

    score(t, i) = sum over checkpoints k of eta_k g_tk'g_ik = sum_k eta_k (f_tk'f_ik) (r_tk'r_ik),

with the features f and residuals r = p - y of checkpoint k, and eta_k the learning rate while it was reached.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from config import UserError
from explainer.attribution import kept, ranks
from explainer.attribution.base import Attributor
from explainer.attribution.cache import Points
from explainer.attribution.checks import tensor
from explainer.attribution.collect import Features
from explainer.attribution.heads import Head
from explainer.attribution.questions import Tested
from explainer.attribution.rows import numbers
from explainer.attribution.scores import Queries, Residuals, Term
from models.training import load_tensors


class TracIn(Attributor):
    """TracIn over checkpoints of the model, by the gradients of its head.

    checkpoints: state dicts of the model, or paths of files that hold them. learning_rates: one for each, or one for
    all. The other options are those of `Attributor`; damping and solver have no part in it. Without checkpoints: the
    model as it is.

    score(t, i) estimates by how much the training steps on point i have lowered the loss that test point t has when
    the explained class is its label, over the epochs that the checkpoints stand for. Positive supports the class,
    negative opposes it. The score of a point for itself is never negative.
    """

    method, unit = "TracIn", "loss"

    def __init__(
        self,
        model,
        loader,
        layer=-1,
        *,
        checkpoints=(),
        learning_rates=1.0,
        inputs_and_labels=None,
        logits=None,
        device=None,
        cache=None,
        **options,
    ):
        if cache is not None:
            raise UserError("TracIn keeps no cache: it has the features of every checkpoint; leave cache out")
        self._check_options(options)
        self.features = ranks.every(lambda: Features(model, layer, inputs_and_labels, logits), ranks.place())
        self.model = self.features.model
        checkpoints = [checkpoints] if isinstance(checkpoints, (str, Path, Mapping)) else checkpoints or ()
        self.checkpoints = ranks.every(lambda: [_loaded(checkpoint) for checkpoint in checkpoints], ranks.place())
        self.features.fixed = not self.checkpoints
        found = []
        for state in self.checkpoints or [None]:
            with self._as(state):
                found.append(self.features.collect(loader))
        more = {"more": found[1:], "learning_rates": learning_rates}
        self._begin(found[0], device=device or self.features.device, **more, **options)

    @classmethod
    def from_arrays(cls, features, labels, weight, bias=None, *, learning_rates=1.0, **options):
        """As of `Attributor`, with a list of features, weights and biases, one for each checkpoint, or one of each."""
        several = isinstance(features, (list, tuple))
        if several and not len(features) == len(weight) == len(bias or features) > 0:
            raise UserError(f"got {len(features)} features and {len(weight)} weights: give one for each checkpoint")
        cls._check_options(options)
        F, W, b = (features, weight, bias or [None] * len(weight)) if several else ([features], [weight], [bias])
        points = [Points(f, labels, w, c) for f, w, c in zip(F, W, b)]
        self = cls.__new__(cls)
        self.checkpoints = []
        self._begin(points[0], more=points[1:], learning_rates=learning_rates, **options)
        return self

    def _prepare(self, more=(), learning_rates=1.0):
        rates = tensor(learning_rates, "learning_rates").double().cpu().reshape(-1)
        rates = rates.expand(1 + len(more)) if len(rates) == 1 else rates
        if len(rates) != 1 + len(more) or not ((rates > 0) & rates.isfinite()).all():
            raise UserError(f"learning_rates: give one above 0 for each of {1 + len(more)} checkpoints, or one for all")
        self.rates, self.heads, self.terms = rates.tolist(), [self.head], []
        own_rows = [self.rows]
        for points in more:
            self.heads.append(
                Head.of(
                    points.weight,
                    points.bias,
                    self.labels,
                    self.head.kind,
                    self.device,
                    self.head.bias,
                    self.head.smoothing,
                )
            )
            if self.heads[-1].weight.shape != self.head.weight.shape:
                raise UserError(
                    "the checkpoints have heads of different shapes, or some a bias: give those of one model"
                )
            rows = self._rows(points.features, self.rows.dtype, self.rows.memory_limit)
            if rows.total != self.n:
                raise UserError(
                    f"the checkpoints have {self.n} and {rows.total} rows of features: give as many of each"
                )
            own_rows.append(rows)
        for rows, head in zip(own_rows, self.heads):
            residuals = Residuals(self._at(head, rows)[0], self._labels(slice(0, self.rows.n)), head, self._own_weight)
            self.terms.append(Term(rows, residuals))

    def _coefficients(self, features, labels):
        Y = self.head.targets(labels)
        return [head.probabilities(head.logits(f)) - Y for head, f in zip(self.heads, features)]

    @property
    def parameters(self):
        raise UserError("TracIn is no decomposition: its scores sum to no parameters")

    def _test(self, test, target):
        """The features at every checkpoint, side by side (m, checkpoints x D)."""
        if self.features is not None and not self.checkpoints:
            return super()._test(test, target)
        if self.features is None:
            labels = None
            if isinstance(test, tuple) and len(test) == 2 and isinstance(test[0], list):
                test, labels = test
            if isinstance(test, list):
                if len(test) != len(self.terms):
                    raise UserError(f"got {len(test)} features: give one for each of {len(self.terms)} checkpoints")
                parts = [super(TracIn, self)._test(features, None) for features in test]
                labels = None if labels is None else numbers(labels)
                classes = None if target is None else self._explained(parts[-1].features, labels, target)
                return Tested(torch.cat([part.features for part in parts], 1), classes, None, labels)
            tested = super()._test(test, target)
            if len(self.terms) > 1:
                raise UserError(f"give a list of features, one for each of {len(self.terms)} checkpoints")
            return tested
        parts = []
        for state in self.checkpoints:
            with self._as(state):
                parts.append(super()._test(test, target if state is self.checkpoints[-1] else None))
        return parts[-1]._replace(features=torch.cat([part.features for part in parts], 1))

    def _explained(self, F, labels, target):
        """As predicted by the last checkpoint."""
        return self._chosen(self.heads[-1], F, labels, target)

    def _queries(self, F, classes):
        sides = []
        for eta, head, f in zip(self.rates, self.heads, F.split(self.head.D, 1)):
            r = head.residuals(head.probabilities(head.logits(f.double())), classes)
            sides.append((f, eta * r))
        return Queries(sides, F.new_zeros(len(F)))

    def _own(self, F, rows):
        result = 0.0
        for eta, term in zip(self.rates, self.terms):
            f, r = term.rows.block(rows).double(), term.coefficients(rows).double()
            result = result + eta * f.square().sum(1) * (r * term.coefficients.plain(rows).double()).sum(1)
        return result

    def logits(self, test):
        raise UserError("TracIn has a head at every checkpoint: ask the model for its logits")

    @contextlib.contextmanager
    def _as(self, state):
        """The model with the parameters of a checkpoint, and afterwards as it was."""
        if state is None:
            yield
            return
        with kept.state(self.model):
            try:
                self.model.load_state_dict(_named_as(state, self.model))
            except (RuntimeError, TypeError) as error:
                fault = str(error).split(":", 1)[-1].split("\n")[1:2] or [str(error)]
                raise UserError(f"a checkpoint is of another model: {fault[0].strip()[:200]}") from error
            yield


def _named_as(state, model):
    """A state dict under the names of a model, which may be without those of wrappers and of compiled modules."""
    own = {_plain(name): name for name in model.state_dict()}
    inside = all(name.startswith("module.") for name in state) and not all(name.startswith("module.") for name in own)
    plain = {_plain(name.removeprefix("module.") if inside else name): value for name, value in state.items()}
    return {own.get(name, name): value for name, value in plain.items()}


def _plain(name):
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _loaded(checkpoint):
    """A state dict, given as it is or by its file. Only tensors are built of it."""
    if isinstance(checkpoint, (str, Path)):
        try:
            checkpoint = load_tensors(Path(checkpoint), "give a state dict, or its file")
        except UserError as error:
            raise UserError(f"cannot read the checkpoint {checkpoint}: {error}") from error
    if not isinstance(checkpoint, Mapping) or not all(isinstance(name, str) for name in checkpoint):
        what = "other names" if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise UserError(f"cannot read the checkpoint ({what}): give a state dict, or its file")
    return checkpoint
