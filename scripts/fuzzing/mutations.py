"""Well-formed files that hold something else than they should.

A mutation is (what it is in words, strict, the result). strict: a reader must refuse it, or read the old values all the
same; else other values are no fault, since nothing can tell them, such as a feature that has another sign.
"""

import numpy as np
import torch

from fuzzing.damage import STRANGE

HUGE = 10**30


def of_array(array, rng, nan=False):
    """(words, strict, array) of an array that is another one. nan: whether NaN may be in it."""
    array = np.asarray(array)
    makers = {**_TYPES, **_SHAPES}
    if array.dtype.kind in "iuf" and array.size:
        allowed = ("negative", "huge") if array.dtype.kind != "f" else ("n", "h", "i", "m") if nan else ("",)
        makers |= {name: make for name, make in _NUMBERS.items() if name.removeprefix("a ").startswith(allowed)}
    words = list(makers)[int(rng.integers(len(makers)))]
    with np.errstate(all="ignore"):
        strict, found = makers[words](array, rng)
    return words, strict, found


def _typed(kind):
    def make(array, rng):
        try:
            return True, array.astype(kind)
        except (TypeError, ValueError):  # a text of JSON is no number
            return True, np.zeros(array.shape, kind)

    return make


def _with(value):
    def make(array, rng):
        array = np.array(array)
        whole = None if array.dtype.kind == "f" else np.iinfo(array.dtype)
        array[np.unravel_index(int(rng.integers(array.size)), array.shape)] = (
            value if whole is None else min(max(value, int(whole.min)), int(whole.max))
        )
        return not np.isfinite(value), array

    return make


def _wider(array, rng):
    return True, array.astype({"f": np.float64, "i": np.int64, "u": np.uint64}.get(array.dtype.kind, array.dtype))


def _structured(array, rng):
    return True, np.zeros(array.shape, [("a", "f4"), ("b", "i4")])


_TYPES = {
    "complex numbers": _typed(complex),
    "texts": _typed("U8"),
    "bytes": _typed("S4"),
    "dates": lambda array, rng: (True, np.zeros(array.shape, "M8[s]")),
    "objects": lambda array, rng: (True, np.full(array.shape, None, object)),
    "records": _structured,
    "the other order of bytes": lambda array, rng: (True, array.astype(array.dtype.newbyteorder())),
    "columns first": lambda array, rng: (True, np.asfortranarray(array)),
    "wider numbers": _wider,
}
_SHAPES = {
    "one dimension more": lambda array, rng: (True, array[None]),
    "one dimension more at the end": lambda array, rng: (True, array[..., None]),
    "one dimension": lambda array, rng: (True, array.reshape(-1)),
    "turned": lambda array, rng: (True, array.T),
    "one number": lambda array, rng: (True, array.reshape(-1)[0] if array.size else np.float64(0)),
    "no rows": lambda array, rng: (True, array[:0] if array.ndim else array.reshape(1)[:0]),
    "no columns": lambda array, rng: (True, array[..., :0] if array.ndim else array.reshape(1)[:0]),
    "a row less": lambda array, rng: (True, array[:-1] if array.ndim else array),
    "a row more": lambda array, rng: (True, np.concatenate([array, array[:1]]) if array.ndim else array),
    "a column less": lambda array, rng: (True, array[..., :-1] if array.ndim else array),
}
_NUMBERS = {
    "NaN": _with(float("nan")),
    "infinity": _with(float("inf")),
    "minus infinity": _with(-float("inf")),
    "a negative number": _with(-3),
    "a huge number": _with(2.0**120),
}


