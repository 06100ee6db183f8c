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
        if any(type(group[name]) is not type(value) or (name != "lr" and group[name] != value)
               for name, value in own.items()):  # fmt: skip
            return False
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    trained, found = {i for i, p in enumerate(parameters) if p.requires_grad}, state["state"]
    return trained <= found.keys() <= set(range(len(parameters))) and all(
        isinstance(entries, dict) and entries.keys() == _ENTRIES[type(optimizer)]
        and all(_fits(name, value, parameters[number]) for name, value in entries.items())
        for number, entries in found.items()
    )  # fmt: skip


_ENTRIES = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}}


def _fits(name, value, parameter):
    """Whether an entry of an optimizer's state belongs to a parameter: a tensor of its shape, or a number of steps."""
    like = torch.zeros(()) if name == "step" else parameter
    return isinstance(value, Tensor) and value.shape == like.shape and wrong_values(value, like) is None


def load_state(network, state, path, remedy):
    """Load a state dict that was read from `path`; raises UserError, ending in `remedy`, where it is another network's.

    Parameters have the network's shapes, are floats or whole numbers as there, and are finite.
    """
    own = network.state_dict()
    for name in dict.fromkeys([*own, *state]):
        mine, value = own.get(name), state.get(name)
        if mine is None or not isinstance(value, Tensor) or mine.shape != value.shape:
            problem = f"{name} has another shape, or is not there"
        elif (problem := wrong_values(value, mine)) is None:
            continue
        else:
            problem = f"{name} {problem}"
        raise UserError(f"{shown(path)} holds another network ({problem}): {remedy}")
    network.load_state_dict(state)


def wrong_values(value, mine):
    """What is wrong with a tensor from a file that is to take the place of `mine`, in words; None for nothing.

    It is an ordinary one in memory, of floats, whole numbers or truth values as `mine`, and finite as one of its type.
    """
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return "is no ordinary tensor"
    if _kind(value) != _kind(mine):
        return f"holds {value.dtype}, expected {mine.dtype}"
    return None if torch.isfinite(value.to(mine.dtype)).all() else "is not finite"


def _kind(tensor):
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool
