"""The label-flip experiment on ResNet-20 and two classes of images.

python dataset_debugging/experiment_dataset_debugging_cnn.py --num_of_run 10 --flip_portion 0.2 --lr 1e-5
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import os

from dataset_debugging.experiment import Experiment, main
from dataset_debugging.networks import NetworkTask, add_scale_options
from models.CNN.data.prepare import DEFAULT_CLASSES, add_data_options
from models.CNN.train import accuracy, fit_binary, saved_outputs, train
from models.CNN.utils_cifar import Start, add_training_options, load
from models.moments import KEPT_EPOCHS, running
from models.outputs import outputs_path


class Cifar(NetworkTask):
    """Two classes of images and their networks, as the experiment sees them."""

    def __init__(self, options):
        super().__init__(options, "sgd")
        self.data = load(options.dataset, options.data_dir, options.classes, options.device, options.num_of_samples)
        self.start = Start(options.weights)
        self.labels, self.n, (zero, one) = self.data.y_train, len(self.data.y_train), self.data.classes
        self.fingerprint = f"{self.data.fingerprint}-{self.start.fingerprint}"
        published = options.dataset == "cifar" and self.data.classes == DEFAULT_CLASSES["cifar"]
        self.name = "cnn" if published else f"cnn_{options.dataset}_{zero}_{one}"
        self.title = f"ResNet-20 on {'CIFAR-10' if published else options.dataset} {zero} / {one}"
        self.arguments |= {"images": f"{options.dataset} {zero} / {one}", "weights": self.start.name}

    def train_on(self, y, seed, folder):
        def keep(network, epoch, kept):
            if epoch in KEPT_EPOCHS:
                path = outputs_path(running(folder) / str(epoch))
                saved_outputs(network, self.data, y).save(path, kept["training"])

        return train(folder, self.start, self.data, self.schedule, seed, y, keep, "training")

    def accuracy_on(self, y, seed, **more):
        return accuracy(fit_binary(self.start, self.data, self.refit_schedule, seed, y, **more), self.data)


def add_options(parser):
    add_scale_options(parser, epochs=30, train_lr=0.01, retrain_epochs=30, retrain_lr=0.001)
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
