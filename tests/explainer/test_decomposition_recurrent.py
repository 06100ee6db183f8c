"""Contextual decomposition of GRU, RNN and of cells: sums, end points, the recursion by hand, and equal networks."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from explainer.decomposition import cd, cd_text

LENGTHS = torch.tensor([7, 3, 5, 7])
KINDS = {
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **kwargs: nn.RNN(*args, nonlinearity="relu", **kwargs),
    "lstm": nn.LSTM,
}


class Tagger(nn.Module):
    """Logits of the mean over the steps and of the last states, from first states that are learned or zero."""

    def __init__(self, kind, layers=1, packed=False, learned=False, **options):
        super().__init__()
        self.embedding, self.net = nn.Embedding(30, 6), KINDS[kind](6, 5, layers, **options)
        directions = 1 + self.net.bidirectional
        self.mean, self.last, self.packed = nn.Linear(5 * directions, 3), nn.Linear(5, 3), packed
        names = ("h", "c") if kind == "lstm" else ("h",)
        self.first = nn.ParameterDict({n: torch.randn(layers * directions, 1, 5) for n in names}) if learned else None

    def forward(self, ids, lengths=None):
        x = self.embedding(ids)
        start = None
        if self.first is not None:
            start = tuple(p.expand(-1, len(ids), -1).contiguous() for p in self.first.values())
            start = start if len(start) > 1 else start[0]
        if self.packed:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        elif not self.net.batch_first:
            x = x.transpose(0, 1)
        y, state = self.net(x, start)
        y = pad_packed_sequence(y, batch_first=True)[0] if self.packed else y
        state = state[0] if isinstance(self.net, nn.LSTM) else state
        return self.mean(y.sum(1 if self.net.batch_first else 0)) + self.last(state.sum(0))


def masks_of(lengths, Q=20):
    masks = torch.rand(len(lengths), Q, 7) > torch.rand(len(lengths), Q, 1)
    masks[:, 0], masks[:, 1] = True, False
    return masks & (torch.arange(7) < lengths[:, None])[:, None]


def check_ends(scores, expected, tolerance=1e-10):
    torch.testing.assert_close(scores.logits, expected)
    whole = expected[:, None].expand_as(scores.rel)
    torch.testing.assert_close(scores.rel + scores.irrel, whole, rtol=tolerance, atol=tolerance)
    assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any()
    assert scores.rel[:, 2:].any() and scores.irrel[:, 2:].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 3, "bidirectional": True, "dropout": 0.5},
        {"packed": True, "layers": 2},
        {"packed": True, "bidirectional": True, "learned": True},
        {"batch_first": False, "bidirectional": True, "layers": 2, "learned": True},
        {"bias": False},
    ],
)
def test_parts_sum_to_the_output_and_end_points_are_exact(kind, options):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        torch.manual_seed(0)
        model, ids = Tagger(kind, **{"batch_first": True, **options}).to(dtype), torch.randint(0, 30, (4, 7))
        lengths = LENGTHS if model.packed else None
        masks = masks_of(LENGTHS if model.packed else torch.full((4,), 7))
        with torch.no_grad():
            scores = cd_text(model, ids, masks, lengths=lengths)
            assert model.training
            check_ends(scores, model.eval()(ids, lengths), tolerance)


@pytest.mark.parametrize("kind", ["gru", "tanh", "relu"])
def test_a_packed_sentence_is_the_sentence_alone(kind):
    torch.manual_seed(0)
    model, ids = Tagger(kind, 2, packed=True, batch_first=True, bidirectional=True).double(), torch.randint(30, (4, 7))
    masks = masks_of(LENGTHS)
    together = cd_text(model, ids, masks, lengths=LENGTHS)
    model.packed = False
    for n, T in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(cd_text(model, ids[n : n + 1, :T], masks[n, :, :T]).rel[0], together.rel[n])


def three_by_hand(f, b, g, c):
    return (f(b + c) - f(c) + f(b + g + c) - f(g + c)) / 2, (f(g + c) - f(c) + f(b + g + c) - f(b + c)) / 2, f(c)


def gru_by_hand(net, vectors, mask, bias_rule):
    """Products written out over (b, g, c): relevant without a g and with a b, the rest but all constants irrelevant."""
    (Wr, Wz, Wn), (Ur, Uz, Un) = net.weight_ih_l0.chunk(3), net.weight_hh_l0.chunk(3)
    (ar, az, an), (er, ez, en) = net.bias_ih_l0.chunk(3), net.bias_hh_l0.chunk(3)

    def times(p, q):
        kinds = [[(p[i] * q[j], {i, j}) for j in range(3)] for i in range(3)]
        flat = [pair for row in kinds for pair in row]
        return [
            sum(v for v, s in flat if 1 not in s and 0 in s),
            sum(v for v, s in flat if 1 in s),
            sum(v for v, s in flat if s == {2}),
        ]

    h = [torch.zeros(net.hidden_size, dtype=Wr.dtype)] * 2
    for x, m in zip(vectors, mask):
        xb, xg, w = x * m, x * (1 - m), m if bias_rule == "mask" else 0.0
        r = three_by_hand(torch.sigmoid, Wr @ xb + Ur @ h[0], Wr @ xg + Ur @ h[1], ar + er)
        z = three_by_hand(torch.sigmoid, Wz @ xb + Uz @ h[0], Wz @ xg + Uz @ h[1], az + ez)
        inner = times(r, (Un @ h[0], Un @ h[1], en))
        n = three_by_hand(torch.tanh, Wn @ xb + inner[0], Wn @ xg + inner[1], an + inner[2])
        new, kept = times((-z[0], -z[1], 1 - z[2]), n), times(z, (h[0], h[1], torch.zeros_like(h[0])))
        h = [new[0] + kept[0] + w * new[2], new[1] + kept[1] + (1 - w) * new[2]]
    return h


def by_last_state(model):
    for p in (model.mean.weight, model.mean.bias, model.last.bias):
        nn.init.zeros_(p)
    return model.last.weight


@pytest.mark.parametrize("bias_rule", ["mask", "irrelevant"])
def test_the_recursion_of_the_gru_by_hand(bias_rule):
    torch.manual_seed(0)
    model, ids = Tagger("gru", batch_first=True).double(), torch.randint(0, 30, (7,))
    weight, mask = by_last_state(model), torch.tensor([0, 1, 1, 0, 1, 0, 0]).double()
    hb, hg = gru_by_hand(model.net, model.embedding.weight[ids], mask, bias_rule)
    scores = cd_text(model, ids[None], mask[None], bias_rule=bias_rule)
    torch.testing.assert_close(scores.rel[0, 0], weight @ hb)
    torch.testing.assert_close(scores.irrel[0, 0], weight @ hg)


class WrittenOut(nn.Module):
    """A Tagger's RNN, or its GRU with gates that are constants, in basic operations."""

    def __init__(self, tagger, f, r=1.0, z=0.0):
        super().__init__()
        self.tagger, self.f, self.r, self.z = tagger, f, r, z

    def forward(self, ids):
        net, x = self.tagger.net, self.tagger.embedding(ids)
        W, U = (getattr(net, f"weight_{kind}_l0")[-net.hidden_size :] for kind in ("ih", "hh"))
        h = x.new_zeros(len(ids), net.hidden_size)
        for t in range(ids.shape[1]):
            n = self.f(nn.functional.linear(x[:, t], W) + nn.functional.linear(h, U) * self.r)
            h = n * (1 - self.z) + h * self.z
        return nn.functional.linear(h, self.tagger.last.weight)


