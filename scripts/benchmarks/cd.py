"""Contextual decomposition: milliseconds for each mask, all in one call and one by one."""

import statistics

import torch
from torch import nn

from benchmarks.measure import seconds
from config import several, workers
from explainer.decomposition import cd
from models.CNN.CNN import ResNet20
from models.training import keep_freed_memory


def add_options(parser):
    parser.add_argument("--masks", type=several, default=256, help="masks over one image")
    parser.add_argument("--repeats", type=several, default=7, help="measurements, of which the median counts")
    parser.add_argument("--threads", type=workers, default=1, help="threads of torch")


def small():
    """The network of the official MNIST demonstration."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10),
    )  # fmt: skip


def large():
    """The network of ColorMNIST."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


NETWORKS = {
    "28 x 28: conv 10, conv 20, fc 50": (small, (1, 28, 28)),
    "28 x 28: conv 20, conv 50, fc 500": (large, (1, 28, 28)),
    "ResNet-20, 32 x 32": (ResNet20, (3, 32, 32)),
}


@torch.no_grad()
def run(options):
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(f"{options.masks} masks over one image, float32, {options.threads} threads, medians of {options.repeats}")
    print("| network | all masks, ms | ms a mask | one by one, ms a mask | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        model, x, masks = make(), torch.randn(1, *shape), torch.rand(options.masks, *shape[1:]) > 0.5
        together = cd(model, x, masks)
        median = statistics.median(seconds(cd, model, x, masks)[0] for _ in range(options.repeats))
        few, difference = min(32, options.masks), 0.0
        alone = 0.0
        for q in range(few):
            time, scores = seconds(cd, model, x, masks[q : q + 1])
            alone, difference = alone + time, max(difference, float((scores.rel - together.rel[:, q]).abs().max()))
        each = 1e3 * median / options.masks
        print(f"| {name} | {1e3 * median:.1f} | {each:.3f} | {1e3 * alone / few:.2f} | {difference:.1e} |", flush=True)
    torch.set_num_threads(before)
