"""The features of a model over a loader: what its last linear layer is given, gathered by a hook."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from config import UserError
from models.files import load_json, save_json, save_npy

SHARD = 2**24  # entries of a file in a cache: 64 MB
TOLERANCE = 1e-3  # of the logits that the layer reproduces, against the largest logit


class Points(NamedTuple):
    """What is expanded: features (n,d) as any source of `Rows`, labels, and the head as nn.Linear holds it."""

    features: object
    labels: object
    weight: torch.Tensor
    bias: torch.Tensor | None


def head_of(model, layer=-1):
    """The linear layer by name or by its number among the linear layers, and its name.

    Raises UserError, with the names of the linear layers, where there is no such layer or it is not linear.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    known = ", ".join(linear) or "none"
    if isinstance(layer, int):
        names = list(linear)
        if not -len(names) <= layer < len(names):
            raise UserError(f"layer {layer} does not exist: the linear layers are {known}")
        name = names[layer]
        return linear[name], name
    modules = dict(model.named_modules())
    if layer not in modules:
        raise UserError(f"layer {layer!r} does not exist: the linear layers are {known}")
    if layer not in linear:
        raise UserError(
            f"layer {layer!r} is {type(modules[layer]).__name__}, not linear: the linear layers are {known}"
        )
    return linear[layer], layer


def batches(loader):
    """(inputs, labels or None) of a loader: of tuples (inputs..., labels), dictionaries with `labels`, or tensors."""
    for batch in loader:
        if isinstance(batch, dict):
            labels = batch.get("labels", batch.get("label"))
            yield {name: value for name, value in batch.items() if name not in ("labels", "label")}, labels
        elif isinstance(batch, (tuple, list)):
            *inputs, labels = batch if len(batch) > 1 else (*batch, None)
            yield inputs, labels
        else:
            yield [batch], None


def _moved(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(item, device) for item in value)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value


class Features:
    """A model's head, and the features that it is given. The model is left as it was, after an error as well."""

    def __init__(self, model, layer=-1):
        self.model = model
        self.head, self.layer = head_of(model, layer)
        self.device = self.head.weight.device

    def batches(self, loader, digest=None):
        """(features (b,d), labels or None) for each batch of a loader, on the model's device, in evaluation mode.

        digest: a hash that all inputs and labels are added to.

        Raises UserError where the head is not the last operation of the model, or sees anything but one row a point.
        """
        seen = []
        handle = self.head.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.eval()
            for inputs, labels in batches(loader):
                seen.clear()
                if digest is not None:
                    _hash((inputs, labels), digest)
                with torch.no_grad():
                    inputs = _moved(inputs, self.device)
                    output = self.model(**inputs) if isinstance(inputs, dict) else self.model(*inputs)
                self._check(seen, getattr(output, "logits", output))
                yield seen[0][0].detach(), labels
        finally:
            handle.remove()
            for module, mode in modes:
                module.training = mode

    def _check(self, seen, output):
        if len(seen) != 1:
            raise UserError(f"layer {self.layer} ran {len(seen)} times in one pass of the model: explain another layer")
        features, logits = seen[0]
        if features.ndim != 2:
            raise UserError(
                f"layer {self.layer} is given {tuple(features.shape)}: it must see one row for each point; wrap a data "
                "set in a DataLoader"
            )
        if not isinstance(output, torch.Tensor) or output.numel() != logits.numel():
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise UserError(
                f"layer {self.layer} gives {tuple(logits.shape)} and the model {shape}: the layer must be its last one"
            )
        finite = torch.isfinite(logits)  # what is not is named later, with its row
        difference = float((output.reshape(logits.shape) - logits)[finite].abs().amax() if finite.any() else 0.0)
        if not difference <= TOLERANCE * max(1.0, float(logits[finite].abs().amax() if finite.any() else 0.0)):
            raise UserError(
                f"the model's output differs from that of layer {self.layer} by {difference:.3g}: the layer must be "
                "the last operation before the loss; give a model that returns logits, not probabilities"
            )

    def collect(self, loader, cache=None):
        """`Points` of a loader, in its order. cache: a folder to keep them in, read instead where it is there already.

        Raises UserError for a loader that shuffles, or has no labels, and for a cache that was made with another
        model, layer or loader.
        """
        if isinstance(loader, DataLoader):
            sampler = loader.batch_sampler.sampler if isinstance(loader.batch_sampler, BatchSampler) else loader.sampler
            if isinstance(sampler, RandomSampler):
                raise UserError("the loader shuffles: indices would mean nothing; give it shuffle=False")
        if cache is not None and (Path(cache) / "settings.json").exists():
            return self._cached(Path(cache), loader)
        first = next(self.batches(loader), None)
        if first is None:
            raise UserError("the loader has no batches: give at least one training point")
        features, labels, digest = _Collected(cache), [], hashlib.sha256()
        for f, y in self.batches(loader, digest):
            if y is None:
                raise UserError("the loader gives no labels: let it give (inputs, labels)")
            features.add(f.float().cpu() if f.dtype != torch.float64 else f.cpu())
            labels.append(torch.as_tensor(y).cpu())
        if not _same(features.first, first[0]):
            raise UserError(
                "two passes of the loader disagree: it shuffles or augments; give it a fixed order and input"
            )
        points = Points(features.finished(), torch.cat(labels), self.head.weight.detach(), self._bias())
        if cache is not None:
            self._keep(Path(cache), points, digest)
        return points

    def together(self, loader):
        """(features (m,d), labels (m,) or None) of all points of a loader, on the model's device."""
        parts = list(self.batches(loader))
        if not parts:
            raise UserError("the loader has no batches: give at least one point")
        labels = None if parts[0][1] is None else torch.cat([torch.as_tensor(y) for _, y in parts])
        return torch.cat([f for f, _ in parts]), labels

    def _bias(self):
        return None if self.head.bias is None else self.head.bias.detach()

    def settings(self, data):
        """What features depend on: the layer, and hashes of the model's parameters and buffers, and of the data."""
        digest = hashlib.sha256()
        _hash(dict(sorted(self.model.state_dict().items())), digest)
        return {"layer": self.layer, "model": digest.hexdigest()[:16], "loader": data.hexdigest()[:16]}

    def _keep(self, folder, points, digest):
        arrays = {"labels": points.labels, "weight": points.weight}
        for name, value in {**arrays, **({} if points.bias is None else {"bias": points.bias})}.items():
            save_npy(folder / f"{name}.npy", value.cpu().numpy())
        save_json(folder / "settings.json", self.settings(digest))

    def _cached(self, folder, loader):
        digest = hashlib.sha256()
        for batch in batches(loader):  # reading the data is cheap beside the model
            _hash(batch, digest)
        known, mine = load_json(folder / "settings.json", "remove the cache"), self.settings(digest)
        other = [name for name in mine if known.get(name) != mine[name]]
        if other:
            raise UserError(
                f"the cache {folder} was made with another {' and '.join(other)}: give another folder, or remove it"
            )
        return load_points(folder)


