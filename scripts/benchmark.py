"""Time and memory of our code beside the bare operations that it cannot do without.

python scripts/benchmark.py explainers    RPS-LJE at the size of the paper's LSTM: n = 17,500, d = 512
python scripts/benchmark.py cnn           training ResNet-20: images per second, and the accuracy over three seeds
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from config import ArgumentParser, UserError, at_least_one, device, run_command
from explainer.methods import METHODS, points
from explainer.weights import save_weights
from models.outputs import SavedOutputs

LR = 0.01


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


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def peak_memory(function, *arguments):
    """The most memory that a call needs on top of what is there already, in bytes; None where Linux does not tell."""
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is resident now
    except OSError:
        return None

    def resident(key):
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(key))

    before = resident("VmRSS")
    function(*arguments)
    return resident("VmHWM") - before


def explainers(options):
    """RPS-LJE: ours against the bare operations."""
    if options.n < 10 * options.d:
        raise UserError(f"--n {options.n}: give at least 10 times --d {options.d}, so that the Hessian is regular")
    n, d, outputs = options.n, options.d, problem(options.n, options.d)
    features = outputs.intermediate_train.nbytes
    times, memory, results = {ours: [], bare: []}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        for function in times:  # once to warm up, and to measure memory
            memory[function] = peak_memory(function, outputs, path)
            results.append(np.load(path)["weight_matrix"])
        for _ in range(options.repeats):
            for function in times:
                times[function].append(seconds(function, outputs, path))
    median = {function: statistics.median(values) for function, values in times.items()}
    difference = np.abs(results[0] - results[1]).max() / np.abs(results[1]).max()
    print(f"RPS-LJE, n = {n:,}, d = {d}, {torch.get_num_threads()} threads, medians of {options.repeats}:")
    print("| route | seconds | peak memory, features included |\n| --- | --- | --- |")
    for function, name in ((bare, "bare operations"), (ours, "ours")):
        size = "–" if memory[function] is None else f"{(memory[function] + features) / features:.1f} x the features"
        print(f"| {name} | {median[function]:.3f} | {size} |")
    print(f"ratio: {median[ours] / median[bare]:.2f}; largest relative difference of the weights: {difference:.1e}")


def cnn(options):
    """Training ResNet-20: tensors in memory and channels_last, beside a DataLoader with transforms per image."""
    from models.CNN.data.prepare import read
    from models.CNN.train import accuracy, fit_binary
    from models.CNN.utils_cifar import Start, load
    from models.training import Schedule

    chosen, start = device(options.device), Start("carried")
    images = read(options.dataset, options.data_dir, limit=options.num_of_samples // 2 or None)
    data = load(options.dataset, options.data_dir, device=chosen, samples=options.num_of_samples)
    n, schedule = len(data.y_train), Schedule(options.epochs, 0.01, 128)

    def in_memory(number, **more):
        return fit_binary(start, data, schedule._replace(**more), number)

    routes = {
        "plain: float32, NCHW, DataLoader": lambda number: plain(start, images, options.epochs, number, chosen),
        "ours, float32": in_memory,
        "ours, bfloat16": lambda number: in_memory(number, bfloat16=True),
    }
    rates, accuracies = {name: [] for name in routes}, {name: [] for name in routes}
    for number in range(options.seeds):
        for name, route in routes.items():  # side by side, so that a busy moment hits all of them
            began = time.perf_counter()
            network = route(number)
            rates[name].append(n * options.epochs / (time.perf_counter() - began))
            accuracies[name].append(accuracy(network.to(memory_format=torch.channels_last), data))
    print(
        f"ResNet-20 on {' / '.join(data.classes)}: {n:,} images, {_count(options.epochs, 'epoch')} at batch size 128, "
        f"{_count(options.seeds, 'seed')}, {chosen}, {torch.get_num_threads()} threads"
    )
    print("| route | images per second | ratio | test accuracy, mean | each seed |\n| --- | --- | --- | --- | --- |")
    first = statistics.median(next(iter(rates.values())))
    for name in routes:
        rate, found = statistics.median(rates[name]), accuracies[name]
        each = ", ".join(f"{value:.4f}" for value in found)
        print(f"| {name} | {rate:.0f} | {rate / first:.2f} | {statistics.mean(found):.4f} | {each} |")


def plain(start, images, epochs, number, chosen):
    """The route of most tutorials, and of the official release: torchvision's transforms for each image, NCHW."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision.transforms import Compose, Normalize, ToTensor

    from models.CNN.utils_cifar import MEAN, STD
    from models.training import keep_freed_memory

    transform = Compose([ToTensor(), Normalize(MEAN, STD)])

    class Dataset(torch.utils.data.Dataset):
        def __len__(self):
            return len(images.y_train)

        def __getitem__(self, i):
            return transform(Image.fromarray(images.x_train[i])), float(images.y_train[i])

    keep_freed_memory(False)
    torch.manual_seed(number)
    network = start.network(chosen).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    loss = torch.nn.BCEWithLogitsLoss()
    network.train()
    for _ in range(epochs):
        for x, y in DataLoader(Dataset(), batch_size=128, shuffle=True):
            optimizer.zero_grad()
            loss(network(x.to(chosen))[:, 0], y.float().to(chosen)).backward()
            optimizer.step()
    return network


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


BENCHMARKS = {"explainers": explainers, "cnn": cnn}


def main():
    options = ArgumentParser(description="Time our code beside the bare operations.")
    options.add_argument("what", nargs="?", default="explainers", choices=list(BENCHMARKS), help="what to measure")
    options.add_argument("--repeats", type=at_least_one, default=7, help="measurements, of which the median counts")
    options.add_argument("--n", type=at_least_one, default=17500, help="training points")
    options.add_argument("--d", type=at_least_one, default=512, help="features")
    options.add_argument("--dataset", default="cifar", choices=("cifar", "digits"), help="cnn: the images")
    options.add_argument("--data_dir", help="cnn: folder of the images")
    options.add_argument("--num_of_samples", type=at_least_one, default=10000, help="cnn: training images")
    options.add_argument("--epochs", type=at_least_one, default=2, help="cnn: passes over them")
    options.add_argument("--seeds", type=at_least_one, default=3, help="cnn: trainings by each route")
    options.add_device()
    options = options.parse_args()
    BENCHMARKS[options.what](options)


if __name__ == "__main__":
    run_command(main)
