"""A million points of 512 features on the disk: H, self-influence and top 10, beside bare products over the blocks."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.measure import peak_memory, resident, seconds
from config import a_path, at_least_one, several
from explainer.attribution import InfluenceFunction
from explainer.attribution.rows import Rows
from models.memory import room

SHARD, K, MEMORY = 62500, 10, 2**28


def add_options(parser):
    add = parser.add_argument
    add("--n", type=at_least_one, nargs="+", default=[125000, 250000, 500000, 1000000], help="training points")
    add("--d", type=at_least_one, default=512, help="features")
    add("--m", type=at_least_one, default=1000, help="test points")
    add("--repeats", type=several, default=3, help="measurements, of which the median counts")
    add("--folder", type=a_path, help="where the shards are made (n x d x 4 bytes; default: a temporary folder)")


def made(folder, n, d):
    """Shards of seeded features below `folder`, and their labels and the head."""
    folder.mkdir(parents=True, exist_ok=True)
    theta, labels = torch.randn(d, generator=torch.Generator().manual_seed(0)) / d**0.5, []
    for number in tqdm(range(-(-n // SHARD)), "making shards", disable=None, leave=False):
        generator = torch.Generator().manual_seed(1 + number)
        F = torch.randn(min(SHARD, n - number * SHARD), d, generator=generator)
        labels.append((torch.rand(len(F), generator=generator) < (F @ theta).sigmoid()).long())
        path = folder / f"{number:04}.npy"
        if not path.exists():
            np.save(path, F.numpy())
    return torch.cat(labels), theta


def bare(source, labels, theta, F_test):
    """The matrix products that nobody can do without, over the same blocks, read from the disk for each pass."""
    rows = Rows(source, memory_limit=MEMORY)
    d, A = rows.D, torch.eye(rows.D)
    H = torch.zeros(d, d, dtype=torch.float64)
    for _, F in rows.blocks(d):
        H += (F.T @ F).double()
    own = torch.cat([(F @ A).square().sum(1) for _, F in rows.blocks(4)])
    best = [(F_test @ F.T).topk(K, dim=1).values for _, F in rows.blocks(3 * len(F_test))]
    return H, own, best


def ours(source, labels, theta, F_test):
    """The library, from the folder to the answers."""
    explainer = InfluenceFunction.from_arrays(source, labels, theta, memory_limit=MEMORY)
    return explainer.self_influence(), explainer.top_k(F_test, K)


def run(options):
    room(4 * options.d * (options.m + SHARD + 4 * options.d), f"--d {options.d} with --m {options.m}")
    F_test = torch.randn(options.m, options.d, generator=torch.Generator().manual_seed(99))
    print(f"d = {options.d}, {options.m:,} test points, top {K}, float32 shards, {torch.get_num_threads()} threads")
    print("| n | data, MB | bare products, s | ours, s | ratio | s per 100,000 points | peak of the process, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        for n in options.n:
            folder = Path(options.folder or temporary) / f"{n}x{options.d}"
            labels, theta = made(folder, n, options.d)
            given = folder, labels, theta, F_test
            measured = peak_memory(ours, *given) is not None  # this first reading warms the disk's cache for both
            peak = f"{resident('VmHWM') / 1e6:.0f}" if measured else "–"
            times = {bare: [], ours: []}
            for _ in range(options.repeats):
                for function in times:
                    times[function].append(seconds(function, *given)[0])
            b, o = (statistics.median(times[function]) for function in (bare, ours))
            size = n * options.d * 4 / 1e6
            print(f"| {n:,} | {size:.0f} | {b:.2f} | {o:.2f} | {o / b:.2f} | {o / n * 1e5:.2f} | {peak} |", flush=True)
            if not options.folder:
                for path in folder.iterdir():
                    path.unlink()
