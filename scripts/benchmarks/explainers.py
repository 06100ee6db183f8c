"""RPS-LJE at the size of the paper's LSTM, beside the bare operations that it cannot do without."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import peak_memory, seconds
from config import UserError, at_least_one, several
from explainer.methods import METHODS, points
from explainer.weights import save_weights
from models.memory import room
from models.outputs import SavedOutputs

LR = 0.01


def add_options(parser):
    parser.add_argument("--repeats", type=several, default=7, help="measurements, of which the median counts")
    parser.add_argument("--n", type=at_least_one, default=17500, help="training points")
    parser.add_argument("--d", type=at_least_one, default=512, help="features")


def problem(n, d):
    """Seeded saved outputs of a logistic head, float32 as networks save them."""
    generator = torch.Generator().manual_seed(0)
    F = torch.randn(n, d, generator=generator)
    theta = torch.randn(d, generator=generator) / d**0.5
    p = (F @ theta).sigmoid()
    y = (torch.rand(n, generator=generator) < p).long()
    train, test = ([array.numpy() for array in (F[rows], p[rows], y[rows], p[rows])] for rows in (slice(n), slice(1)))
    return SavedOutputs(*train, *test, weight=theta[None].numpy(), train_accuracy=0.0, test_accuracy=0.0)


def ours(outputs, path):
    """Weights, self-influences and file, as calculate_ours_weights.py makes them, the hash of the outputs included."""
    outputs.__dict__.pop("fingerprint", None)  # it is cached, and is to be measured
    save_weights(path, METHODS["ours"].compute(points(outputs), lr=LR), lr=LR, outputs=outputs.fingerprint)


def bare(outputs, path):
    """The same result in the same precision by the bare operations: products, one Cholesky, one solve, one write."""
    head = points(outputs)
    F, y, theta = head.F.double(), head.y.double(), head.theta.double()
    n = len(F)
    anchor = theta + LR * (F.T @ ((F @ theta).sigmoid() - y)) / n
    p = (F @ anchor).sigmoid()
    H = F.T @ (F * (p * (1 - p))[:, None]) / n
    G = F * (p - y)[:, None]
    W = (anchor - torch.cholesky_solve(G.T, torch.linalg.cholesky(H)).T) / n
    self_influence = (W * F).sum(1)
    np.savez(path, weight_matrix=W.float().numpy()[:, None, :], self_influence=self_influence.float().numpy())


def run(options):
    """RPS-LJE: ours against the bare operations."""
    if options.n < 10 * options.d:
        raise UserError(f"--n {options.n}: give at least 10 times --d {options.d}, so that the Hessian is regular")
    room(16 * options.d * (options.n + options.d), f"--n {options.n} with --d {options.d}")
    n, d, outputs = options.n, options.d, problem(options.n, options.d)
    features = outputs.intermediate_train.nbytes
    times, memory, results = {ours: [], bare: []}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        for function in times:  # once to warm up, and to measure memory
            memory[function] = peak_memory(function, outputs, path)
            results.append(np.load(path, allow_pickle=False)["weight_matrix"])
        for _ in range(options.repeats):
            for function in times:
                times[function].append(seconds(function, outputs, path)[0])
    median = {function: statistics.median(values) for function, values in times.items()}
    difference = np.abs(results[0] - results[1]).max() / np.abs(results[1]).max()
    print(f"RPS-LJE, n = {n:,}, d = {d}, {torch.get_num_threads()} threads, medians of {options.repeats}:")
    print("| route | seconds | peak memory, features included |\n| --- | --- | --- |")
    for function, name in ((bare, "bare operations"), (ours, "ours")):
        size = "–" if memory[function] is None else f"{(memory[function] + features) / features:.1f} x the features"
        print(f"| {name} | {median[function]:.3f} | {size} |")
    print(f"ratio: {median[ours] / median[bare]:.2f}; largest relative difference of the weights: {difference:.1e}")
