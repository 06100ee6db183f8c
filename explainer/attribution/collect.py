"""The features of a model over a loader: what its last linear layer is given, gathered by a hook."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.cache import Collected, Points, add_to, load_points
from explainer.attribution.checks import first_line, path, tensor
from explainer.attribution.rows import Rows
from models.files import load_json, save_json, save_npy

TOLERANCE = 1e-3  # of the logits that the layer reproduces, against the largest logit


def head_of(model, layer=-1):
    """The linear layer by name or by its number among the linear layers, and its name.

    Raises UserError, with the names of the linear layers, where there is no such layer or it is not linear.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is {type(model).__name__}: give a torch.nn.Module, or arrays to from_arrays")
    if not isinstance(layer, (int, str)):
        raise UserError(f"layer is {type(layer).__name__}: give its name or number; labels come with the loader")
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
    """(inputs, labels or None) of a loader: of tuples (inputs..., labels), mappings with `labels`, or tensors.

    Raises UserError for what is no loader.
    """
    if isinstance(loader, (torch.Tensor, np.ndarray)) or not hasattr(loader, "__iter__"):
        raise UserError(f"the loader is {type(loader).__name__}: give a DataLoader, or a list of (inputs, labels)")
    for batch in loader:
        if isinstance(batch, Mapping):
            labels = batch.get("labels", batch.get("label"))
            yield {name: value for name, value in batch.items() if name not in ("labels", "label")}, labels
        elif isinstance(batch, (tuple, list)):
            *inputs, labels = batch if len(batch) > 1 else (*batch, None)
            yield inputs, labels
        else:
            yield [batch], None


def _labels(labels, n):
    """The labels of a batch of n points as a tensor, or None."""
    if labels is None:
        return None
    labels = tensor(labels, "labels")
    if len(labels.reshape(-1)) < n or not labels.ndim or len(labels) != n:
        raise UserError(f"a batch has {n} points and labels {tuple(labels.shape)}: give one for each point")
    return labels


def _check_order(loader):
    """Raise UserError for a loader that shuffles: indices would mean nothing."""
    if isinstance(loader, DataLoader):
        sampler = loader.batch_sampler.sampler if isinstance(loader.batch_sampler, BatchSampler) else loader.sampler
        if isinstance(sampler, RandomSampler):
            raise UserError("the loader shuffles: indices would mean nothing; give it shuffle=False")


def _moved(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, PackedSequence):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        items = [_moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, Mapping):
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
        seen = []  # the logits copied: what follows may work in place
        handle = self.head.register_forward_hook(
            lambda module, inputs, output: seen.append((inputs[0], output.detach().clone()))
        )
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.eval()
            for inputs, labels in batches(loader):
                seen.clear()
                if digest is not None:
                    add_to((inputs, labels), digest)
                output = self._output(inputs)
                self._check(seen, getattr(output, "logits", output))
                yield seen[0][0].detach(), _labels(labels, len(seen[0][0]))
        finally:
            handle.remove()
            for module, mode in modes:
                module.training = mode

    @torch.no_grad()
    def _output(self, inputs):
        inputs = _moved(inputs, self.device)
        try:
            return self.model(**inputs) if isinstance(inputs, dict) else self.model(*inputs)
        except UserError:
            raise
        except Exception as error:  # of a model that is not ours
            raise UserError(
                f"the model cannot take a batch of the loader ({first_line(error)}): give what its forward takes"
            ) from error

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

        Of several ranks the first fills the cache, and the others wait and read it: give all the same folder.

        Raises UserError for a loader that shuffles, or has no labels, and for a cache that was made with another
        model, layer or loader.
        """
        _check_order(loader)
        cache = path("cache", cache)
        if cache is None:
            return self._collected(loader, None)
        return ranks.first_alone(lambda: self._collected(loader, cache), self.device)

    def _collected(self, loader, cache):
        if cache is not None and (cache / "settings.json").exists():
            return self._cached(cache, loader)
        if hasattr(loader, "__next__"):
            raise UserError("the loader can be read once only: give a DataLoader, or a list of (inputs, labels)")
        first = next(self.batches(loader), None)
        if first is None:
            raise UserError("the loader has no batches: give at least one training point")
        features, labels, digest = Collected(cache), [], hashlib.sha256()
        for f, y in self.batches(loader, digest):
            if y is None:
                raise UserError("the loader gives no labels: let it give (inputs, labels)")
            features.add(f.float().cpu() if f.dtype != torch.float64 else f.cpu())
            labels.append(y.cpu())
        if not _same(features.first, first[0]):
            raise UserError(
                "two passes of the loader disagree: it shuffles or augments; give it a fixed order and input"
            )
        points = Points(features.finished(), torch.cat(labels), self.head.weight.detach(), self._bias())
        if cache is not None:
            self._keep(cache, points, digest)
        return points

    def together(self, loader):
        """(features (m,d), labels (m,) or None) of all points of a loader, on the model's device."""
        _check_order(loader)
        parts = list(self.batches(loader))
        if not parts:
            raise UserError("the loader has no batches: give at least one point")
        labels = None if parts[0][1] is None else torch.cat([y for _, y in parts])
        return torch.cat([f for f, _ in parts]), labels

    def _bias(self):
        return None if self.head.bias is None else self.head.bias.detach()

    def settings(self, data):
        """What features depend on: the layer, and hashes of the model's parameters and buffers, and of the data."""
        digest = hashlib.sha256()
        add_to(dict(sorted(self.model.state_dict().items())), digest)
        return {"layer": self.layer, "model": digest.hexdigest()[:16], "loader": data.hexdigest()[:16]}

    def _keep(self, folder, points, digest):
        arrays = {"labels": points.labels, "weight": points.weight}
        for name, value in {**arrays, **({} if points.bias is None else {"bias": points.bias})}.items():
            save_npy(folder / f"{name}.npy", value.cpu().numpy())
        save_json(folder / "settings.json", self.settings(digest))

    def _cached(self, folder, loader):
        digest = hashlib.sha256()
        for batch in batches(loader):  # reading the data is cheap beside the model
            add_to(batch, digest)
        known, mine = load_json(folder / "settings.json", "remove the cache"), self.settings(digest)
        other = [name for name in mine if known.get(name) != mine[name]]
        points = load_points(folder)
        if not other:  # parameters and data are the same: is the forward?
            features = next(self.batches(loader))[0]
            other = (
                [] if _same(Rows(points.features, whole=True).block(slice(0, len(features))), features) else ["model"]
            )
        if other:
            raise UserError(
                f"the cache {folder} was made with another {' and '.join(other)}: give another folder, or remove it"
            )
        return points


def _same(f, g):
    same = torch.allclose(f.double(), g.cpu().double(), atol=1e-4, rtol=1e-3, equal_nan=True)
    return f.shape == g.shape and same
