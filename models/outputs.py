"""SavedOutputs: what a trained classifier hands to the explainers, `model/saved_outputs.npz`.

Letters: n training points, m test points, d features of the last hidden layer.
"""

import hashlib
import tempfile
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from config import MODELS, UserError, base_folder, shown
from models.checksums import training_of
from models.files import load_npz, save_npz
from models.folders import STEP, holding

MODEL_FILES = {"CNN": "resnet20.pt", "RNN": "lstm.pt", "Xgboost": "xgb.ubj"}  # beside the saved outputs
ALIKE = 0.05  # by how much the features of the same points may differ, for the sake of bfloat16 and other devices


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
    training       the fingerprint of the training whose outputs they are, None where it is unknown.
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
    training: str | None = None

    @classmethod
    def of_head(cls, train, test, fc):
        """From the last layer of a torch network.

        train, test: (features (n,d), logits (n,), labels (n,)), CPU tensors. fc: the linear layer, (d,) to one logit.
        """
        parts, accuracies = [], []
        for features, logits, labels in (train, test):
            p, labels = logits.sigmoid(), labels.long()
            accuracies.append(((p > 0.5) == (labels == 1)).double().mean().item())
            parts += [tensor.numpy() for tensor in (features, p, labels, logits)]
        weight, bias = (None if p is None else p.detach().float().cpu().numpy() for p in (fc.weight, fc.bias))
        return cls(*parts, weight, *accuracies, bias=bias)

    def save(self, path, training=None):
        """Write the arrays, whole or not at all. training: whose outputs they are, where that is not said yet."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "training"}
        there = {name: array for name, array in arrays.items() if array is not None}
        save_npz(path, **there, training=training or self.training)

    @classmethod
    def load(cls, path, remedy):
        """Read and check; raises UserError, ending in `remedy`, for whatever an explainer could not work with."""
        names = [f.name for f in fields(cls) if f.name not in ("bias", "training")]
        outputs = cls(**load_npz(path, names, remedy, optional=["bias"]), training=training_of(path))
        return outputs.checked(path, remedy)

    def checked(self, source, remedy):
        """The same outputs with `pred_*` and `labels_*` of shape (n,), after every check that explainers rely on."""

        def refuse(problem):
            raise UserError(f"{shown(source)}: {problem}: {remedy}")

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["weight"] = _finite(self.weight, "weight", refuse)
        if not values["weight"].size:
            refuse("weight is empty")
        if self.bias is not None:
            values["bias"] = _one(self.bias, "bias", refuse)
        for part in _PARTS:
            values[f"{part}_accuracy"] = float(_one(values[f"{part}_accuracy"], f"{part}_accuracy", refuse)[0])
            values |= self._checked_part(part, values["weight"].size, refuse)
        if np.unique(values["labels_train"]).size < 2:
            refuse(f"labels_train holds only {np.unique(self.labels_train).tolist()}, expected both classes, 0 and 1")
        return SavedOutputs(**values)

    def _checked_part(self, part, d, refuse):
        """The features, predictions and labels of the training or the test points."""
        f, pred, labels = (_finite(getattr(self, f"{name}_{part}"), f"{name}_{part}", refuse) for name in _CHECKED)
        if f.ndim != 2 or f.shape[1] != d:
            refuse(f"intermediate_{part} has shape {f.shape}, expected (points, {d}) as weight has")
        if not len(f):
            refuse(f"there are no {part} points")
        for name, array in (("labels", labels), ("pred", pred)):
            if array.size != len(f):
                refuse(f"{name}_{part} has shape {array.shape}, expected {len(f)} values, one for each point")
        if not np.isin(labels, (0, 1)).all():
            refuse(f"labels_{part} holds {np.setdiff1d(labels, (0, 1))[:3].tolist()}, expected only 0 and 1")
        if ((pred < 0) | (pred > 1)).any():
            refuse(f"pred_{part} leaves [0, 1], expected probabilities of class 1")
        labels = labels.reshape(-1).astype(np.int64)
        return {f"intermediate_{part}": f, f"pred_{part}": pred.reshape(-1), f"labels_{part}": labels}

    @cached_property
    def fingerprint(self):
        """A hash of what the explainers read, by which weights know the outputs that they were made from."""
        arrays = (np.ascontiguousarray(getattr(self, f"{name}_{part}")) for part in _PARTS for name in _CHECKED)
        digest = hashlib.sha256()
        head = (array for array in (self.weight, self.bias) if array is not None)
        for array in (*arrays, *map(np.ascontiguousarray, head)):
            digest.update(array)
        return digest.hexdigest()[:16]


def _finite(array, name, refuse):
    """`array` in float32, float64 or int64 of this machine, if it holds finite real numbers."""
    array = np.asarray(array)
    if array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.floating):
        refuse(f"{name} holds {array.dtype}, expected real numbers")
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0]
        refuse(f"{name} has a NaN or infinity" + (f" in row {where[0]}" if where.size else ""))
    return array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32, copy=False)


def _one(array, name, refuse):
    """One finite number, (1,)."""
    array = _finite(array, name, refuse)
    if array.size != 1:
        refuse(f"{name} has shape {array.shape}, expected one number")
    return array.reshape(1)


_PARTS = ("train", "test")
_CHECKED = ("intermediate", "pred", "labels")


def spread(n, number):
    """At most `number` of n places, as far apart as can be."""
    return np.linspace(0, n - 1, min(n, number)).astype(int)


def difference(found, known):
    """How far features are from the known ones: the largest difference as a share of the largest known value."""
    return np.abs(found - known).max() / max(1e-12, np.abs(known).max())


def outputs_path(folder):
    """Where a run folder keeps its saved outputs."""
    return Path(folder) / "model" / "saved_outputs.npz"


def models_there(folder):
    """The names of the models whose network or trees a run folder holds."""
    return [name for name, file in MODEL_FILES.items() if (Path(folder) / "model" / file).exists()]


def settled(folder):
    """The folder of a run, in which a step that was killed is finished.

    Raises UserError where another process is at it, or the folder cannot be written.
    """
    if (Path(folder) / STEP).exists():
        with holding(folder, "a step that was killed"):
            pass
    return Path(folder)


def same_training(known, other, what, path, remedy):
    """Raise UserError, ending in `remedy`, where two fingerprints of trainings are known and differ.

    what, path: of the second one.
    """
    if known is not None and other is not None and known != other:
        raise UserError(f"{shown(path)}: {what} of another training than saved_outputs.npz: {remedy}")


def open_run(folder):
    """Before a training: say that it replaces the model of a run folder, if there is one.

    Raises OSError where nothing can be written there, which is better known before.
    """
    model = outputs_path(folder).parent
    model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=model):
        pass
    if outputs_path(folder).exists():
        print(f"{shown(folder)} has a model: this training replaces it at its end; calculate its weights again then")


def load_outputs(folder, model):
    """The saved outputs of a run folder of `model`.

    Raises UserError where they are missing or unusable, with how to make them, or where the folder is another model's.
    """
    folder = settled(folder)
    there = models_there(folder)
    if there and model not in there:
        raise UserError(f"{shown(folder)} holds a model of --model {there[0]}, got {model}: give that one")
    remedy = "train that model first, or give another --saved_path"
    remedy = f"run {MODELS[model]} first" if folder == base_folder(model) else remedy
    outputs, network = SavedOutputs.load(outputs_path(folder), remedy), folder / "model" / MODEL_FILES[model]
    same_training(outputs.training, training_of(network), "it is", network, f"run {MODELS[model]} again")
    return outputs
