"""A model's attributes and buffers, as they were before its forward: nothing that a forward stores remains."""

import contextlib
from collections import deque
from types import SimpleNamespace

import torch
from torch import nn

OWN = "_parameters", "_buffers", "_modules"  # whose items are no containers
CONTAINERS = dict, list, set, deque
LOOKED_INTO = (*CONTAINERS, SimpleNamespace)
BASE = frozenset(vars(nn.Module())) - set(OWN)
LARGE = 1000  # the items of larger containers are not looked into


@contextlib.contextmanager
def unchanged(model):
    """Attributes of all modules, the lists, dictionaries and sets in them, and buffers, are put back afterwards."""
    kept, buffers, known = [], [], set()
    for module in model.modules():
        own = vars(module)
        kept.append((own, {k: v for k, v in own.items() if k not in BASE}))
        for name, value in kept[-1][1].items():
            if isinstance(value, LOOKED_INTO):
                _look(value, kept, known, name not in OWN)
        buffers += [(v, v._version, v.detach().clone()) for v in module._buffers.values() if v is not None]
    try:
        yield
    finally:
        for place, before in kept:
            _put_back(place, before)
        with torch.no_grad():
            for buffer, version, value in buffers:
                if buffer._version != version:
                    buffer.copy_(value)


def _look(value, kept, known, inside=True):
    """Note a container, and those in it."""
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if not isinstance(value, CONTAINERS) or id(value) in known:
        return
    known.add(id(value))
    kept.append((value, value.copy()))
    if inside and len(value) <= LARGE:
        for item in value.values() if isinstance(value, dict) else value:
            _look(item, kept, known)


def _put_back(place, before):
    if isinstance(before, dict):
        if place is not before and (
            place.keys() - BASE != before.keys() or any(place[k] is not v for k, v in before.items())
        ):
            for name in place.keys() - before.keys() - BASE:
                del place[name]
            place.update(before)
    elif isinstance(place, set):
        place.clear()
        place |= before
    elif len(place) != len(before) or any(a is not b for a, b in zip(place, before)):
        place.clear()
        place.extend(before)
