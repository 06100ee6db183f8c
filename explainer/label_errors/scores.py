"""Scores of suspicion beside the published ones: one function each, and the registry that commands find them in.

Each score is a function of the moments of one training, the last one last: what the head saw, and the head, after some
epochs (or rounds) of the training. The larger, the more suspicious the label. Letters as in
`explainer.attribution.heads`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from config import UserError
from explainer.attribution import RPSLJE, InfluenceFunction
from explainer.attribution.heads import Head
from explainer.attribution.rows import MEMORY
from explainer.label_errors.columns import numbers, plain
from explainer.label_errors.duplicates import duplicates
from explainer.label_errors.noise import RIDGES, ROUNDS, doubted

DAMPING = 1e-3  # of the mean eigenvalue of the Hessian: added to it, since a head that fits everything has none


class Moment(NamedTuple):
    """The training points at one moment. features (n,d); labels (n,), 0 ... C-1; weight (C,d) or (1,d); bias or None.
    Before the training there may be no head yet: then the weight is zeros.

    time: the epoch or round, for figures. left_out: the points' logits (n,C), or (n,1) of two classes, without their
    own labels, where the model knows them better than its last layer does, as `left_out_margins` of boosted trees.
    """

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None = None
    time: float = 0.0
    left_out: np.ndarray | None = None

    @classmethod
    def of(cls, outputs, time=0.0):
        """From `models.outputs.SavedOutputs`."""
        return cls(outputs.intermediate_train, outputs.labels_train, outputs.weight, outputs.bias, time)

    @classmethod
    def of_head(cls, features, labels, fc, time=0.0):
        """From tensors and the linear layer behind them, a torch module."""
        weight, bias = (None if p is None else p.detach().float().cpu().numpy() for p in (fc.weight, fc.bias))
        features = features.detach().cpu()
        features = features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
        return cls(features.numpy(), labels.detach().cpu().long().numpy(), weight, bias, time)

    def checked(self):
        """The same as arrays, of any tensors, arrays or tables. Raises UserError for what does not fit together."""
        labels = plain(self.labels, "labels")
        features = numbers(self.features, "features", len(labels), keep=True)
        weight = np.atleast_2d(plain(self.weight, "the head's weight"))
        bias = None if self.bias is None else plain(self.bias, "the head's bias").reshape(-1)
        C = max(2, len(weight))
        if labels.ndim != 1 or not ((labels >= 0) & (labels < C) & (labels == np.floor(labels))).all():
            raise UserError(f"labels {labels.shape}: give whole numbers from 0 to {C - 1}, one for each point")
        if weight.shape[1] != features.shape[1] or (bias is not None and len(bias) != len(weight)):
            shapes = f"a weight {weight.shape}" + ("" if bias is None else f" and {len(bias)} biases")
            raise UserError(f"the head has {shapes} for {features.shape[1]} features: give (C, d) and (C,)")
        left_out = None if self.left_out is None else numbers(self.left_out, "left_out", len(labels))
        return self._replace(
            features=features, labels=labels.astype(np.int64), weight=weight, bias=bias, left_out=left_out
        )

    def scaled(self):
        """The same head of features of mean square 1 each, centred where it has a bias: its logits are the same."""
        F = self.features.astype(np.float64)
        origin = F[0] + (F - F[0]).mean(0) if self.bias is not None else np.zeros(F.shape[1])
        F -= origin
        scale = np.abs(F).max(0)
        scale[scale <= 4 * np.finfo(float).eps * np.abs(origin)] = 0.0
        live = scale > 0
        F = F[:, live] / scale[live]
        size = np.sqrt(np.square(F).mean(0))
        weight = self.weight.astype(float)
        bias = None if self.bias is None else self.bias + weight @ origin
        F, weight = F / size, weight[:, live] * scale[live] * size
        if not F.shape[1]:
            F, weight = np.zeros((len(F), 1)), np.zeros((len(weight), 1))
        return self._replace(features=F.astype(self.features.dtype, copy=False), weight=weight, bias=bias)

    @property
    def classes(self):
        """C: those that the head tells apart."""
        C = len(np.atleast_2d(self.weight))
        return 2 if C == 1 else C

    @property
    def has_head(self):
        """Whether there is a head yet."""
        return bool(self.weight.any())

    def explainer(self, method, **settings):
        """A method of `explainer.attribution` on this head."""
        return method.from_arrays(self.features, self.labels, self.weight, self.bias, **settings)


def loss(moments):
    """The cross-entropy of the given label: large where the network contradicts it. Small-loss selection's score."""
    head, F = _head(moments[-1])
    return head.losses(head.logits(F), head.targets(torch.as_tensor(moments[-1].labels))).numpy()


