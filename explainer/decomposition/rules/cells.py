"""One step of the LSTM, the GRU and the RNN in two parts (Murdoch et al., 2018; Singh et al., 2019).

Of every gate's pre-activation three parts are kept: z_b from the relevant input and state, z_g from the irrelevant
ones, and the bias c. A gate splits into i_b + i_g + i_c, with i_c = sigmoid(c); products of parts go where the paper
sends them: to the relevant part where no factor is irrelevant and one at least is relevant. What the biases do alone,
the drive, is relevant by the share w of the step's input that the mask covers. Letters have (R,h), weights act as W x.

LSTM. c' = f c + i q, with the drive i_c q_c; h' = o tanh(c'), the output gate o that of the whole activation.

GRU. r, z = sigmoid(W x + U h + c), n = tanh(W x + c + r (U h + d)), h' = (1 - z) n + z h. With u = U h in the parts
u_b and u_g, and the bias d, the product r u splits as the paper's into
    r_b (u_b + d) + r_c u_b,    r_g (u_b + u_g + d) + (r_b + r_c) u_g,    r_c d,
of which the last is a constant of n's pre-activation. As 1 - z has the parts -z_b, -z_g and 1 - z_c,
    h'_b = (z_b + z_c) h_b - z_b (n_b + n_c) + (1 - z_c) n_b + w (1 - z_c) n_c
    h'_g = (z_b + z_g + z_c) h_g + z_g h_b - z_g (n_b + n_g + n_c) + (1 - z_b - z_c) n_g + (1 - w) (1 - z_c) n_c,
whose sum is h'. The drive is (1 - z_c) n_c.

RNN. h' = f(W x + U h + c) splits into f_b + f_g + f_c, and the drive is f_c = f(c). Without biases it is what the
rules of tanh and ReLU make of the same network written out.
"""

import torch


def three(f, b, g, c, order="mean"):
    """f(b+g+c) = L_b + L_g + L_c with L_c = f(c), b and g in the mean over both orders, or ("first") b before g.

    Every f is taken of a tensor of one shape, so that equal entries have equal results to the last bit.
    """
    fc, fb, whole = f(c.expand(b.shape).contiguous()), f(b + c), f(b + g + c)
    if order == "first":
        return fb - fc, whole - fb, fc
    fg = f(g + c)
    return (fb - fc + whole - fg) / 2, (fg - fc + whole - fb) / 2, fc


def two_tanh(b, g):
    """tanh(b+g) in two parts."""
    tb, tg, whole = b.tanh(), g.tanh(), (b + g).tanh()
    return (tb + whole - tg) / 2, (tg + whole - tb) / 2


def lstm_step(x, u, c, states, w, rules):
    """x, u: pairs (R,4h), what the weights make of input and state. c (4h,). states: pairs (h, c). w (R,1)."""
    zb, zg = x[0] + u[0], x[1] + u[1]
    (ib, fb, qb, ob), (ig, fg, qg, og), (ci, cf, cq, co) = (z.chunk(4, -1) for z in (zb, zg, c))
    ib, ig, ic = three(torch.sigmoid, ib, ig, ci)
    fb, fg, fc = three(torch.sigmoid, fb, fg, cf)
    qb, qg, qc = three(torch.tanh, qb, qg, cq)
    cb, cg = states[1]
    drive = ic * qc
    new_b = (fb + fc) * cb + ib * (qb + qc) + ic * qb + w * drive
    new_g = (fb + fg + fc) * cg + fg * cb + ig * (qb + qg + qc) + (ib + ic) * qg + (1 - w) * drive
    out = (ob + og + co).sigmoid()
    hb, hg = two_tanh(new_b, new_g)
    return (out * hb, out * hg), (new_b, new_g)


def gru_step(x, u, c, states, w, rules):
    """x, u: pairs (R,3h). c: both biases (3h,), of the input and of the state. states: ((h_b, h_g),)."""
    (own, of_state), h = c, u[0].shape[-1] // 3
    gates = three(torch.sigmoid, *(p[..., : 2 * h] + q[..., : 2 * h] for p, q in zip(x, u)), (own + of_state)[: 2 * h])
    (rb, zb), (rg, zg), (rc, zc) = (part.chunk(2, -1) for part in gates)
    ub, ug, d = u[0][..., 2 * h :], u[1][..., 2 * h :], of_state[2 * h :]
    pre_b = x[0][..., 2 * h :] + rb * (ub + d) + rc * ub
    pre_g = x[1][..., 2 * h :] + rg * (ub + ug + d) + (rb + rc) * ug
    nb, ng, nc = three(torch.tanh, pre_b, pre_g, own[2 * h :] + rc * d)
    hb, hg = states[0]
    rest = 1 - zc
    drive = rest * nc
    new_b = (zb + zc) * hb - zb * (nb + nc) + rest * nb + w * drive
    new_g = (zb + zg + zc) * hg + zg * hb - zg * (nb + ng + nc) + (rest - zb) * ng + (1 - w) * drive
    return ((new_b, new_g),)


def rnn_step(f):
    """The step of an RNN with the activation f: x, u: pairs (R,h); c (h,)."""

    def step(x, u, c, states, w, rules):
        order = "first" if f is torch.relu and rules.relu == "acd" else "mean"
        b, g, drive = three(f, x[0] + u[0], x[1] + u[1], c, order)
        return ((b + w * drive, g + (1 - w) * drive),)

    return step
