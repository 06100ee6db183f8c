"""Batches of a loader: what is inputs and what is labels, in which order they come, and copies for the model."""

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from config import UserError
from explainer.attribution.checks import first_line

RANDOM = (RandomSampler, WeightedRandomSampler, SubsetRandomSampler)
SHUFFLES = "the loader shuffles: indices would mean nothing; give it shuffle=False"


def batches(loader, read=None):
    """(inputs, labels or None) of a loader: of tuples (inputs..., labels), mappings with `labels`, or one input alone.

    read: a function of a batch that returns (inputs, labels) instead. Inputs are a list of arguments, or a dictionary
    of named ones.

    Raises UserError for what is no loader, and for what `read` should not return.
    """
    if isinstance(loader, (torch.Tensor, np.ndarray)) or not hasattr(loader, "__iter__"):
        raise UserError(f"the loader is {type(loader).__name__}: give a DataLoader, or a list of (inputs, labels)")
    for batch in loader:
        if read is not None:
            yield _read(batch, read)
        elif isinstance(batch, Mapping):
            labels = batch.get("labels", batch.get("label"))
            yield {name: value for name, value in batch.items() if name not in ("labels", "label")}, labels
        elif isinstance(batch, (tuple, list)):
            *inputs, labels = batch if len(batch) > 1 else (*batch, None)
            yield inputs, labels
        else:
            yield [batch], None


def _read(batch, read):
    try:
        found = read(batch)
    except Exception as error:  # of a function that is not ours
        raise UserError(
            f"inputs_and_labels could not read a batch, {type(batch).__name__} ({first_line(error)}): give a function "
            "of it that returns (inputs, labels), labels None where there are none"
        ) from error
    if not isinstance(found, tuple) or len(found) != 2:
        what = f"{len(found)} values" if isinstance(found, tuple) else type(found).__name__
        raise UserError(f"inputs_and_labels returned {what}: give a function that returns (inputs, labels)")
    inputs, labels = found
    if isinstance(inputs, Mapping):
        return dict(inputs), labels
    plain = isinstance(inputs, tuple) and not hasattr(inputs, "_fields") and not isinstance(inputs, PackedSequence)
    return (list(inputs) if plain else [inputs]), labels


def function(name, value):
    """A function, or None. Raises UserError for anything else."""
    if value is not None and (not callable(value) or isinstance(value, nn.Module)):
        raise UserError(f"{name} is {type(value).__name__}: give a function")
    return value


def has_indices(loader):
    """Whether a loader draws the points of a data set by their indices."""
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)


def check_order(loader, ranks=1):
    """The indices of a loader's points, where it is the share of one of several ranks; None where it has all in order.

    Of a loader without indices nothing is said.

    Raises UserError for a loader that shuffles or leaves points out: indices would mean nothing.
    """
    if not has_indices(loader):
        return None
    if not getattr(loader, "in_order", True) and loader.num_workers > 1:
        raise UserError("the loader has in_order=False: indices would mean nothing; give it in_order=True")
    sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = sampler.sampler if isinstance(sampler, BatchSampler) else sampler
    if isinstance(inner, RANDOM) or getattr(inner, "shuffle", False) is True:
        raise UserError(SHUFFLES)
    n = len(loader.dataset)
    drops = type(sampler) is BatchSampler and sampler.drop_last and len(inner) % sampler.batch_size
    if type(inner) is SequentialSampler and type(sampler) in (SequentialSampler, BatchSampler) and not drops:
        if len(inner) == n:
            return None
    indices = _indices(sampler, loader.batch_sampler is not None)
    if indices == list(range(n)):
        return None
    if drops and indices == list(range(len(indices))):
        left = n - len(indices)
        raise UserError(f"the loader drops {left} of {n} points: give it drop_last=False")
    if ranks > 1 and indices == _indices(sampler, loader.batch_sampler is not None):
        return indices
    first = next((k for k, (i, j) in enumerate(zip(indices, range(n))) if i != j), min(len(indices), n))
    what = f"point {indices[first]} in place {first}" if first < len(indices) else f"{len(indices)} of {n} points"
    raise UserError(
        f"the loader's sampler gives {what}: indices would mean nothing; give shuffle=False, and a Subset for a part"
    )


def _indices(sampler, batched):
    try:
        return [int(i) for entry in sampler for i in (entry if batched else [entry])]
    except (TypeError, ValueError) as error:
        raise UserError(f"the loader's sampler gives no indices ({first_line(error)}): give shuffle=False") from error


def given(value, device):
    """A copy of a model's inputs on a device; what the model does to it in place changes nothing else."""
    if isinstance(value, torch.Tensor):
        moved = value.detach().to(device)
        return moved.clone() if moved.device == value.device else moved
    if isinstance(value, PackedSequence):
        moved = value.to(device)
        return moved._replace(data=moved.data.clone())
    if isinstance(value, (tuple, list)):
        items = [given(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else _as(value, items)
    if isinstance(value, Mapping):
        return _as(value, {name: given(item, device) for name, item in value.items()})
    return _object(value, device)


def _as(value, items):
    """Items in a container of the same type, where it takes them."""
    try:
        return type(value)(items)
    except Exception:  # of a class that is not ours
        return items


def _object(value, device):
    """An object that holds tensors, such as a batch of graphs, by its own ways of copying and moving."""
    if not hasattr(value, "__dict__") and not dataclasses.is_dataclass(value) or isinstance(value, (type, nn.Module)):
        return value
    try:
        copied = copy.deepcopy(value)
    except Exception:  # of a class that is not ours
        return value
    if callable(getattr(type(copied), "to", None)):
        moved = copied.to(device)
        return copied if moved is None else moved
    for name, item in list(vars(copied).items()) if hasattr(copied, "__dict__") else ():
        if isinstance(item, torch.Tensor):
            object.__setattr__(copied, name, item.to(device))
    return copied