def probabilities(moment):
    """The probabilities (n,C) of the classes by the head itself."""
    head, F = _head(moment)
    P = head.probabilities(head.logits(F)).numpy()
    return np.stack([1 - P[:, 0], P[:, 0]], 1) if P.shape[1] == 1 else P


def own_probabilities(moments):
    """The probabilities (k,n,C) by the heads of the moments, or None where fewer than two have one."""
    heads = [moment for moment in moments if moment.has_head]
    return np.stack([probabilities(moment) for moment in heads]) if len(heads) > 1 else None


def leave_one_out_loss(moments):
    """The cross-entropy of the given label by the head fitted without the point and its copies, in closed form.

    As `Expansion.leave_one_out` of the last head: one factorization, no refit.
    """
    probability, labels = leave_one_out(moments[-1]), moments[-1].labels
    return -np.log(probability[np.arange(len(labels)), labels].clip(1e-300))


def leave_one_out(moment):
    """The probabilities (n,C) of every point by the head fitted without it and without its copies.

    By `left_out` where that is given. The Hessian is damped by a share of its mean eigenvalue, of features that have
    been brought to the same size, so that no column's unit matters.
    """
    if moment.left_out is not None:
        z = moment.left_out.astype(float)
        return softmax(np.column_stack([np.zeros(len(z)), z]) if z.shape[1] == 1 else z, axis=1)
    ids = duplicates(moment.features, dtype=_precision(moment))
    moment = moment.scaled()
    head, F = _head(moment)
    P = head.probabilities(head.logits(F))
    mean = float((P * (1 - P)).sum(1) @ F.square().sum(1)) / (len(F) * head.weight.numel())  # eigenvalue of H
    explainer = moment.explainer(InfluenceFunction, damping=max(DAMPING * mean, 1e-12))
    probability = head.probabilities(_without_copies(explainer, ids)).numpy()
    return np.column_stack([1 - probability, probability]) if probability.shape[1] == 1 else probability


def _without_copies(explainer, ids):
    """The logits (n,C) of `Expansion.leave_one_out`, of every point without all points of the same number (n,).

    z_-g = z_i - (I - s Q_i S_i)^-1 (f_i'H^-1 g - Q_i sum of r_j over its s copies j).
    """
    solver, head = explainer.solver, explainer.center
    newton, identity = explainer._step(explainer.gradient), torch.eye(head.C, dtype=torch.float64)
    groups = torch.from_numpy(ids)
    sizes = torch.bincount(groups)[groups].double()
    R = torch.cat([explainer.residuals(rows).double() for rows, _ in explainer.rows.blocks()])
    pulls = torch.zeros(int(groups.max()) + 1, head.C, dtype=torch.float64).index_add_(0, groups, R)[groups]
    logits = torch.empty_like(R)
    for rows, F in explainer.rows.blocks(8 * head.C * head.C):
        f = F.double()
        Q, S = solver.leverage(f) / explainer.n, head.curvature(explainer.P[rows].double(), identity)
        u = f @ newton - torch.einsum("bce,be->bc", Q, pulls[rows])
        corrected = torch.linalg.solve(identity - sizes[rows, None, None] * (Q @ S), u[:, :, None])
        logits[rows] = head.logits(f) - corrected[:, :, 0]
    return logits


def _precision(moment):
    """The precision that the features were rounded to, as torch knows it."""
    return getattr(torch, str(moment.features.dtype), None)


def _head(moment):
    """The `Head` and the rows (n,D) that it is given, in float64."""
    head = Head.of(moment.weight, moment.bias, torch.as_tensor(moment.labels))
    F = torch.as_tensor(moment.features).double()
    return head, torch.cat([F, F.new_ones(len(F), 1)], 1) if head.bias else F


