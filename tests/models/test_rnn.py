"""The LSTM and its batches: every feature exact, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from models.RNN import utils_imdb
from models.RNN.batches import Reviews
from models.RNN.RNN import PAD, SentimentLSTM, kept, turn

LENGTHS = (5, 9, 1, 9, 2)


def ragged(lengths=LENGTHS, seed=0):
    """Tokenized reviews of these lengths."""
    generator = np.random.default_rng(seed)
    words = generator.integers(2, 50, sum(lengths)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return utils_imdb.Reviews(words, starts, generator.integers(0, 2, len(lengths)), np.arange(len(lengths)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SentimentLSTM(50, dim=7, hidden=6).eval()


def packed(network, tokens, lengths):
    """The same features by torch's bidirectional LSTM over a packed sequence."""
    reference = nn.LSTM(7, 6, 2, bidirectional=True, batch_first=True)
    for k in range(2):
        for suffix, layer in (("", network.forwards[k]), ("_reverse", network.backwards[k])):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(reference, f"{name}_l{k}{suffix}").data = getattr(layer, f"{name}_l0").data
    sequence = pack_padded_sequence(network.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
    _, (hidden, _) = reference(sequence)
    return torch.cat([hidden[-2], hidden[-1]], dim=1)


def test_features_are_those_of_a_packed_bidirectional_lstm(network):
    tokens, lengths = Reviews(ragged()).tokens(torch.arange(5))
    with torch.no_grad():
        torch.testing.assert_close(network.features(tokens, lengths), packed(network, tokens, lengths))


def test_gradients_are_those_of_a_packed_bidirectional_lstm(network):
    tokens, lengths = Reviews(ragged()).tokens(torch.arange(5))
    gradients = []
    for route in (network.features, lambda *batch: packed(network, *batch)):
        network.zero_grad()
        route(tokens, lengths).square().sum().backward()
        gradients.append(network.embedding.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_features_are_the_recurrences_written_out(network):
    """One review, word by word, by the LSTM's equations."""
    words = torch.tensor([4, 9, 30])
    x = network.embedding(words).detach()

    def states(layer, x):
        w_ih, w_hh, b_ih, b_hh = (p.detach() for p in layer.parameters())
        h, c, all_h = torch.zeros(6), torch.zeros(6), []
        for word in x:
            i, f, g, o = (w_ih @ word + b_ih + w_hh @ h + b_hh).split(6)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            all_h.append(h)
        return torch.stack(all_h)

    for forward, backward in zip(network.forwards, network.backwards):
        ahead, back = states(forward, x), states(backward, x.flip(0)).flip(0)
        x = torch.cat([ahead, back], 1)
    expected = torch.cat([ahead[-1], back[0]])
    with torch.no_grad():
        torch.testing.assert_close(network.features(words[None], torch.tensor([3]))[0], expected)


def test_padding_and_company_change_no_feature(network):
    reviews = Reviews(ragged())
    with torch.no_grad():
        together = network.features(*reviews.tokens(torch.arange(5)))
        for i in range(5):
            tokens, length = reviews.tokens(torch.tensor([i]))
            torch.testing.assert_close(network.features(tokens, length)[0], together[i])
            longer = torch.cat([tokens, torch.full((1, 7), PAD)], 1)
            torch.testing.assert_close(network.features(longer, length)[0], together[i])
            other = torch.cat([tokens, torch.full((1, 7), 33)], 1)  # whatever stands where the padding is
            torch.testing.assert_close(network.features(other, length)[0], together[i])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_what_is_kept_is_drawn_with_its_probability_for_each_element_alone(p):
    mask = kept(torch.empty(3, 70001), p, torch.Generator().manual_seed(0))
    assert mask.dtype == torch.float32 and set(mask.unique().tolist()) == {0.0, 1.0}
    n = mask.numel()
    assert abs(mask.mean().item() - (1 - p)) < 4 * (p * (1 - p) / n) ** 0.5
    flat = mask.flatten() - (1 - p)
    for lag in range(1, 9):  # four neighbours come from one draw
        correlation = (flat[lag:] * flat[:-lag]).mean().item() / (p * (1 - p))
        assert abs(correlation) < 4 / n**0.5


def test_dropout_drops_half_and_keeps_the_mean_only_while_training(network):
    x, generator = torch.ones(4, 5000), torch.Generator().manual_seed(0)
    assert network._dropout(x, generator) is x
    network.train()
    dropped = network._dropout(x, generator)
    network.eval()
    assert set(dropped.unique().tolist()) == {0.0, 2.0} and abs(dropped.mean() - 1) < 0.03
    again = torch.Generator().manual_seed(0)
    network.train()
    torch.testing.assert_close(network._dropout(x, again), dropped)
    network.eval()


def test_turning_round_twice_changes_nothing():
    positions = turn(9, torch.tensor(LENGTHS))
    assert positions[0].tolist() == [4, 3, 2, 1, 0, 5, 6, 7, 8]
    torch.testing.assert_close(positions.gather(1, positions), torch.arange(9).expand(5, 9))


def test_tokens_are_the_reviews_and_padding():
    source = ragged()
    tokens, lengths = Reviews(source).tokens(torch.tensor([2, 0]))
    assert lengths.tolist() == [1, 5] and tokens.shape == (2, 5)
    assert tokens[0].tolist() == [source.review(2)[0], PAD, PAD, PAD, PAD]
    assert tokens[1].tolist() == source.review(0).tolist()
    tokens, lengths = Reviews(source.choose(np.arange(5), max_length=3)).tokens(torch.arange(5))
    assert lengths.tolist() == [3, 3, 1, 3, 2] and tokens[1].tolist() == source.review(1)[:3].tolist()


def test_batches_hold_every_review_once_and_similar_lengths():
    lengths = np.random.default_rng(1).integers(1, 400, 5000)
    reviews = Reviews(ragged(tuple(lengths)))
    batches = reviews.rows(16, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(5000)) and max(map(len, batches)) == 16
    padded = sum(len(rows) * int(reviews.lengths[rows].max()) for rows in batches)
    assert padded < 1.05 * lengths.sum()
    again = reviews.rows(16, torch.Generator().manual_seed(0))
    assert all(map(torch.equal, batches, again))
    other = reviews.rows(16, torch.Generator().manual_seed(1))
    assert not all(a.equal(b) for a, b in zip(batches, other))
    ordered = reviews.sorted_batches(3000)
    assert sorted(torch.cat(ordered).tolist()) == list(range(5000))
    assert all(len(rows) * int(reviews.lengths[rows].max()) <= 3000 for rows in ordered)
