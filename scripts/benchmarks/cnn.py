"""Training ResNet-20: tensors in memory and channels_last, beside a DataLoader with transforms for each image."""

import statistics
import time

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor

from config import a_data_folder, at_least_one, device, passes, several
from models.CNN.data.prepare import read
from models.CNN.train import accuracy, fit_binary
from models.CNN.utils_cifar import MEAN, STD, Start, load
from models.training import Schedule, keep_freed_memory


def add_options(parser):
    parser.add_argument("--dataset", default="cifar", choices=("cifar", "digits"), help="the images")
    parser.add_argument("--data_dir", type=a_data_folder, help="folder of the images")
    parser.add_argument("--num_of_samples", type=at_least_one, default=10000, help="training images")
    parser.add_argument("--epochs", type=passes, default=2, help="passes over them")
    parser.add_argument("--seeds", type=several, default=3, help="trainings by each route")
    parser.add_device()


def run(options):
    """Training ResNet-20: tensors in memory and channels_last, beside a DataLoader with transforms per image."""
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
        f"ResNet-20 on {' / '.join(data.classes)}: {n:,} images, {count(options.epochs, 'epoch')} at batch size 128, "
        f"{count(options.seeds, 'seed')}, {chosen}, {torch.get_num_threads()} threads"
    )
    print("| route | images per second | ratio | test accuracy, mean | each seed |\n| --- | --- | --- | --- | --- |")
    first = statistics.median(next(iter(rates.values())))
    for name in routes:
        rate, found = statistics.median(rates[name]), accuracies[name]
        each = ", ".join(f"{value:.4f}" for value in found)
        print(f"| {name} | {rate:.0f} | {rate / first:.2f} | {statistics.mean(found):.4f} | {each} |")


def plain(start, images, epochs, number, chosen):
    """The route of most tutorials, and of the official release: torchvision's transforms for each image, NCHW."""

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


def count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"