@pytest.mark.parametrize("relu", ["acd", "shapley"])
@pytest.mark.parametrize(("kind", "f"), [("tanh", torch.tanh), ("relu", torch.relu)])
def test_an_rnn_without_biases_is_the_same_network_written_out(kind, f, relu):
    torch.manual_seed(0)
    model, ids, masks = Tagger(kind, batch_first=True, bias=False).double(), torch.randint(30, (2, 7)), torch.eye(7)
    by_last_state(model)
    expected = cd_text(WrittenOut(model, f), ids, masks, relu=relu)
    torch.testing.assert_close(cd_text(model, ids, masks, relu=relu).rel, expected.rel)


def test_a_gru_with_constant_gates_is_the_same_network_written_out():
    torch.manual_seed(0)
    model, ids, masks = Tagger("gru", batch_first=True).double(), torch.randint(30, (2, 7)), torch.rand(5, 7)
    by_last_state(model)
    net, r, z = model.net, torch.tensor(0.3), torch.tensor(-0.8)
    with torch.no_grad():
        net.weight_ih_l0[:10], net.weight_hh_l0[:10] = 0.0, 0.0
        net.bias_ih_l0[:], net.bias_hh_l0[:] = 0.0, 0.0
        net.bias_ih_l0[:5], net.bias_hh_l0[5:10] = r, z
    expected = cd_text(WrittenOut(model, torch.tanh, float(r.sigmoid()), float(z.sigmoid())), ids, masks)
    torch.testing.assert_close(cd_text(model, ids, masks).rel, expected.rel, rtol=1e-6, atol=1e-8)


