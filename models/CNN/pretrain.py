"""Pretrain ResNet-20 on the ten classes of CIFAR-10: python models/CNN/pretrain.py --data_dir DIR

Writes the starting weights of the paper's classifier, models/CNN/data/cifar10_resnet20.pt, and a .json beside it that
tells how they were made and how accurate they are. Goes on where it was stopped.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import hashlib
import time

import torch
from torch.nn.functional import cross_entropy, pad

from config import (
    ArgumentParser,
    UserError,
    a_data_folder,
    a_path,
    at_least_one,
    device,
    passes,
    positive,
    run_command,
    script_relative,
    shown,
    to_write,
    whole,
)
from models.CNN.CNN import ResNet20
from models.CNN.data.prepare import CIFAR10, read
from models.CNN.train import last_layer
from models.CNN.utils_cifar import PRETRAINED, ImageBatches, as_channels_last, normalized
from models.files import save_json
from models.training import Schedule, fit, initialized, save_network

SHIFT = 4  # pixels that an image may be moved, to each side
SMALL, UNTIL = 24, 0.7  # the side of the crops, and for which share of the training: they take half the time


class Augmented(ImageBatches):
    """Random windows of images (n,32,32,3) in 0 ... 255, mirrored half the time.

    The images are continued by 4 reflected pixels to each side. Windows have 24 x 24 pixels in the first 70 % of the
    training, later 32 x 32.
    """

    def __init__(self, images, labels):
        super().__init__(images, labels)
        padded = [pad(as_channels_last(x).float(), (SHIFT,) * 4, "reflect").byte() for x in images.split(1000)]
        self.padded = torch.cat(padded).permute(0, 2, 3, 1).contiguous()  # (n,40,40,3)

    def batch(self, rows, generator, done):
        """Windows (b,3,24,24), later (b,3,32,32), of the images `rows`, and their labels."""
        b, side = len(rows), SMALL if done < UNTIL else self.images.shape[1]
        span = torch.arange(side)
        top, left = torch.randint(self.padded.shape[1] - side + 1, (2, b, 1), generator=generator)
        mirrored = torch.rand(b, 1, generator=generator) < 0.5
        down, across = top + span, left + torch.where(mirrored, span.flip(0), span)
        down, across = down.to(self.device), across.to(self.device)
        windows = self.padded[rows[:, None, None], down[:, :, None], across[:, None, :]]
        return (as_channels_last(normalized(windows)),), self.labels[rows]


def one_cycle(peak, rise=0.2):
    """A learning rate that rises linearly to `peak` over the share `rise` of the training and falls linearly to 0."""
    return lambda done: peak * min(done / rise, (1 - done) / (1 - rise))


def main():
    parser = ArgumentParser(description="Pretrain ResNet-20 on the ten classes of CIFAR-10.")
    parser.add_argument("--data_dir", type=a_data_folder, help="folder of CIFAR-10, as train.py takes it")
    parser.add_argument(
        "--num_of_samples", type=at_least_one, help="training images, as many of each class (default: all)"
    )
    parser.add_argument("--epochs", type=passes, default=100, help="passes over the training images")
    parser.add_argument("--lr", type=positive, default=0.3, help="highest learning rate")
    parser.add_argument("--batch_size", type=at_least_one, default=256, help="images per step")
    parser.add_argument(
        "--bfloat16", action="store_true", help="train in bfloat16: faster on GPUs and on CPUs with bfloat16 products"
    )
    parser.add_argument("--seed", type=whole, default=0, help="seed of the initialization and the shuffling")
    parser.add_argument("--output", type=a_path, help=f"file to write (default: {shown(PRETRAINED)})")
    parser.add_device()
    options = parser.parse_args()
    path = PRETRAINED if options.output is None else script_relative(options.output, __file__)
    if options.num_of_samples and options.output is None:
        raise UserError("--num_of_samples: give --output as well, so that the carried weights stay")
    to_write(path)
    chosen, start = device(options.device), time.perf_counter()
    limit = options.num_of_samples and max(1, options.num_of_samples // len(CIFAR10))
    images = read("cifar", options.data_dir, CIFAR10, limit)
    tensors = (torch.from_numpy(array).to(chosen) for array in images[:4])
    x_train, y_train, x_test, y_test = tensors
    network = initialized(lambda: ResNet20(classes=len(CIFAR10)), options.seed).to(
        chosen, memory_format=torch.channels_last
    )
    schedule = Schedule(options.epochs, one_cycle(options.lr), options.batch_size, "nesterov", options.bfloat16)
    checkpoint, data = path.with_suffix(".checkpoint"), Augmented(x_train, y_train)
    identity = hashlib.sha256(images.x_train.tobytes() + images.y_train.tobytes()).hexdigest() + f" {options.lr}"
    more = {"checkpoint": checkpoint, "identity": identity, "progress": "pretraining"}
    fit(network, data, cross_entropy, schedule, options.seed, **more)
    _, outputs = last_layer(network, normalized(x_test))
    accuracy = float((outputs.argmax(1) == y_test.cpu()).float().mean())
    seconds = time.perf_counter() - start
    save_network(path, network)
    made = {"epochs": options.epochs, "lr": options.lr, "batch_size": options.batch_size, "seed": options.seed}
    made |= {"bfloat16": options.bfloat16, "images": len(x_train), "seconds": round(seconds)}
    save_json(path.with_suffix(".json"), {"test_accuracy": accuracy, "test_images": len(y_test), **made}, checked=False)
    checkpoint.unlink(missing_ok=True)
    print(f"test accuracy {accuracy:.4f} on {len(y_test):,} images of ten classes, after {seconds / 60:.1f} min")
    print(f"written: {shown(path)}")


if __name__ == "__main__":
    run_command(main)
