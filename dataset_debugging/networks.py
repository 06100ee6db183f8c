"""What the label-flip experiments on neural networks share: the options of their scale, schedules and threads."""

import hashlib

import torch

from config import passes, positive
from models.moments import load_moments
from models.training import Schedule

OPTIONS = ("epochs", "train_lr", "retrain_epochs", "retrain_lr", "batch_size", "bfloat16")


def add_scale_options(parser, epochs, train_lr, retrain_epochs, retrain_lr):
    """Passes and learning rates of the training on flipped labels and of the refits, with their published values."""
    add = parser.add_argument
    add("--epochs", type=passes, default=epochs, help="passes of the training on flipped labels")
    add("--train_lr", type=positive, default=train_lr, help="its learning rate")
    add("--retrain_epochs", type=passes, default=retrain_epochs, help="passes of each refit")
    add("--retrain_lr", type=positive, default=retrain_lr, help="its learning rate")


class NetworkTask:
    """A `dataset_debugging.experiment.Task` of networks.

    A model adds name, title, n, fingerprint, labels (n,), train_on(labels, seed, folder) -> SavedOutputs and
    accuracy_on(labels, seed, **more) -> test accuracy; more: the checkpoint and identity of `models.training.fit`.
    """

    def __init__(self, options, optimizer):
        batches = options.batch_size, optimizer, options.bfloat16
        self.schedule = Schedule(options.epochs, options.train_lr, *batches, lower="--train_lr")
        self.refit_schedule = Schedule(options.retrain_epochs, options.retrain_lr, *batches, lower="--retrain_lr")
        self.arguments, self.notes = {name: getattr(options, name) for name in OPTIONS}, {}
        self._jobs, self._threads = options.jobs, torch.get_num_threads()

    def moments(self, folder, outputs):
        """What the network saw after the kept epochs of its training."""
        return load_moments(folder, outputs)

    def train(self, flipped, seed, folder):
        """Train with these labels flipped, on all threads."""
        torch.set_num_threads(self._threads)
        return self.train_on(flipped_labels(self.labels, flipped), seed, folder)

    def refit(self, flipped, seed, checkpoint):
        """The test accuracy after training with these labels flipped, on this refit's share of the threads."""
        torch.set_num_threads(max(1, self._threads // self._jobs))  # holds for this thread of the pool
        labels = flipped_labels(self.labels, flipped)
        identity = f"{hashlib.sha256(labels.cpu().numpy()).hexdigest()} {self.fingerprint}"
        return self.accuracy_on(labels, seed, checkpoint=checkpoint, identity=identity)


def flipped_labels(y, flipped):
    """Labels (n,) with those at the indices `flipped` (k,) turned into the other class; y stays as it is."""
    y = y.clone()
    rows = torch.as_tensor(flipped, device=y.device)
    y[rows] = 1 - y[rows]
    return y