class _Collected:
    """Features, batch after batch: in memory, or below a cache as shards that are written when they are full."""

    def __init__(self, cache):
        self.folder, self.waiting, self.rows, self.first = cache and Path(cache) / "features", [], 0, None
        if self.folder and self.folder.exists():
            for path in self.folder.glob("[0-9]" * 12 + ".npy"):  # of a collection that was stopped
                path.unlink()
            if any(self.folder.iterdir()):
                raise UserError(f"{self.folder} holds files of others: give the cache a folder of its own")

    def add(self, batch):
        self.first = batch if self.first is None else self.first
        self.waiting.append(batch)
        if self.folder and sum(b.numel() for b in self.waiting) >= SHARD:
            self._write()

    def _write(self):
        save_npy(self.folder / f"{self.rows:012}.npy", torch.cat(self.waiting).numpy())
        self.rows += sum(map(len, self.waiting))
        self.waiting = []

    def finished(self):
        """A source of `Rows`."""
        if not self.folder:
            return torch.cat(self.waiting)
        if self.waiting:
            self._write()
        return self.folder


def _hash(value, digest):
    """Add tensors, arrays and numbers, in tuples, lists and dictionaries, to a hash."""
    if isinstance(value, dict):
        for name, item in value.items():
            digest.update(str(name).encode())
            _hash(item, digest)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _hash(item, digest)
    elif isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        _hash(value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy(), digest)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        digest.update(repr(value).encode())


def _same(f, g):
    return f.shape == g.shape and torch.allclose(f.double(), g.cpu().double(), atol=1e-4, rtol=1e-3)


def load_points(folder):
    """`Points` of a cache; the features stay on the disk. Raises UserError where there is none."""
    folder = Path(folder)
    if not (folder / "settings.json").exists():
        raise UserError(f"{folder} holds no cache: make one with cache= first")
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("labels", "weight")}
    bias = folder / "bias.npy"
    return Points(folder / "features", arrays["labels"], arrays["weight"], np.load(bias) if bias.exists() else None)


def numbered(classes, y):
    """The numbers 0, 1, … of labels y among the classes of a scikit-learn model. Raises UserError for others."""
    classes, y = np.asarray(classes), np.asarray(y)
    labels = np.searchsorted(classes, y)
    if not np.array_equal(classes[np.minimum(labels, len(classes) - 1)], y):
        raise UserError(f"y holds labels that are not of {list(classes)}: give those it was fitted on")
    return labels
