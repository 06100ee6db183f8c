"""Recurrent networks: the LSTM of any number of layers and both directions (Murdoch et al., 2018; Singh et al., 2019).

Of every gate's pre-activation three parts are kept: z_b from the relevant input and state, z_g from the irrelevant
ones, and the bias c. A gate splits into i_b + i_g + i_c, with i_c = sigmoid(c); products of parts go where the paper
sends them. The output gate is that of the whole activation.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from explainer.decomposition.registry import register_rule
from explainer.decomposition.split import UnsupportedOp


def three(f, b, g, c):
    """f(b+g+c) = L_b + L_g + L_c with L_c = f(c), b and g in the mean over both orders.

    Every f is taken of a tensor of one shape, so that equal entries have equal results to the last bit.
    """
    fc, fb, fg, whole = f(c.expand(b.shape).contiguous()), f(b + c), f(g + c), f(b + g + c)
    return (fb - fc + whole - fg) / 2, (fg - fc + whole - fb) / 2, fc


def two_tanh(b, g):
    """tanh(b+g) in two parts."""
    tb, tg, whole = b.tanh(), g.tanh(), (b + g).tanh()
    return (tb + whole - tg) / 2, (tg + whole - tb) / 2


def _step(zb, zg, c, state, w):
    """One step of an LSTM. zb, zg (R,4h): pre-activations. c (4h,): bias. state: (c_b, c_g). w (R,1)."""
    (ib, fb, qb, ob), (ig, fg, qg, og), (ci, cf, cq, co) = (z.chunk(4, -1) for z in (zb, zg, c))
    ib, ig, ic = three(torch.sigmoid, ib, ig, ci)
    fb, fg, fc = three(torch.sigmoid, fb, fg, cf)
    qb, qg, qc = three(torch.tanh, qb, qg, cq)
    cb, cg = state
    drive = ic * qc
    new_b = (fb + fc) * cb + ib * (qb + qc) + ic * qb + w * drive
    new_g = (fb + fg + fc) * cg + fg * cb + ig * (qb + qg + qc) + (ib + ic) * qg + (1 - w) * drive
    out = (ob + og + co).sigmoid()
    hb, hg = two_tanh(new_b, new_g)
    return out * hb, out * hg, (new_b, new_g)


def _run(x, cell, start, rules):
    """One direction over x, a Split (R,T,d): a Split (R,T,h), and the last cell states (b, g)."""
    weight, recurrent, bias, projection = cell
    R, T = x.b.shape[:2]
    zb, zg = (torch.cat([x.b, x.g]) @ weight.T).chunk(2)
    w = x.w[..., :1].expand(R, T, 1) if rules.bias_rule == "mask" else torch.zeros_like(x.b[:, :, :1])
    w = w.to(x.b.dtype)
    hb, hg, cell_state = *start[0], start[1]
    outputs_b, outputs_g, cells = [], [], []
    for t in range(T):
        back_b, back_g = (torch.cat([hb, hg]) @ recurrent.T).chunk(2)
        hb, hg, cell_state = _step(zb[:, t] + back_b, zg[:, t] + back_g, bias, cell_state, w[:, t])
        if projection is not None:
            hb, hg = hb @ projection.T, hg @ projection.T
        outputs_b.append(hb)
        outputs_g.append(hg)
        cells.append(cell_state)
    cells = [torch.stack(part, 1) for part in zip(*cells)]
    return x.like(torch.stack(outputs_b, 1), torch.stack(outputs_g, 1), w), cells


def _turned(x, lengths):
    """Rows turned round within their lengths, along the second dimension."""
    T = x.b.shape[1]
    t = torch.arange(T, device=x.b.device)
    positions = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return x.each(lambda part: part.gather(1, positions[:, :, None].expand(-1, -1, part.shape[2])))


def _cells(module):
    """(W_ih, W_hh, bias, projection or None) of every layer and direction of nn.LSTM."""
    for layer in range(module.num_layers):
        for suffix in [f"l{layer}", f"l{layer}_reverse"][: 1 + module.bidirectional]:
            own = {name: getattr(module, f"{name}_{suffix}", None) for name in ("weight_ih", "weight_hh", "weight_hr")}
            width = own["weight_ih"].shape[0]
            bias = own["weight_ih"].new_zeros(width)
            if module.bias:
                bias = getattr(module, f"bias_ih_{suffix}") + getattr(module, f"bias_hh_{suffix}")
            yield own["weight_ih"], own["weight_hh"], bias, own["weight_hr"]


def _starts(state, x, cells):
    """The first states of every cell: ((h_b, h_g), (c_b, c_g)); zeros, or a Split pair that was given."""
    R = len(x.b)
    for number, (_, recurrent, _, _) in enumerate(cells):
        pair = []
        for kind, width in ((0, recurrent.shape[1]), (1, recurrent.shape[0] // 4)):
            zero = x.b.new_zeros(R, width)
            given = None if state is None else state[kind]
            if isinstance(given, torch.Tensor):
                if given.any():
                    raise UnsupportedOp("an LSTM that starts from a constant state other than 0 has no rule")
                given = None
            pair.append((zero, zero) if given is None else (given.b[number], given.g[number]))
        yield pair


@register_rule(nn.LSTM)
def lstm(rules, module, x, state=None):
    """Output and last states of nn.LSTM, for padded rows or a packed sequence of rows of different lengths."""
    packed, lengths = x, None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=True)
        lengths = lengths.to(x.b.device)
    elif x.ndim != 3:
        raise UnsupportedOp(f"an LSTM over {tuple(x.shape)} has no rule: give it a batch, (rows, steps, width)")
    elif not module.batch_first:
        x = x.each(lambda part: part.transpose(0, 1))
    if lengths is None:
        lengths = torch.full((len(x.b),), x.b.shape[1], device=x.b.device)
    cells, last = list(_cells(module)), []
    starts, rows = list(_starts(state, x, cells)), torch.arange(len(x.b), device=x.b.device)
    directions = 1 + module.bidirectional
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            source = _turned(x, lengths) if direction else x
            y, c = _run(source, cells[number], starts[number], rules)
            last.append((y.b[rows, lengths - 1], y.g[rows, lengths - 1], *(part[rows, lengths - 1] for part in c)))
            outputs.append(_turned(y, lengths) if direction else y)
        x = x.like(*(torch.cat([getattr(y, part) for y in outputs], 2) for part in "bg"), outputs[0].w)
    hb, hg, cb, cg = (torch.stack(part) for part in zip(*last))
    w = x.w.mean(1)[None]
    states = x.like(hb, hg, w), x.like(cb, cg, w)
    if isinstance(packed, PackedSequence):
        order = torch.arange(len(rows)) if packed.sorted_indices is None else packed.sorted_indices
        y = pack_padded_sequence(x.index_select(0, order.to(rows.device)), lengths[order].cpu(), batch_first=True)
        return PackedSequence(y.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), states
    return (x if module.batch_first else x.each(lambda part: part.transpose(0, 1))), states
