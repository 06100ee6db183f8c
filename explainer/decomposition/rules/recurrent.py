"""Recurrent networks: LSTM, GRU and RNN of any number of layers and both directions, and their cells.

The steps are those of `rules.cells`; here are layers, directions, packed sequences and first states. A first state that
is a constant is shared out by the rule of constants, zero being nothing.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from explainer.decomposition.registry import register_rule
from explainer.decomposition.rules.cells import gru_step, lstm_step, rnn_step
from explainer.decomposition.split import Split, UnsupportedOp, splits


class Cell(NamedTuple):
    """A step with its weights W, U, its bias (of a GRU both), the projection of its output or None, and the widths of
    its states."""

    step: object
    weight: torch.Tensor
    recurrent: torch.Tensor
    bias: object
    projection: torch.Tensor | None
    widths: tuple


def _cell(module, suffix=""):
    """The `Cell` of nn.LSTM, GRU or RNN for a layer and direction, or of nn.LSTMCell, GRUCell or RNNCell."""
    own = {name: getattr(module, name + suffix, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    weight, recurrent, projection = own["weight_ih"], own["weight_hh"], getattr(module, "weight_hr" + suffix, None)
    zero = weight.new_zeros(len(weight))
    biases = [zero if own[name] is None else own[name] for name in ("bias_ih", "bias_hh")]
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return Cell(lstm_step, weight, recurrent, sum(biases), projection, (recurrent.shape[1], len(weight) // 4))
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return Cell(gru_step, weight, recurrent, biases, None, (recurrent.shape[1],))
    step = rnn_step({"tanh": torch.tanh, "relu": torch.relu}[module.nonlinearity])
    return Cell(step, weight, recurrent, sum(biases), None, (recurrent.shape[1],))


def _both(parts, weight):
    return (torch.cat(parts) @ weight.T).chunk(2)


def _next(cell, x, states, w, rules):
    """The states after one step. x: the parts of W x."""
    (hb, hg), *more = cell.step(x, _both(states[0], cell.recurrent), cell.bias, states, w, rules)
    if cell.projection is not None:
        hb, hg = hb @ cell.projection.T, hg @ cell.projection.T
    return (hb, hg), *more


def _shares(x, rules):
    """w of every step, as the drive is shared out: (..., 1)."""
    if rules.bias_rule != "mask":
        return torch.zeros_like(x.b[..., :1])
    return x.w[..., :1].expand(*x.b.shape[:-1], 1).to(x.b.dtype)


def _run(x, cell, states, rules):
    """One direction over x, a Split (R,T,d): a Split (R,T,h), and the states (b, g) at every step, (R,T,·)."""
    R, T = x.b.shape[:2]
    zb, zg = _both((x.b, x.g), cell.weight)
    w, found = _shares(x, rules), []
    for t in range(T):
        states = _next(cell, (zb[:, t], zg[:, t]), states, w[:, t], rules)
        found.append(states)
    found = [tuple(torch.stack(part, 1) for part in zip(*pairs)) for pairs in zip(*found)]
    return x.like(*found[0], w), found


def _turned(x, lengths):
    """Rows turned round within their lengths, along the second dimension."""
    T = x.b.shape[1]
    t = torch.arange(T, device=x.b.device)
    positions = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return x.each(lambda part: part.gather(1, positions[:, :, None].expand(-1, -1, part.shape[2])))


def _parted(value, like, w, rules):
    """A state or an input as a Split: a constant is shared out by w (R,1), zeros where it is None."""
    if isinstance(value, Split):
        return value
    zero = torch.zeros_like(like if value is None else value)
    nothing = Split(zero, zero, w, rules)
    return nothing if value is None else rules.bias(nothing, value)


def _starts(state, cells, R, w, rules):
    """The first states of every cell: a list of pairs (b, g) for each."""
    given = state if isinstance(state, tuple) else (state,) * len(cells[0].widths)
    parts = []
    for value, width in zip(given, cells[0].widths):
        like = w.new_zeros(len(cells), R, width, dtype=cells[0].weight.dtype)
        parts.append(_parted(value, like, w[None], rules))
    return [[(part.b[number], part.g[number]) for part in parts] for number in range(len(cells))]


def _steps(module, x, state, rules):
    """The input as a Split (R,T,d), and its rows' lengths (R,) or None."""
    lengths, packed = None, isinstance(x, PackedSequence)
    if packed:
        x, lengths = pad_packed_sequence(x, batch_first=True)
        lengths = lengths.to(x.device)
    elif x.ndim != 3:
        raise UnsupportedOp(
            f"{type(module).__name__} over {tuple(x.shape)} has no rule: give it a batch, (rows, steps, width)"
        )
    elif not module.batch_first:
        x = x.transpose(0, 1)
    if not isinstance(x, Split):
        source = next(splits(state))
        w = source.w.expand_as(source.b).transpose(0, 1).flatten(1).mean(1)
        x = _parted(x, x, w[:, None, None], rules)
    return x, torch.full((len(x.b),), x.b.shape[1], device=x.b.device) if lengths is None else lengths


