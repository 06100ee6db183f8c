"""A format that this project reads: how a small instance is made, and what its own reader makes of a folder."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

N, M, D = 12, 6, 4  # training points, test points, features


class Format(NamedTuple):
    """One file that is read.

    name: by which --only finds it. file: the one that is damaged, relative to the folder. make(folder): writes it, and
    what is read with it. read(folder): arrays, numbers, texts and containers of them. kind: how its structure is
    changed: "npz", "npy", "json", "tensors", "text", or "" for bytes alone. checked: whether it carries a checksum, so
    that other numbers may never be read. loose: names within it of which nothing is promised. nan: arrays that may hold
    NaN.
    """

    name: str
    file: str
    make: Callable
    read: Callable
    kind: str = ""
    checked: bool = True
    loose: tuple = ()
    nan: tuple = ()


def same(a, b):
    """Whether two values that were read are equal, whatever types their numbers have."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        a, b = (x.detach().numpy() if isinstance(x, torch.Tensor) else x for x in (a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or (a.dtype.kind in "biuf") != (b.dtype.kind in "biuf"):
            return False
        numbers = a.dtype.kind in "biuf"
        return (numbers or a.dtype.kind == b.dtype.kind) and np.array_equal(a, b, equal_nan=numbers)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and a != a:
        return b != b
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    return a == b


def outputs(seed=0, **changes):
    """Small `SavedOutputs`."""
    from models.outputs import SavedOutputs

    rng = np.random.default_rng(seed)
    features = rng.normal(size=(N + M, D)).astype(np.float32)
    weight = rng.normal(size=(1, D)).astype(np.float32)
    logits = features @ weight[0]
    p, labels = 1 / (1 + np.exp(-logits)), (logits + rng.logistic(size=N + M) > 0).astype(np.int64)
    labels[:2] = 0, 1
    values = {"weight": weight, "bias": np.zeros(1, np.float32)}
    for part, rows in (("train", slice(N)), ("test", slice(N, None))):
        values |= {f"intermediate_{part}": features[rows], f"pred_{part}": p[rows], f"labels_{part}": labels[rows]}
        values |= {f"outputs_{part}": logits[rows], f"{part}_accuracy": 0.5}
    return SavedOutputs(**{**values, **changes})
