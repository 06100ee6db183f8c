"""The label-flip experiment on the bidirectional LSTM and film reviews.

python dataset_debugging/experiment_dataset_debugging_rnn.py --num_of_run 5 --flip_portion 0.2 --lr 1e-5
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import os
from pathlib import Path

from dataset_debugging.experiment import Experiment, main
from dataset_debugging.networks import NetworkTask, add_scale_options
from models.RNN.train import accuracy, fit_lstm, moments_keeper, read, train
from models.RNN.train import add_options as add_model_options
from models.RNN.vectors import GLOVE

TITLES = {"imdb": "LSTM on IMDB", "snippets": "LSTM on film review snippets"}


class Sentiment(NetworkTask):
    """Film reviews and their networks, as the experiment sees them."""

    def __init__(self, options):
        super().__init__(options, "fused adam")
        self.data, self.hidden = read(options, options.device), options.hidden_dim
        self.labels, self.n, self.fingerprint = self.data.train.labels, len(self.data.train), self.data.fingerprint
        self.name = "rnn" if options.dataset == "imdb" else f"rnn_{options.dataset}"
        self.title = TITLES[options.dataset]
        self.arguments |= {"reviews": options.dataset, "hidden_dim": options.hidden_dim}
        self.arguments |= {"max_length": options.max_length, "pretrained_vectors": options.use_pretrained}
        self.notes = {"word_vectors": Path(options.vectors or GLOVE).name if options.use_pretrained else "drawn"}

    def train_on(self, y, seed, folder):
        settings = folder, self.data, self.schedule, self.hidden, seed, y
        return train(*settings, pick=False, after_epoch=moments_keeper(*settings), progress="training")

    def accuracy_on(self, y, seed, **more):
        return accuracy(fit_lstm(self.data, self.refit_schedule, self.hidden, seed, y, **more), self.data.test)


def add_options(parser):
    add_scale_options(parser, epochs=20, train_lr=5e-3, retrain_epochs=20, retrain_lr=5e-3)
    add_model_options(parser)


EXPERIMENT = Experiment(
    model="RNN",
    methods=("ours", "IF", "rep", "random"),
    checkpoints=8,
    average_over_runs=3,
    flip_portion=0.2,
    jobs=min(4, os.cpu_count()),
    add_options=add_options,
    open=Sentiment,
)

if __name__ == "__main__":
    main(EXPERIMENT, __file__)