@register_rule(nn.LSTM, nn.GRU, nn.RNN)
def recurrent(rules, module, input, hx=None):
    """Output and last states, for padded rows or a packed sequence of rows of different lengths."""
    directions, packed = 1 + module.bidirectional, input
    x, lengths = _steps(module, input, hx, rules)
    valid = torch.arange(x.b.shape[1], device=x.b.device) < lengths[:, None]
    w = (x.w.expand_as(x.b).mean(2) * valid).sum(1, keepdim=True) / lengths[:, None]  # (R,1), of the rows' steps
    suffixes = [f"_l{layer}{end}" for layer in range(module.num_layers) for end in ("", "_reverse")[:directions]]
    cells, last = [_cell(module, suffix) for suffix in suffixes], []
    rows = torch.arange(len(x.b), device=x.b.device)
    starts = _starts(hx, cells, len(rows), w, rules)
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            y, states = _run(_turned(x, lengths) if direction else x, cells[number], starts[number], rules)
            last.append([part[rows, lengths - 1] for pair in states for part in pair])
            outputs.append(_turned(y, lengths) if direction else y)
        x = x.like(*(torch.cat([getattr(y, part) for y in outputs], 2) for part in "bg"), outputs[0].w)
    last = [torch.stack(part) for part in zip(*last)]
    states = tuple(x.like(b, g, w[None]) for b, g in zip(last[::2], last[1::2]))
    return _as_given(module, x, packed, lengths), states if len(states) > 1 else states[0]


def _as_given(module, x, given, lengths):
    """The output (R,T,h) in the layout of the input: packed, or with the steps first."""
    if not isinstance(given, PackedSequence):
        return x if module.batch_first else x.each(lambda part: part.transpose(0, 1))
    order = given.sorted_indices
    order = torch.arange(len(lengths), device=lengths.device) if order is None else order
    y = pack_padded_sequence(x.index_select(0, order), lengths[order].cpu(), batch_first=True)
    return PackedSequence(y.data, given.batch_sizes, given.sorted_indices, given.unsorted_indices)


@register_rule(nn.LSTMCell, nn.GRUCell, nn.RNNCell)
def cell(rules, module, input, hx=None):
    """The states after one step: (h, c) of an LSTMCell, else h."""
    source = next(splits((input, hx)))
    if input.ndim != 2:
        raise UnsupportedOp(f"{type(module).__name__} over {tuple(input.shape)} has no rule: give it a batch of rows")
    of_row = source.w.expand_as(source.b).mean(1, keepdim=True)
    x, own = _parted(input, input, of_row, rules), _cell(module)
    given = hx if isinstance(hx, tuple) else (hx,) * len(own.widths)
    zeros = [x.b.new_zeros(len(x.b), width) for width in own.widths]
    states = [_parted(value, zero, of_row, rules) for value, zero in zip(given, zeros)]
    pairs = _next(own, _both((x.b, x.g), own.weight), [(s.b, s.g) for s in states], _shares(x, rules), rules)
    w = torch.stack([s.w.expand_as(s.b).mean(1, keepdim=True) for s in (x, states[0])]).mean(0)
    states = tuple(x.like(b, g, w) for b, g in pairs)
    return states if len(states) > 1 else states[0]
