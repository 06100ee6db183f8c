"""The linear head and its loss: predictions, residuals and curvature, for classes, many labels, or numbers.

Letters, for the whole package: F (n,D) rows f_i, the last hidden layer, with a constant 1 where the head has a bias;
Theta (D,C) the head; Z = F Theta its logits, P (n,C) its probabilities, Y (n,C) the labels; R = P - Y, so that the
gradient of point i's loss is f_i r_i' (D,C); S_i (C,C) the curvature of its loss in the logits, so that the Hessian of
the mean loss is H = mean over i of (S_i (x) f_i f_i'). Of a point with the weight w_i they are w_i r_i and w_i S_i.

| head | C | P | S_i |
| --- | --- | --- | --- |
| binary | 1 | sigmoid | p(1-p) |
| multiclass | classes | softmax | diag(p) - p p' |
| multilabel | labels | sigmoid | diag(p(1-p)) |
| regression | outputs | z itself | I |

The loss of a regression is 1/2 |z - y|^2, half of torch's sum of squares; "logits" are its outputs there. With label
smoothing s, Y of softmax is (1 - s) y + s/C, and of one logit (1 - s) y + s/2.

Softmax does not change when one vector is added to all columns of Theta, so H is singular in that direction, and every
gradient is orthogonal to it. `basis` spans the rest, in which H is regular if the features are.
"""

import torch
from torch.nn.functional import one_hot

from config import UserError
from explainer.attribution.checks import tensor

KINDS = ("binary", "multiclass", "multilabel", "regression")
TARGETS = ("predicted", "label")