class Loop(nn.Module):
    """A cell in a loop, with the weights of one layer; start: from zeros that are given."""

    def __init__(self, tagger, start):
        super().__init__()
        net, self.tagger, self.start = tagger.net, tagger, start
        cells = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}
        more = {"nonlinearity": net.nonlinearity} if isinstance(net, nn.RNN) else {}
        self.cell = cells[type(net)](6, 5, net.bias, **more).double()
        own = {name.removesuffix("_l0"): value for name, value in net.state_dict().items()}
        self.cell.load_state_dict(own)

    def forward(self, ids):
        x, h = self.tagger.embedding(ids), None
        if self.start:
            zero = x.new_zeros(len(ids), 5)
            h = (zero, zero) if isinstance(self.cell, nn.LSTMCell) else zero
        for t in range(ids.shape[1]):
            h = self.cell(x[:, t], h)
        return self.tagger.last(h[0] if isinstance(self.cell, nn.LSTMCell) else h)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_cells_in_a_loop_are_the_layer(kind, options):
    torch.manual_seed(0)
    model, ids, masks = Tagger(kind, batch_first=True, **options).double(), torch.randint(30, (4, 7)), masks_of(LENGTHS)
    nn.init.zeros_(model.mean.weight), nn.init.zeros_(model.mean.bias)
    expected = cd_text(model, ids, masks)
    for start in (False, True):
        loop = Loop(model, start)
        torch.testing.assert_close(cd_text(loop, ids, masks).rel, expected.rel)
        with torch.no_grad():
            torch.testing.assert_close(loop(ids), expected.logits)


class Decoder(nn.Module):
    """A network whose steps are constants, and whose first state is the input's."""

    def __init__(self, kind):
        super().__init__()
        self.encode, self.net, self.fc = nn.Linear(4, 5), KINDS[kind](3, 5, batch_first=True), nn.Linear(5, 2)
        self.steps = nn.Parameter(torch.randn(1, 4, 3))

    def forward(self, x):
        h = self.encode(x)[None]
        start = (h, torch.zeros_like(h)) if isinstance(self.net, nn.LSTM) else h
        return self.fc(self.net(self.steps.expand(len(x), -1, -1), start)[0][:, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_state_that_depends_on_the_input(kind):
    torch.manual_seed(0)
    model, x, masks = Decoder(kind).double(), torch.randn(3, 4).double(), torch.rand(6, 4) > 0.5
    masks[0], masks[1] = True, False
    with torch.no_grad():
        check_ends(cd(model, x, masks), model(x))


@pytest.mark.parametrize("kind", ["gru", "tanh", "relu"])
def test_gradients_are_finite_and_reach_every_weight(kind):
    torch.manual_seed(0)
    model = Tagger(kind, 2, bidirectional=True, batch_first=True, learned=True).double()
    cd_text(model, torch.randint(0, 30, (2, 7)), torch.eye(7)).rel.square().sum().backward()
    for p in [*model.net.parameters(), *model.first.parameters()]:
        assert torch.isfinite(p.grad).all() and p.grad.any()


class Alone(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_without_a_batch_is_refused_by_name(kind):
    net = KINDS[kind](4, 2)
    with pytest.raises(ValueError, match=rf"{type(net).__name__} over \(1, 4\) has no rule: give it a batch"):
        cd(Alone(net), torch.ones(1, 4), torch.ones(1, 4))
