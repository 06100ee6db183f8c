"""The registry of methods: what each computes, which file holds it, and how its weights are read.

A method is one `Method`; commands, experiments, figures and notebooks all find it here by its key.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from config import UserError
from explainer.influence import influence_function, loss_gradients
from explainer.rps_l2 import rps_l2
from explainer.rps_lje import rps_lje
from models.arrays import Array


class Points(NamedTuple):
    """The tensors of saved outputs, on the computing device: shapes as in `models.outputs.SavedOutputs`."""

    F: torch.Tensor
    y: torch.Tensor
    pred: torch.Tensor
    F_test: torch.Tensor
    y_test: torch.Tensor
    pred_test: torch.Tensor
    theta: torch.Tensor


def points(outputs, device="cpu", bias="ignore"):
    """`outputs` as tensors. bias: "ignore" it (the published way), or "append" it as the weight of a constant feature.

    Raises UserError where the bias is to be appended and the model saved none.
    """

    def tensor(array):
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    F, F_test, theta = outputs.intermediate_train, outputs.intermediate_test, outputs.weight.reshape(-1)
    if bias == "append":
        if outputs.bias is None:
            raise UserError("--bias append: the saved outputs hold no bias; this head has none, use --bias ignore")
        F, F_test = (np.concatenate([f, np.ones((len(f), 1), f.dtype)], 1) for f in (F, F_test))
        theta = np.concatenate([theta, outputs.bias.astype(theta.dtype)])
    F, F_test = (f if f.dtype in (np.float32, np.float64) else f.astype(np.float32) for f in (F, F_test))
    train = tensor(F), tensor(outputs.labels_train), tensor(outputs.pred_train)
    return Points(*train, tensor(F_test), tensor(outputs.labels_test), tensor(outputs.pred_test), tensor(theta))


class Weights(NamedTuple):
    """arrays: what the method's file holds, in its published shapes. parameters (d,): what they sum to."""

    arrays: dict
    parameters: torch.Tensor


@dataclass(frozen=True)
class Method:
    """One method of explanation.

    key: in file names and --methods. label: in figures and tables.
    file: the name of its weights below calculated_weights/, a format string over its settings.
    arrays: the arrays in that file, with their published shapes: n training points, m test points, d parameters.
    settings: the names of the parameters that its weights depend on, damping, rcond and bias aside.
    compute(points, **settings) -> Weights.
    suspicion(arrays) -> (n,): the larger, the more suspicious the label of the training point.
    shares(arrays, F_train, F_test, label) -> (n,k): how much each training point speaks for class `label[t]` of each
    test point t, in the unit of the method (a logit, or a loss); the larger, the better the explanation.
    """

    key: str
    label: str
    file: str
    arrays: dict[str, Array]
    settings: tuple[str, ...]
    compute: Callable
    suspicion: Callable
    shares: Callable

    def importance(self, arrays, outputs, tests):
        """How much each training point supports each test point in `tests`, (n,k); larger is better.

        arrays: a loaded weights file. outputs: the SavedOutputs that it was made from. tests: k test points. A test
        point's class is its label, as published.
        """
        tests = np.atleast_1d(tests)
        F_train, F_test = outputs.intermediate_train, outputs.intermediate_test[tests]
        if arrays["settings"].get("bias") == "append":
            F_train, F_test = (np.concatenate([f, np.ones((len(f), 1), f.dtype)], 1) for f in (F_train, F_test))
        return self.shares({**arrays, "tests": tests}, F_train, F_test, outputs.labels_test[tests])

    def importance_of(self, arrays, outputs, F_test, labels):
        """As `importance`, for k test points that were not saved: features F_test (k,d), classes labels (k,)."""
        new = replace(outputs, intermediate_test=F_test, labels_test=labels)
        if "jaccobian_test" in arrays:
            head = points(new, bias=arrays["settings"].get("bias", "ignore"))
            gradients = loss_gradients(head.F_test, head.y_test, head.theta)
            arrays = {**arrays, "jaccobian_test": gradients.numpy()[:, None, :]}
        return self.importance(arrays, new, np.arange(len(labels)))


def _compute_ours(points, lr, **more):
    result = rps_lje(points.F, points.y, points.theta, lr, **more)
    arrays = {"weight_matrix": result.weight_matrix[:, None, :], "self_influence": result.self_influence}
    return Weights(arrays, result.parameters)


def _compute_influence(points, **more):
    result = influence_function(points.F, points.y, points.theta, **more)
    arrays = {
        "weight_matrix": result.weight_matrix[:, :, None],
        "self_influence": result.self_influence[:, None, None],
        "jaccobian_test": loss_gradients(points.F_test, points.y_test, points.theta)[:, None, :],
    }
    return Weights(arrays, result.parameters)


def _compute_rep(points, lmbd, epoch, **more):
    result = rps_l2(points.F, points.pred, points.theta, lmbd, epoch, **more)
    return Weights({"weight_matrix": result.alpha[:, None]}, result.parameters)


def _sign(label):
    """+1 for class 1, -1 for class 0: the published order is descending for the one, ascending for the other."""
    return np.where(label == 1, 1.0, -1.0)


def _reals(**shapes):
    return {name: Array("f", (shape,)) for name, shape in shapes.items()}


METHODS = {
    method.key: method
    for method in (
        Method(
            key="ours",
            label="RPS-LJE",
            file="ours_weight_matrix_with_lr_{lr}.npz",
            arrays=_reals(weight_matrix=("n", 1, "d"), self_influence=("n",)),
            settings=("lr",),
            compute=_compute_ours,
            suspicion=lambda a: np.abs(a["self_influence"].reshape(-1)),
            shares=lambda a, F_train, F_test, label: a["weight_matrix"][:, 0, :] @ F_test.T * _sign(label),
        ),
        Method(
            key="IF",
            label="Influence function",
            file="influence_weight_matrix.npz",
            arrays=_reals(weight_matrix=("n", "d", 1), self_influence=("n", 1, 1), jaccobian_test=("m", 1, "d")),
            settings=(),
            compute=_compute_influence,
            suspicion=lambda a: a["self_influence"].reshape(-1),
            shares=lambda a, *_: -a["weight_matrix"][:, :, 0] @ a["jaccobian_test"][a["tests"], 0].T,
        ),
        Method(
            key="rep",
            label="RPS-l2",
            file="representer_weight_matrix.npz",
            arrays=_reals(weight_matrix=("n", 1)),
            settings=("lmbd", "epoch"),
            compute=_compute_rep,
            suspicion=lambda a: np.abs(a["weight_matrix"].reshape(-1)),
            shares=lambda a, F_train, F_test, label: a["weight_matrix"] * (F_train @ F_test.T) * _sign(label),
        ),
    )
}
