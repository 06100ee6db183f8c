"""The label-flip experiment on ResNet-20 and two classes of images.

python dataset_debugging/experiment_dataset_debugging_cnn.py --num_of_run 10 --flip_portion 0.2 --lr 1e-5
"""

import os

import torch

from config import at_least_one, positive
from dataset_debugging.experiment import Experiment, main
from dataset_debugging.memorization import KEPT_EPOCHS, epoch_folder
from models.CNN.data.prepare import DEFAULT_CLASSES, add_data_options
from models.CNN.train import accuracy, fit_binary, saved_outputs, train
from models.CNN.utils_cifar import Start, add_training_options, flipped_labels, load
from models.outputs import outputs_path
from models.training import Schedule


class Cifar:
    """Two classes of images and their networks, as the experiment sees them."""

    def __init__(self, options):
        self.data = load(options.dataset, options.data_dir, options.classes, options.device, options.num_of_samples)
        self.start, self.jobs, self.threads = Start(options.weights), options.jobs, torch.get_num_threads()
        common = {"batch_size": options.batch_size, "bfloat16": options.bfloat16}
        self.schedule = Schedule(options.epochs, options.train_lr, **common)
        self.refit_schedule = Schedule(options.retrain_epochs, options.retrain_lr, **common)
        self.n, (zero, one) = len(self.data.y_train), self.data.classes
        self.fingerprint = f"{self.data.fingerprint}-{self.start.fingerprint}"
        published = options.dataset == "cifar" and self.data.classes == DEFAULT_CLASSES["cifar"]
        self.name = "cnn" if published else f"cnn_{options.dataset}_{zero}_{one}"
        self.title = f"ResNet-20 on {'CIFAR-10' if published else options.dataset} {zero} / {one}"
        self.arguments = {"images": f"{options.dataset} {zero} / {one}", "weights": self.start.name, **common}
        self.arguments |= {name: getattr(options, name) for name in OWN}

    def train(self, flipped, seed, folder):
        torch.set_num_threads(self.threads)
        y = flipped_labels(self.data.y_train, flipped)

        def keep(network, epoch, kept):
            if epoch in KEPT_EPOCHS:
                saved_outputs(network, self.data, y).save(outputs_path(epoch_folder(folder, epoch)))

        return train(folder, self.start, self.data, self.schedule, seed, y, keep, "training")

    def refit(self, flipped, seed):
        torch.set_num_threads(max(1, self.threads // self.jobs))  # holds for this thread of the pool
        y = flipped_labels(self.data.y_train, flipped)
        return accuracy(fit_binary(self.start, self.data, self.refit_schedule, seed, y), self.data)


OWN = ("epochs", "train_lr", "retrain_epochs", "retrain_lr")


def add_options(parser):
    add = parser.add_argument
    add("--epochs", type=at_least_one, default=30, help="passes of the training on flipped labels")
    add("--train_lr", type=positive, default=0.01, help="its learning rate")
    add("--retrain_epochs", type=at_least_one, default=30, help="passes of each refit")
    add("--retrain_lr", type=positive, default=0.001, help="its learning rate")
    add_data_options(parser)
    add_training_options(parser)


EXPERIMENT = Experiment(
    model="CNN",
    methods=("ours", "IF", "rep", "random"),
    checkpoints=8,
    average_over_runs=1,
    flip_portion=0.2,
    jobs=min(4, os.cpu_count()),
    add_options=add_options,
    open=Cifar,
)

if __name__ == "__main__":
    main(EXPERIMENT, __file__)
