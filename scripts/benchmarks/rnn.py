"""Training and evaluating the LSTM: reviews turned round within their length, beside torch's packed sequences."""

import copy
import itertools
import math
import time

import torch

from benchmarks.measure import seconds
from config import UserError, at_least_one, device, positive
from models.RNN.train import add_options as add_model_options
from models.RNN.train import last_layer, new_network, read
from models.training import binary_loss, keep_freed_memory


def add_options(parser):
    parser.add_argument("--seconds", type=positive, default=60, help="train so long by each route")
    parser.add_argument("--evaluated", type=at_least_one, default=200, help="test reviews to calculate features of")
    add_model_options(parser)
    parser.add_device()


def run(options):
    """Training and evaluating the LSTM: reviews turned round within their length, beside torch's packed sequences."""
    chosen = device(options.device)
    data = read(options, chosen)
    reviews, lengths = data.train, data.train.lengths
    network = new_network(data, options.hidden_dim, 0)
    packed = Packed(network).to(chosen)
    random = torch.randperm(len(reviews), generator=torch.Generator().manual_seed(0)).split(options.batch_size)
    similar = reviews.rows(options.batch_size, torch.Generator().manual_seed(0))
    routes = {  # model, batches, whether they are trained on in parts, bfloat16
        "packed sequences, random batches": (packed, random, False, False),
        "packed sequences, batches of similar length": (packed, similar, False, False),
        "ours, float32": (network, similar, True, False),
        "ours, bfloat16": (network, similar, True, True),
    }
    keep_freed_memory()
    print(
        f"LSTM on {options.dataset}: {len(reviews):,} reviews of {float(lengths.float().mean()):.0f} words, hidden "
        f"{options.hidden_dim}, batch size {options.batch_size}, {chosen}, {torch.get_num_threads()} threads; at least "
        f"{options.seconds} s of training by each route"
    )
    print("| route | reviews per second | tokens per second | ratio |\n| --- | --- | --- | --- |")
    first = None
    for name, route in routes.items():
        rate, tokens = rates(reviews, *route, options.seconds)
        first = first or tokens
        print(f"| {name} | {rate:.1f} | {tokens:,.0f} | {tokens / first:.1f} |", flush=True)
    evaluated(network.eval(), data.test, options.evaluated)


def rates(reviews, model, batches, in_parts, bfloat16, seconds):
    """Train for so many seconds: reviews and tokens per second. The first batch, which warms up, is not counted."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    generator, seen, words = torch.Generator().manual_seed(0), 0, 0
    for step, rows in enumerate(itertools.cycle(batches)):
        optimizer.zero_grad()
        total = torch.zeros((), device=reviews.device)
        for part in reviews.parts(rows) if in_parts else [rows]:  # as `models.training.fit` does
            with torch.autocast(reviews.device.type, torch.bfloat16, enabled=bfloat16):
                inputs, labels = reviews.batch(part, generator, 0.0)
                loss = binary_loss(model(*inputs), labels) * (len(part) / len(rows))
            loss.backward()
            total += loss.detach()
        optimizer.step()
        if not math.isfinite(total.item()):  # waits for the device as well
            raise UserError(f"the loss is {total.item()}: the benchmark has no meaning; report it")
        if step == 0:
            began = time.perf_counter()
            continue
        seen, words = seen + len(rows), words + int(reviews.lengths[rows].sum())
        if time.perf_counter() - began > seconds:
            return tuple(count / (time.perf_counter() - began) for count in (seen, words))


def evaluated(network, reviews, number):
    """The features of some test reviews: in length-sorted batches, and one review at a time."""
    rows = torch.linspace(0, len(reviews) - 1, min(number, len(reviews))).long()
    some = copy.copy(reviews)
    some.starts, some.lengths, some.labels = (x[rows.to(x.device)] for x in (some.starts, some.lengths, some.labels))
    last_layer(network, some)  # to warm up
    together, (found, _) = seconds(last_layer, network, some)
    alone, (expected, _) = seconds(last_layer, network, some, 1)
    print(
        f"features of {len(rows)} test reviews: {len(rows) / together:.1f} per second in batches, "
        f"{len(rows) / alone:.1f} one at a time, ratio {alone / together:.1f}; "
        f"largest difference {float((found - expected).abs().max()):.1e}"
    )


class Packed(torch.nn.Module):
    """The route of most tutorials, and of the official release: one bidirectional nn.LSTM over packed sequences."""

    def __init__(self, network):
        super().__init__()
        width, hidden = network.embedding.embedding_dim, network.fc.in_features // 2
        self.embedding, self.fc = copy.deepcopy(network.embedding), copy.deepcopy(network.fc)
        self.dropout = torch.nn.Dropout(network.p)
        self.lstm = torch.nn.LSTM(width, hidden, 2, bidirectional=True, dropout=network.p, batch_first=True)

    def forward(self, tokens, lengths, generator=None):
        x = self.dropout(self.embedding(tokens))
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (states, _) = self.lstm(packed)
        return self.fc(self.dropout(torch.cat([states[-2], states[-1]], 1)))
