"""What the label-flip experiments on neural networks share: the options of their scale, schedules and threads."""

import torch

from config import at_least_one, positive
from models.training import Schedule

OPTIONS = ("epochs", "train_lr", "retrain_epochs", "retrain_lr", "batch_size", "bfloat16")


def add_scale_options(parser, epochs, train_lr, retrain_epochs, retrain_lr):
    """Passes and learning rates of the training on flipped labels and of the refits, with their published values."""
    add = parser.add_argument
    add("--epochs", type=at_least_one, default=epochs, help="passes of the training on flipped labels")
    add("--train_lr", type=positive, default=train_lr, help="its learning rate")
    add("--retrain_epochs", type=at_least_one, default=retrain_epochs, help="passes of each refit")
    add("--retrain_lr", type=positive, default=retrain_lr, help="its learning rate")


class NetworkTask:
    """Part of a `dataset_debugging.experiment.Task`: a network's schedules, arguments and threads."""

    def __init__(self, options, optimizer):
        batches = options.batch_size, optimizer, options.bfloat16
        self.schedule = Schedule(options.epochs, options.train_lr, *batches)
        self.refit_schedule = Schedule(options.retrain_epochs, options.retrain_lr, *batches)
        self.arguments = {name: getattr(options, name) for name in OPTIONS}
        self._jobs, self._threads = options.jobs, torch.get_num_threads()

    def all_threads(self):
        """Before a training that has the machine to itself."""
        torch.set_num_threads(self._threads)

    def own_threads(self):
        """Before a refit beside others; holds for its thread of the pool."""
        torch.set_num_threads(max(1, self._threads // self._jobs))


def flipped_labels(y, flipped):
    """Labels (n,) with those at the indices `flipped` (k,) turned into the other class; y stays as it is."""
    y = y.clone()
    rows = torch.as_tensor(flipped, device=y.device)
    y[rows] = 1 - y[rows]
    return y
