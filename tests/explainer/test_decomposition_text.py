"""Contextual decomposition of recurrent networks over tokens."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from explainer.decomposition import cd_text
from models.RNN.RNN import SentimentLSTM

LENGTHS = torch.tensor([7, 3, 5, 7])


class Tagger(nn.Module):
    """An LSTM over words; logits from the mean of its outputs and from its last states."""

    def __init__(self, layers=1, bidirectional=False, packed=False, batch_first=True, proj_size=0, classes=3):
        super().__init__()
        self.embedding = nn.Embedding(30, 6)
        self.lstm = nn.LSTM(6, 5, layers, bidirectional=bidirectional, batch_first=batch_first, proj_size=proj_size)
        width = (proj_size or 5) * (1 + bidirectional)
        self.mean, self.last, self.packed = nn.Linear(width, classes), nn.Linear(width, classes), packed

    def forward(self, ids, lengths=None):
        x = self.embedding(ids)
        if self.packed:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, (h, _) = self.lstm(x)
            y = pad_packed_sequence(y, batch_first=True)[0].sum(1)
        else:
            y, (h, _) = self.lstm(x if self.lstm.batch_first else x.transpose(0, 1))
            y = y.mean(1 if self.lstm.batch_first else 0)
        last = torch.cat([h[-2], h[-1]], 1) if self.lstm.bidirectional else h[-1]
        return self.mean(y) + self.last(last)


def masks_of(lengths, Q=50):
    valid = torch.arange(7) < lengths[:, None]
    masks = torch.rand(len(lengths), Q, 7) > torch.rand(len(lengths), Q, 1)
    masks[:, 0], masks[:, 1] = True, False
    return masks & valid[:, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("more", [{}, {"packed": True}, {"batch_first": False}, {"proj_size": 3}])
def test_parts_sum_to_the_output_and_end_points_are_exact(layers, bidirectional, more, dtype):
    torch.manual_seed(0)
    model, ids = Tagger(layers, bidirectional, **more).to(dtype), torch.randint(0, 30, (4, 7))
    lengths = LENGTHS if "packed" in more else None
    masks = masks_of(LENGTHS if "packed" in more else torch.full((4,), 7))
    with torch.no_grad():
        scores, expected = cd_text(model, ids, masks, lengths=lengths), model(ids, lengths)
    torch.testing.assert_close(scores.logits, expected)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        scores.rel + scores.irrel, expected[:, None].expand_as(scores.rel), rtol=0, atol=tolerance
    )
    assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any() and scores.rel[:, 2:].any()


def test_the_network_of_this_repository():
    torch.manual_seed(0)
    model, ids, masks = SentimentLSTM(30, 6, 5).double(), torch.randint(2, 30, (4, 7)), masks_of(LENGTHS)
    model.train()
    with torch.no_grad():
        scores = cd_text(model, ids, masks, lengths=LENGTHS)
        assert model.training
        expected = model.eval()(ids, LENGTHS)
    torch.testing.assert_close(scores.rel + scores.irrel, expected[:, None].expand_as(scores.rel))
    assert not scores.irrel[:, 0].any() and not scores.rel[:, 1].any()
    cut = cd_text(model, ids[1:2, :3], masks[1:2, :, :3], lengths=LENGTHS[1:2])
    torch.testing.assert_close(cut.rel[0], scores.rel[1])


def steps_by_hand(model, ids, mask, bias_rule):
    """The recursion of the paper, one token and one scalar formula after the other."""
    lstm, h = model.lstm, model.lstm.hidden_size
    W, U, c = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0
    hb = hg = cb = cg = torch.zeros(h, dtype=W.dtype)
    sigmoid, tanh, outputs = torch.sigmoid, torch.tanh, []
    for t, token in enumerate(ids):
        x = model.embedding.weight[token]
        zb, zg = W @ (x * mask[t]) + U @ hb, W @ (x * (1 - mask[t])) + U @ hg
        parts = {}
        for k, (name, f) in enumerate((("i", sigmoid), ("f", sigmoid), ("q", tanh))):
            b, g, bias = zb[k * h : (k + 1) * h], zg[k * h : (k + 1) * h], c[k * h : (k + 1) * h]
            L_b = ((f(b + bias) - f(bias)) + (f(b + g + bias) - f(g + bias))) / 2
            L_g = ((f(g + bias) - f(bias)) + (f(b + g + bias) - f(b + bias))) / 2
            parts[name] = L_b, L_g, f(bias)
        (ib, ig, ic), (fb, fg, fc), (qb, qg, qc) = parts["i"], parts["f"], parts["q"]
        w = mask[t] if bias_rule == "mask" else 0.0
        new_b = (fb + fc) * cb + ib * (qb + qc) + ic * qb + w * ic * qc
        new_g = (fb + fg + fc) * cg + fg * cb + ig * (qb + qg + qc) + (ib + ic) * qg + (1 - w) * ic * qc
        out = sigmoid(zb[3 * h :] + zg[3 * h :] + c[3 * h :])
        cb, cg = new_b, new_g
        hb = out * (tanh(cb) + tanh(cb + cg) - tanh(cg)) / 2
        hg = out * (tanh(cg) + tanh(cb + cg) - tanh(cb)) / 2
        outputs.append((hb, hg))
    return outputs


@pytest.mark.parametrize("bias_rule", ["mask", "irrelevant"])
def test_the_recursion_of_the_paper(bias_rule):
    torch.manual_seed(0)
    model, ids = Tagger().double(), torch.randint(0, 30, (7,))
    nn.init.zeros_(model.mean.weight), nn.init.zeros_(model.mean.bias), nn.init.zeros_(model.last.bias)
    mask = torch.tensor([0, 1, 1, 0, 1, 0, 0]).double()
    hb, hg = steps_by_hand(model, ids, mask, bias_rule)[-1]
    scores = cd_text(model, ids[None], mask[None], bias_rule=bias_rule)
    torch.testing.assert_close(scores.rel[0, 0], model.last.weight @ hb)
    torch.testing.assert_close(scores.irrel[0, 0], model.last.weight @ hg)


def test_gradients_reach_the_recurrent_weights():
    torch.manual_seed(0)
    model, ids, masks = Tagger(2, True).double(), torch.randint(0, 30, (2, 5)), torch.eye(5)
    cd_text(model, ids, masks).rel.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.lstm.parameters())


class TwoEmbeddings(Tagger):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(7, 6)

    def forward(self, ids, lengths=None):
        x = self.embedding(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.mean(self.lstm(x)[0].mean(1))


def test_which_embedding_is_asked_for():
    model, ids, masks = TwoEmbeddings().double(), torch.randint(0, 30, (2, 7)), torch.eye(7)
    with pytest.raises(ValueError, match="embedding is 'auto', and the model's are: embedding, positions"):
        cd_text(model, ids, masks)
    scores = cd_text(model, ids, masks, embedding="embedding")
    torch.testing.assert_close(scores.rel + scores.irrel, scores.logits[:, None].expand_as(scores.rel))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": torch.zeros(1, 7)}, r"ids are torch.float32 \(1, 7\): give whole numbers"),
        ({"masks": torch.ones(1, 8)}, r"token_masks have the shape \(1, 8\): give \(Q, 7\)"),
        ({"lengths": torch.tensor([5])}, "a mask is longer than its sentence"),
        ({"bias_rule": "both"}, "bias_rule is 'both': give mask or irrelevant"),
    ],
)
def test_bad_input(change, said):
    given = {"ids": torch.zeros(1, 7, dtype=torch.long), "masks": torch.ones(1, 7), **change}
    with pytest.raises(ValueError, match=said):
        cd_text(Tagger(), given.pop("ids"), given.pop("masks"), **given)


def test_padding_that_a_model_reads_is_a_constant():
    class Reads(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.e, self.r, self.fc = torch.nn.Embedding(20, 4), kind(4, 5, batch_first=True), torch.nn.Linear(5, 2)

        def forward(self, ids, lengths):
            return self.fc(self.r(self.e(ids))[0].mean(1))

    torch.manual_seed(0)
    lengths, masks = torch.tensor([6, 3]), torch.zeros(2, 3, 6)
    masks[0, 1], masks[1, 1, :3], masks[:, 2, 0] = 1, 1, 1
    for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
        model, ids = Reads(kind), torch.randint(1, 20, (2, 6))
        ids[1, 3:] = 0
        scores = cd_text(model, ids, masks, lengths=lengths)
        torch.testing.assert_close(scores.rel + scores.irrel, model(ids, lengths)[:, None].expand(2, 3, 2))
        assert not scores.rel[:, 0].any() and not scores.irrel[:, 1].any() and scores.irrel[1, 2].any()