class Head:
    """weight: Theta (D,C), float64. kind: of KINDS. bias: whether its last row is one.

    offset (C,): added to the logits and not explained, a bias that is left out of the decomposition.
    smoothing: of the labels, in [0, 1). separate: whether every logit has a loss of its own. classes: how many classes
    one can ask for; the outputs of a regression.
    """

    def __init__(self, weight, kind, bias, offset=None, smoothing=0.0):
        self.weight, self.kind, self.bias, self.smoothing = weight, kind, bias, smoothing
        self.separate = kind in ("multilabel", "regression")
        self.offset = weight.new_zeros(weight.shape[1]) if offset is None else offset
        self.D, self.C = weight.shape
        self.classes = 2 if kind == "binary" else self.C

    @classmethod
    def of(cls, weight, bias, labels, kind="auto", device="cpu", intercept=True, smoothing=0.0):
        """From arrays as nn.Linear and scikit-learn hold them: weight (C,d) or (d,), bias (C,) or None.

        intercept: explain the bias as well; else it is the offset.

        kind "auto": binary for one logit, multilabel for labels (n,C), else multiclass. Raises UserError for arrays
        that do not fit.
        """
        weight = torch.atleast_2d(tensor(weight, "the head's weight")).to(device, torch.float64)
        if weight.ndim != 2 or not weight.numel():
            raise UserError(f"the head's weight has the shape {tuple(weight.shape)}: give (classes, features)")
        C, offset = len(weight), None
        if kind == "auto" and C > 1 and labels.ndim == 2 and bool((labels.sum(1) - 1).abs().max() < 1e-3):
            what = "one-hot" if bool(((labels == 0) | (labels == 1)).all()) else "like shares of the classes"
            raise UserError(f"the labels look {what}: give class numbers (n,), or head='multilabel' if they are not")
        if kind == "auto":
            kind = "binary" if C == 1 else "multilabel" if labels.ndim == 2 and labels.shape[1] == C else "multiclass"
        if kind not in KINDS:
            raise UserError(f"head is {kind!r}: give one of {', '.join(KINDS)}, or auto")
        if kind != "regression" and (kind == "binary") != (C == 1):
            raise UserError(f"head {kind} with {C} logits: a binary head has one, the others have several")
        if smoothing and kind not in ("binary", "multiclass"):
            raise UserError(f"label_smoothing of a {kind} head: it is for heads with one class for each point")
        if bias is not None:
            bias = tensor(bias, "the head's bias").to(device, torch.float64).reshape(-1)
            if len(bias) != C:
                raise UserError(f"the head has {C} logits and {len(bias)} biases: give as many")
            if not torch.isfinite(bias).all():
                raise UserError("the head's bias holds numbers that are not finite: train the model again")
            weight, offset = (torch.cat([weight, bias[:, None]], 1), None) if intercept else (weight, bias)
        if not torch.isfinite(weight).all():
            raise UserError("the head's weight holds numbers that are not finite: train the model again")
        return cls(weight.T.contiguous(), kind, bias is not None and intercept, offset, smoothing)

    def at(self, weight):
        """The same head with other parameters (D,C)."""
        return Head(weight, self.kind, self.bias, self.offset, self.smoothing)

    def logits(self, F):
        """Z (n,C) of features F (n,D), in their precision."""
        return F @ self.weight.to(F.dtype) + self.offset.to(F.dtype)

    def probabilities(self, Z):
        """P (n,C) from the logits Z (n,C); of a regression Z itself."""
        if self.kind == "regression":
            return Z
        return Z.softmax(1) if self.kind == "multiclass" else Z.sigmoid()

    def check(self, labels):
        """Raise UserError for labels that are not (n,) classes, (n,C) zeros and ones, or a regression's numbers."""
        if self.kind == "regression":
            fits = labels.shape[1:] == (self.C,) or (self.C == 1 and labels.ndim == 1)
            shape, allowed, wanted = f"(n, {self.C})", torch.isfinite(labels), "finite numbers"
        elif self.kind == "multilabel":
            fits = labels.ndim == 2 and labels.shape[1] == self.C
            shape, allowed, wanted = f"(n, {self.C})", (labels == 0) | (labels == 1), "0 and 1"
        else:
            fits = labels.ndim == 1 or labels.shape[1:] == (1,)
            allowed = (labels >= 0) & (labels < self.classes) & (labels == labels.floor())
            shape, wanted = "one class for each point, (n,)", f"whole numbers from 0 to {self.classes - 1}"
        if not fits:
            raise UserError(f"labels have the shape {tuple(labels.shape)}: give {shape} for this {self.kind} head")
        if not allowed.all():
            row = int((~allowed).reshape(len(labels), -1).any(1).nonzero()[0, 0])
            other = "" if self.kind == "regression" else ", or head='regression' where they are numbers to be predicted"
            raise UserError(f"the label of row {row} is {labels[row].tolist()}: give {wanted}{other}")

    def targets(self, labels, dtype=torch.float64):
        """Y (n,C) from labels (n,), or (n,C) of a head with many labels or outputs."""
        if self.kind == "multiclass":
            Y = one_hot(labels.reshape(len(labels)).long(), self.C).to(dtype)
        else:
            Y = labels.reshape(len(labels), self.C).to(dtype)
        return Y if not self.smoothing else (1 - self.smoothing) * Y + self.smoothing / max(2, self.C)

    def predicted(self, Z):
        """The predicted class (n,) of logits (n,C); of a multilabel head the most probable label.

        Of a regression its one output. Raises UserError for one of several outputs.
        """
        if self.kind == "regression":
            if self.C > 1:
                raise UserError(f"the regression has {self.C} outputs: give target= the number of one, from 0")
            return Z.new_zeros(len(Z), dtype=torch.long)
        return (Z[:, 0] > 0).long() if self.kind == "binary" else Z.argmax(1)

    def explained(self, Z, labels, target):
        """The classes (m,) that are explained of test points with logits Z (m,C) and labels (m,) or None.

        target: "predicted", "label", one class, or a class for each.
        """
        m = len(Z)
        if isinstance(target, str):
            if target not in TARGETS:
                raise UserError(f"target is {target!r}: give {', '.join(TARGETS)}, or classes")
            if target == "predicted":
                return self.predicted(Z)
            if labels is None:
                raise UserError('target is "label", and the test points have none: give (features, labels)')
            if self.kind == "multilabel":
                raise UserError("a test point has many labels: give the target as one class for each")
            if self.kind == "regression":
                raise UserError('target is "label": of a regression give the number of an output, from 0')
            if len(labels) != m:
                raise UserError(f"got {m} test points and {len(labels)} labels: give as many of each")
            target = labels
        classes = tensor(target, "target").to(Z.device).reshape(-1)
        classes = classes if classes.is_floating_point() else classes.long()
        classes = classes.expand(m) if len(classes) == 1 else classes
        if len(classes) != m or ((classes < 0) | (classes >= self.classes) | (classes != classes.long())).any():
            raise UserError(
                f"target: give a class from 0 to {self.classes - 1} for each of {m} test points, or one for all"
            )
        return classes.long()

    def wanted(self, Z, labels, target):
        """The labels (m,C) that the loss of a regression is taken at, for test points with outputs Z (m,C).

        target: "label" or "predicted" for `labels`; or the labels themselves, (m,), (m,C), or one number.
        """
        if isinstance(target, str):
            if target not in TARGETS:
                raise UserError(f"target is {target!r}: give label, or the labels themselves")
            if labels is None:
                raise UserError("the loss of a regression needs labels of the test points: give (features, labels)")
            target = labels
        Y = tensor(target, "target").to(Z.device, torch.float64)
        Y = Y.reshape(-1, 1).expand(-1, self.C) if Y.ndim < 2 and (Y.numel() == 1 or self.C == 1) else Y
        Y = Y.expand(len(Z), -1) if Y.ndim == 2 and len(Y) == 1 else Y
        if Y.shape != Z.shape or not torch.isfinite(Y).all():
            raise UserError(
                f"target: got labels {tuple(Y.shape)}, give finite ones for {len(Z)} points, {tuple(Z.shape)}"
            )
        return Y

    def directions(self, classes, dtype=torch.float64):
        """The class's logit as a direction (m,C) in the logits: its unit vector; for a binary head +1 or -1."""
        if self.kind == "binary":
            return (2 * classes - 1).to(dtype)[:, None]
        return one_hot(classes, self.C).to(dtype)

    def own(self, labels, dtype=torch.float64):
        """What a point's own label says of its logits, (n,C): the logit of its class.

        Of many labels +1 for those it has and -1 for the others; of a regression 1 for every output.
        """
        if self.kind == "regression":
            return torch.ones(len(labels), self.C, dtype=dtype, device=labels.device)
        if self.kind == "multilabel":
            return 2 * labels.to(dtype) - 1
        return self.directions(labels.reshape(len(labels)).long(), dtype)

    def residuals(self, P, classes):
        """The gradient (m,C), in the logits P (m,C) come from, of the loss of these classes (m,) being the labels.

        Of a multilabel head: of the loss of that label alone, being 1. Of a regression `classes` are labels (m,C).
        """
        if self.kind == "regression":
            return P - classes.to(P.dtype)
        if self.kind == "binary":
            return P - classes.to(P.dtype)[:, None]
        chosen = one_hot(classes, self.C).to(P.dtype)
        return (P - 1) * chosen if self.kind == "multilabel" else P - chosen

    def losses(self, Z, Y):
        """The loss (n,) of logits Z (n,C) against targets Y (n,C), which may be probabilities."""
        if self.kind == "regression":
            return (Z - Y).square().sum(1) / 2
        if self.kind == "multiclass":
            return Z.logsumexp(1) * Y.sum(1) - (Z * Y).sum(1)
        return (torch.nn.functional.softplus(Z) - Y * Z).sum(1)

    def basis(self):
        """Q (C,K) with orthonormal columns: where the loss is curved. K = C - 1 for softmax, else C."""
        identity = torch.eye(self.C, dtype=torch.float64, device=self.weight.device)
        if self.kind != "multiclass":
            return identity
        ones = torch.ones(self.C, 1, dtype=torch.float64, device=self.weight.device)
        return torch.linalg.qr(torch.cat([ones, identity[:, :-1]], 1))[0][:, 1:]

    def slopes(self, P):
        """The diagonals of S_i (n,C) where it has nothing else: of every head but softmax."""
        return torch.ones_like(P) if self.kind == "regression" else P * (1 - P)

    def traces(self, P):
        """The trace (n,) of S_i for P (n,C)."""
        return 1 - P.square().sum(1) if self.kind == "multiclass" else self.slopes(P).sum(1)

    def curved(self, P, U):
        """S_i u_i for vectors U (b,C,...) of the logits: the rows of P (b,C) each with their own."""
        P = P.reshape(*P.shape, *[1] * (U.ndim - 2))
        if self.kind == "multiclass":
            return P * (U - (P * U).sum(1, keepdim=True))
        return self.slopes(P) * U

    def curvature(self, P, Q):
        """Q'S_iQ (b,K,K) for the rows of P (b,C)."""
        Q = Q.to(P.dtype)
        if self.kind == "multiclass":
            PQ = P @ Q
            return torch.einsum("bc,ca,ck->bak", P, Q, Q) - PQ[:, :, None] * PQ[:, None, :]
        return torch.diag_embed(self.slopes(P))