def of_arrays(arrays, rng, loose=(), nan=()):
    """(words, strict, arrays) of named arrays. loose: names of which nothing is promised. nan: that may hold NaN."""
    names, arrays = list(arrays), dict(arrays)
    name = names[int(rng.integers(len(names)))]
    kind = rng.random()
    if kind < 0.12:
        del arrays[name]
        return f"no {name}", name not in loose, arrays
    if kind < 0.18:
        arrays["another"] = np.arange(3)
        return "another array", True, arrays
    if kind < 0.24:
        arrays[name.upper()] = arrays.pop(name)
        return f"{name} by another name", name not in loose, arrays
    words, strict, arrays[name] = of_array(arrays[name], rng, name in nan)
    return f"{name}: {words}", strict and name not in loose, arrays


def of_tree(tree, rng, tensors=False, loose=()):
    """(words, strict, tree) of nested dictionaries and lists. tensors: whether its leaves may be tensors."""
    places = list(_places(tree))
    place = places[int(rng.integers(len(places)))]
    value = tree
    for key in place:
        value = value[key]
    name, kind = "/".join(map(str, place)) or "all", rng.random()
    free = bool(place) and any(key in loose for key in place)
    if place and kind < 0.15:
        return f"no {name}", not free, _put(tree, place, None, remove=True)
    if isinstance(value, dict) and kind < 0.25:
        return f"more in {name}", False, _put(tree, place, {**value, "another": 1})
    if isinstance(value, torch.Tensor):
        words, strict, value = _of_tensor(value, rng)
        return f"{name}: {words}", strict and not free, _put(tree, place, value)
    others = [None, True, [], {}, [1, "a"], {"a": 1}, HUGE, -1, 0.5, float("inf"), float("nan"), *STRANGE]
    if tensors:
        others = [other for other in others if other is not HUGE] + [torch.zeros(2), torch.zeros(0)]
    other = others[int(rng.integers(len(others)))]
    strict = not _alike(other, value)
    return f"{name}: {str(other)[:20]!r} for {str(value)[:20]!r}", strict and not free, _put(tree, place, other)


def _sort(value):
    """What kind of value it is; numbers that are no whole ones may be any number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value)
    return int if isinstance(value, int) else float if np.isfinite(value) else None


def _alike(other, value):
    return _sort(other) == _sort(value) or (_sort(other), _sort(value)) == (int, float)


def _places(tree, before=()):
    yield before
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:4]) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _places(value, (*before, key))


def _put(tree, place, value, remove=False):
    """`tree` with another value at a place, or without it; the rest is shared."""
    if not place:
        return value
    key, *rest = place
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if remove and not rest:
        del copy[key]
    else:
        copy[key] = _put(copy[key], rest, value, remove)
    return copy


def _of_tensor(tensor, rng):
    kinds = {
        "half the precision": (True, tensor.half() if tensor.is_floating_point() else tensor.to(torch.int8)),
        "whole numbers": (tensor.is_floating_point(), torch.full_like(tensor, 7, dtype=torch.long)),
        "complex numbers": (True, tensor.to(torch.complex64)),
        "truth values": (True, torch.ones_like(tensor, dtype=torch.bool)),
        "a sparse tensor": (True, tensor.to_sparse() if tensor.ndim else tensor),
        "twice the precision": (True, tensor.double() if tensor.is_floating_point() else tensor.long()),
        "a list": (True, tensor.reshape(-1)[:3].tolist()),
        "a text": (True, "a text"),
        "one dimension more": (True, tensor[None]),
        "one number": (True, torch.zeros(())),
        "no rows": (True, tensor[:0] if tensor.ndim else torch.zeros(0)),
        "a row less": (True, tensor[:-1] if tensor.ndim else torch.zeros(3)),
        "other strides": (True, tensor.t().contiguous().t() if tensor.ndim == 2 else tensor),
    }
    if tensor.is_floating_point() and tensor.numel():
        for name, value, strict in (
            ("NaN", float("nan"), True),
            ("infinity", float("inf"), True),
            ("huge", 1e30, False),
        ):
            other = tensor.clone()
            other.view(-1)[int(rng.integers(other.numel()))] = value
            kinds[name] = strict, other
    words = list(kinds)[int(rng.integers(len(kinds)))]
    return words, *kinds[words]
