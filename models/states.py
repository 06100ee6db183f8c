"""States of networks and optimizers that come from files: whether they are what is expected."""

import ast

import torch
from torch import Tensor

from config import UserError, shown


def difference(before, now, names):
    """In what the settings of two checkpoints differ, in words; names: of what their tuple holds."""
    (told, _, before), (telling, _, now) = (text.rpartition(" (") for text in (before, now))
    try:
        pairs = zip(names, ast.literal_eval(f"({before}"), ast.literal_eval(f"({now}"))
        different = [f"with {name} {old}, now {new}" for name, old, new in pairs if old != new]
    except (ValueError, SyntaxError, TypeError):
        different = []
    (told, _, before), (telling, _, now) = (text.rpartition(" ") for text in (told, telling))
    if before != now and before.isdecimal():
        different.append(f"with seed {before}, now {now}")
    if told != telling:
        different.append("with other data, labels, starting weights or options")
    return ", ".join(different) or "with other settings"


def is_state_of(optimizer, state):
    """Whether a state dict has what an optimizer of these parameters has."""
    groups, mine = state.get("param_groups"), optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or not isinstance(state.get("state"), dict) or len(groups) != len(mine):
        return False
    for group, own in zip(groups, mine):
        if not isinstance(group, dict) or group.get("params") != own["params"] or not own.keys() <= group.keys():
            return False
        if any(isinstance(value, Tensor) or type(value) is not type(own[name]) for name, value in group.items()
               if name in own and own[name] is not None):  # fmt: skip
            return False
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return all(
        isinstance(number, int) and 0 <= number < len(parameters) and isinstance(entries, dict)
        and all(_fits(value, parameters[number]) for value in entries.values())
        for number, entries in state["state"].items()
    )  # fmt: skip


def _fits(value, parameter):
    """Whether an entry of an optimizer's state belongs to a parameter: a number, or a tensor of its shape."""
    if not isinstance(value, Tensor):
        return value is None or isinstance(value, (int, float))
    return value.is_floating_point() and value.shape in ((), parameter.shape)


def load_state(network, state, path, remedy):
    """Load a state dict that was read from `path`; raises UserError, ending in `remedy`, where it is another network's.

    Parameters have the network's shapes, and are floats or whole numbers as there.
    """
    own = network.state_dict()
    for name in dict.fromkeys([*own, *state]):
        mine, value = own.get(name), state.get(name)
        if mine is None or not isinstance(value, Tensor) or mine.shape != value.shape:
            problem = f"{name} has another shape, or is not there"
        elif (
            value.layout != torch.strided or mine.is_floating_point() != value.is_floating_point() or value.is_complex()
        ):
            problem = f"{name} holds {value.dtype}, expected {mine.dtype}"
        else:
            continue
        raise UserError(f"{shown(path)} holds another network ({problem}): {remedy}")
    network.load_state_dict(state)


def _kind(tensor):
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool
