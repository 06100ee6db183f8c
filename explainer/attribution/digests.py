"""Hashes of content: of what a loader gives, and of a model's parameters and buffers.

Tensors and arrays are hashed with their type, shape and values, wherever they are found in tuples, mappings, data
classes and objects. The order of a mapping's keys has no part in it.
"""

import datetime
import decimal
import enum
import hashlib
from collections import deque
from collections.abc import Mapping, Set
from pathlib import PurePath

import numpy as np
import torch

from config import UserError

PLAIN = (
    *(str, bytes, bytearray, int, float, complex, type(None), type(...), enum.Enum, PurePath, range, slice),
    *(np.generic, torch.dtype, torch.device, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta),
)
HEAP = 1 << 9  # the flag of a class that is written in Python
BLOCK = 2**20  # numbers of 64 bits that a fingerprint is summed over at once


def add_to(value, digest, inside=()):
    """Add a value to a hash by its content. Raises UserError for what holds something that has none to be read.

    inside: the objects that this one is a part of.
    """
    if id(value) in inside:
        digest.update(b"itself")
        return
    inside = (*inside, id(value))
    digest.update(f"<{type(value).__module__}.{type(value).__qualname__}".encode())
    if isinstance(value, torch.Tensor):
        _add_tensor(value, digest)
    elif isinstance(value, np.generic) or isinstance(value, PLAIN):
        digest.update(repr(value).encode("utf-8", "backslashreplace"))
    elif isinstance(value, np.ndarray):
        _add_array(value, digest, inside)
    elif isinstance(value, (tuple, list, deque)):
        digest.update(f"{len(value)}".encode())
        for item in value:
            add_to(item, digest, inside)
    elif isinstance(value, Set):
        _add_unordered([(item,) for item in value], digest, inside)
    elif isinstance(value, Mapping):
        _add_unordered(value.items(), digest, inside)
    else:
        _add_object(value, digest, inside)
    digest.update(b">")


def hashed(value):
    """The hash of a value, bytes."""
    digest = hashlib.sha256()
    add_to(value, digest)
    return digest.digest()


def _add_unordered(items, digest, inside):
    parts = []
    for item in items:
        part = hashlib.sha256()
        for value in item:
            add_to(value, part, inside)
        parts.append(part.digest())
    digest.update(b"".join(sorted(parts)))


def _add_tensor(value, digest):
    value = value.detach()
    if value.is_nested:
        parts = value.unbind()
    elif value.layout == torch.sparse_coo:
        value = value.coalesce()
        parts = (value.indices(), value.values())
    elif value.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (value.crow_indices(), value.col_indices(), value.values())
    elif value.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = (value.ccol_indices(), value.row_indices(), value.values())
    elif value.layout != torch.strided:
        parts = (value.to_dense(),)
    elif value.is_quantized:
        parts = (value.int_repr(), value.dequantize())
    else:
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value.cpu()).numpy().data)
        return
    digest.update(f"{value.layout} {value.dtype} {'' if value.is_nested else tuple(value.shape)} {len(parts)}".encode())
    for part in parts:
        _add_tensor(part, digest)


def _bytes(tensor):
    """The bytes of a dense tensor, in the order of its entries."""
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def _add_array(value, digest, inside):
    digest.update(f"{value.dtype} {value.shape}".encode())
    if value.dtype.hasobject:
        add_to(value.tolist(), digest, inside)
        return
    if isinstance(value, np.ma.MaskedArray):
        add_to(np.ma.getmaskarray(value), digest, inside)
        value = value.filled(0)
    digest.update(np.ascontiguousarray(value).tobytes())


def _add_object(value, digest, inside):
    """An array of another package, or an object by its keys or its attributes."""
    kind = type(value)
    if hasattr(kind, "__array__") or hasattr(kind, "__array_interface__"):
        add_to(np.asarray(value), digest, inside)
        return
    if callable(getattr(kind, "keys", None)) and hasattr(kind, "__getitem__"):
        _add_unordered([(name, value[name]) for name in value.keys()], digest, inside)
        return
    slots = {name for c in kind.__mro__ for name in _slots(c)}
    attributes = {
        **getattr(value, "__dict__", {}),
        **{name: getattr(value, name) for name in slots if hasattr(value, name)},
    }
    foreign = any(not c.__flags__ & HEAP for c in kind.__mro__ if c is not object)
    if isinstance(value, type) or callable(value) or foreign or not attributes:
        raise UserError(
            f"a batch holds {kind.__name__}, whose content cannot be hashed: leave cache out, or let inputs_and_labels "
            "return tensors, arrays, numbers and strings"
        )
    _add_unordered(attributes.items(), digest, inside)


def _slots(kind):
    slots = vars(kind).get("__slots__", ())
    return [name for name in ((slots,) if isinstance(slots, str) else slots) if name not in ("__dict__", "__weakref__")]


@torch.no_grad()
def fingerprint(model):
    """A hash of the names, types, shapes and numbers of a model's parameters and buffers, made where they are."""
    digest, weights = hashlib.sha256(), {}
    for held in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in held:
            tensor = tensor.detach()
            digest.update(f"{name.replace('_orig_mod.', '')} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
                _add_tensor(tensor, digest)
            elif tensor.numel():
                digest.update(str(_sum(_bytes(tensor), weights).item()).encode())
    return digest.hexdigest()[:32]


def _sum(content, weights):
    """Bytes as numbers of 64 bits, summed modulo 2^64 with odd weights: any one change changes it."""
    tail = len(content) % 8
    if tail or content.storage_offset() % 8:
        content = torch.nn.functional.pad(content, (0, -len(content) % 8))
    numbers = content.view(torch.int64)
    needed = min(len(numbers), BLOCK)
    if len(weights.get(numbers.device, ())) < needed:
        i = torch.arange(1, needed + 1, device=numbers.device) * 6364136223846793005 + 1442695040888963407
        weights[numbers.device] = (i ^ (i >> 29)) * -7046029254386353131 | 1
    w, found = weights[numbers.device], numbers.new_zeros(())
    for block in numbers.split(BLOCK):
        found = found * 6364136223846793005 + (block * w[: len(block)]).sum()
    return found
