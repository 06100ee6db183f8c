"""SavedOutputs: what a trained classifier hands to the explainers, `model/saved_outputs.npz`.

Letters: n training points, m test points, d features of the last hidden layer.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from config import MODELS, UserError, shown
from models.files import load_npz, save_npz


@dataclass(frozen=True)
class SavedOutputs:
    """The last layer of a binary classifier, seen from every training and test point, in the data set's order.

    intermediate_* (n,d) and (m,d): the last hidden layer, the rows f_i.
    pred_*         (n,) and (m,): the model's probability of class 1.
    labels_*       (n,) and (m,): 0 or 1.
    outputs_*      the model's raw outputs, kept for the reader's own use; no explainer reads them.
    weight         (1,d): the last layer, so that sigmoid(weight @ f) is the head's probability of class 1.
    *_accuracy     share of points whose label is the predicted class.
    bias           (1,) or None: the last layer's bias, where it has one.
    """

    intermediate_train: np.ndarray
    pred_train: np.ndarray
    labels_train: np.ndarray
    outputs_train: np.ndarray
    intermediate_test: np.ndarray
    pred_test: np.ndarray
    labels_test: np.ndarray
    outputs_test: np.ndarray
    weight: np.ndarray
    train_accuracy: float
    test_accuracy: float
    bias: np.ndarray | None = None

    def save(self, path):
        """Write the arrays, whole or not at all."""
        save_npz(path, **{f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None})

    @classmethod
    def load(cls, path, remedy):
        """Read and check; raises UserError, ending in `remedy`, for whatever an explainer could not work with."""
        names = [f.name for f in fields(cls) if f.name != "bias"]
        outputs = cls(**load_npz(path, names, remedy, optional=["bias"]))
        return outputs.checked(path, remedy)

    def checked(self, source, remedy):
        """The same outputs with `pred_*` and `labels_*` of shape (n,), after every check that explainers rely on."""

        def refuse(problem):
            raise UserError(f"{shown(source)}: {problem}: {remedy}")

        values, d = {}, np.asarray(self.weight).size
        for part in _PARTS:
            f, labels, pred = (np.asarray(getattr(self, f"{name}_{part}")) for name in _CHECKED)
            if f.ndim != 2 or f.shape[1] != d:
                refuse(f"intermediate_{part} has shape {f.shape}, expected (points, {d}) as weight has")
            for name, array in (("labels", labels), ("pred", pred)):
                if array.size != len(f):
                    refuse(f"{name}_{part} has shape {array.shape}, expected {len(f)} values, one for each point")
            for name, array in ((f"intermediate_{part}", f), (f"pred_{part}", pred)):
                if not np.issubdtype(array.dtype, np.number):
                    refuse(f"{name} holds {array.dtype}, expected numbers")
                if not np.isfinite(array).all():
                    row = int(np.argwhere(~np.isfinite(array.reshape(len(f), -1)))[0, 0])
                    refuse(f"{name} has a NaN or infinity in row {row}")
            if not np.isin(labels, (0, 1)).all():
                refuse(f"labels_{part} holds {np.setdiff1d(labels, (0, 1))[:3].tolist()}, expected only 0 and 1")
            if part == "train" and np.unique(labels).size < 2:
                refuse(f"labels_train holds only {np.unique(labels).tolist()}, expected both classes, 0 and 1")
            if ((pred < 0) | (pred > 1)).any():
                refuse(f"pred_{part} leaves [0, 1], expected probabilities of class 1")
            values |= {f"labels_{part}": labels.reshape(-1).astype(np.int64), f"pred_{part}": pred.reshape(-1)}
        if not np.isfinite(self.weight).all():
            refuse("weight has a NaN or infinity")
        if self.bias is not None:
            values["bias"] = np.asarray(self.bias).reshape(1)
        values |= {f"{part}_accuracy": float(getattr(self, f"{part}_accuracy")) for part in _PARTS}
        return SavedOutputs(**{**vars(self), **values})


_PARTS = ("train", "test")
_CHECKED = ("intermediate", "labels", "pred")


def outputs_path(folder):
    """Where a run folder keeps its saved outputs."""
    return Path(folder) / "model" / "saved_outputs.npz"


def load_outputs(folder, model):
    """The saved outputs of a run folder of `model`; the error for a missing one names the training command."""
    return SavedOutputs.load(outputs_path(folder), f"run {MODELS[model]} first")