def without_anchor(moments, lr=1e-5):
    """RPS-LJE's self-influence without the anchor's own logit, signed by the class.

    The published score is |w_i f_i| with n w_i f_i = theta_hat f_i - f_i'H^-1 f_i r_i. Its first part is the logit,
    large where the network is sure of a label; only the second says what the point does to itself, and its sign by the
    label is always the same: f_i'H^-1 f_i |r_i|, the leverage times the residual. Of a point with copies of its label
    it is what they do together. Features are brought to the same size first, so that no column's unit matters.
    """
    moment = moments[-1].scaled()
    explainer = moment.explainer(RPSLJE, lr=lr)
    found = []
    for rows, F in explainer.rows.blocks():
        E = explainer._directions(rows)
        found.append(-explainer.solver.quadratic(F, explainer.residuals(rows), E).double() / explainer.n)
    ids = duplicates(moments[-1].features, dtype=_precision(moment))
    copies = np.unique(np.column_stack([ids, moment.labels]), axis=0, return_inverse=True, return_counts=True)
    return torch.cat(found).numpy() * copies[2][copies[1].reshape(-1)]


def noise_model(moments, ridges=RIDGES, rounds=ROUNDS, memory_limit=MEMORY):
    """How improbable the given label is by a head that knows of label noise, over the whole training.

    At every moment `explainer.label_errors.noise.judged` fits the noise and a head to the features (to `left_out` where
    that is given) and to the labels of the nearest points, each point judged without itself, by every ridge. One half
    of the score is the mean of -log q_i(y_i) over all, weighted by how much of the labels each predicts
    (`explainer.label_errors.noise.information`).

    Why the mean finds the right moment by itself: a network learns what its data have in common before it memorizes the
    exceptions, so early features set wrong labels apart, and -log q is large for them; later features have given every
    exception a place of its own, and -log q is small for all. A sum of logarithms is therefore led by the moments at
    which the labels are doubted; those at which nothing is doubted add next to nothing. Those before anything is
    learned doubt at random, and predict little. So no moment has to be chosen.

    The other half, where there are several moments, is -log of the mean over them of the network's own probability of
    the given label, scaled to the same mean: a head that is trained lags behind one that is fitted anew, and where the
    features memorize from the first epoch on, as those of a network trained from nothing on few points do, the lag says
    more than the fit.
    """
    return proposed(moments, ridges, rounds, memory_limit)[0]


def proposed(moments, ridges=RIDGES, rounds=ROUNDS, memory_limit=MEMORY):
    """`noise_model`'s score (n,), and the classes (n,) that it takes for the right ones."""
    moments = [moment.checked() for moment in moments]
    last = moments[-1]
    sets, more = [moment.features for moment in moments], {"memory_limit": memory_limit}
    more["duplicates"] = duplicates(*sets, dtype=_precision(last))
    if last.left_out is not None:  # the features, leaves of trees that were grown for the labels, would give them away
        sets = [moment.left_out for moment in moments]
        more |= {"counts": (), "duplicates": duplicates(*(moment.features for moment in moments), *sets)}
    own = own_probabilities(moments)
    if own is not None:
        more["own"] = own.mean(0)
    score, probability = doubted(sets, last.labels, last.classes, ridges, rounds, **more)
    return score, probability.argmax(1)


@dataclass(frozen=True)
class Detector:
    """One score. key: in file names and --methods. label: in figures. score(moments) -> (n,).

    corrects: a checked point gets the label that the noise model proposes, instead of its true one.
    """

    key: str
    label: str
    score: Callable
    corrects: bool = False


DETECTORS = {
    detector.key: detector
    for detector in (
        Detector("loss", "Loss", loss),
        Detector("loo", "Leave-one-out loss", leave_one_out_loss),
        Detector("ours_signed", "RPS-LJE without the anchor", without_anchor),
        Detector("noise", "Noise model over the training", noise_model),
        Detector("repair", "Noise model, its own labels", noise_model, corrects=True),
    )
}


def scored(key, moments):
    """The suspicion (n,) by a detector's key. Raises UserError for an unknown one, and for moments that differ."""
    if key not in DETECTORS:
        raise UserError(f"detector is {key!r}: give one of {', '.join(DETECTORS)}")
    if not len(moments):
        raise UserError("got no moment of a training: give at least the last one")
    moments = [moment.checked() for moment in moments]
    for moment in moments[:-1]:
        if not np.array_equal(moment.labels, moments[-1].labels):
            raise UserError("the moments have different labels: give those of one training")
    return DETECTORS[key].score(moments)
