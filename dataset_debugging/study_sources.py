"""What the study of label errors trains: the three models of the paper, and linear heads on fixed features.

A source gives y (n,), the true labels, 0 ... C-1; train(labels, seed) -> the `Moment`s of one training on these labels;
and predict(labels, seed, rows, held) -> the probabilities (m,C) of the points `held` by a training on the points `rows`
alone. scale: what is trained, in words.
"""

import tempfile
from argparse import Namespace
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from scipy.special import expit
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_classification
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from config import UserError
from explainer.label_errors import Moment, left_out_margins
from explainer.label_errors.scores import probabilities

FOLD_SEED = 0


class Source:
    """What all sources share."""

    def out_of_fold(self, labels, seed, folds):
        """The probabilities (n,C) of every point by the training on the other folds."""
        P = np.zeros((len(labels), self.C))
        split = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
        for rows, held in split:
            P[held] = self.predict(labels, seed, rows, held)
        return P

    @cached_property
    def clean(self):
        """The probabilities (n,C) by a model of the true labels."""
        return probabilities(self.train(self.y, FOLD_SEED)[-1])


class LinearHead(Source):
    """scikit-learn's logistic regression, C = 1, on standardized features (n,d)."""

    def __init__(self, X, y):
        self.X, self.y = StandardScaler().fit_transform(X), np.unique(y, return_inverse=True)[1]
        self.C = int(self.y.max()) + 1
        self.scale = f"{len(y):,} points, {self.X.shape[1]} features, {self.C} classes"

    def train(self, labels, seed):
        model = self._fitted(labels, slice(None))
        weight, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
        return [Moment(self.X.astype(np.float32), labels, weight, bias)]

    def predict(self, labels, seed, rows, held):
        return self._fitted(labels, rows).predict_proba(self.X[held])

    def _fitted(self, labels, rows):
        return LogisticRegression(max_iter=2000).fit(self.X[rows], labels[rows])


class Boosting(Source):
    """The paper's XGBoost on German Credit, judged by its margins without the point."""

    C = 2

    def __init__(self, options):
        from models.Xgboost.utils_german import load

        self.data = load()
        self.y = self.data.y_train.astype(int)
        self.scale = f"{len(self.y):,} rows, 80 trees"

    def train(self, labels, seed):
        from models.Xgboost import trees

        booster = trees.fit(self.data.X_train, labels, seed)
        features, weight = trees.features(booster, self.data.X_train, "margin")
        left_out = left_out_margins(booster, self.data.X_train, labels)
        return [Moment(features, labels, weight, left_out=left_out)]

    def predict(self, labels, seed, rows, held):
        from models.Xgboost import trees

        p = trees.predict(trees.fit(self.data.X_train[rows], labels[rows], seed), self.data.X_train[held])
        return np.stack([1 - p, p], 1)


class Network(Source):
    """One of the paper's networks at a small scale, by the task of its label-flip experiment."""

    C = 2

    def train(self, labels, seed):
        with tempfile.TemporaryDirectory() as folder:
            outputs = self.task.train_on(torch.from_numpy(labels).float(), seed, folder)
            return self.task.moments(folder, outputs)

    @property
    def y(self):
        return self.task.labels.long().cpu().numpy()

    def predict(self, labels, seed, rows, held):
        logits = self.logits(torch.from_numpy(labels).float(), seed, *map(torch.from_numpy, (rows, held)))
        p = expit(logits.double().numpy())
        return np.stack([1 - p, p], 1)


class Images(Network):
    """ResNet-20 on 300 images of two classes."""

    SIZE = {"num_of_samples": 300, "batch_size": 32, "epochs": 20, "train_lr": 0.01}

    def __init__(self, options, dataset="cifar"):
        from dataset_debugging.experiment_dataset_debugging_cnn import EXPERIMENT

        more = {**self.SIZE, **options.size, "dataset": dataset, "weights": "carried"}
        self.task = EXPERIMENT.open(_options(EXPERIMENT, options, more))
        self.scale = f"{self.task.title}, {self.task.n} images, {self.task.schedule.epochs} epochs"

    def logits(self, labels, seed, rows, held):
        from models.CNN.train import fit_binary, last_layer

        data = replace(self.task.data, x_train=self.task.data.x_train[rows], y_train=labels[rows])
        network = fit_binary(self.task.start, data, self.task.schedule, seed)
        return last_layer(network, self.task.data.x_train[held])[1][:, 0]


class Sentences(Network):
    """The bidirectional LSTM on reviews that are cut short."""

    SIZE = {"num_of_samples": 2000, "max_length": 100, "hidden_dim": 32, "epochs": 10, "train_lr": 5e-3}

    def __init__(self, options, dataset="imdb"):
        from dataset_debugging.experiment_dataset_debugging_rnn import EXPERIMENT

        more = {**self.SIZE, **options.size, "dataset": dataset, "use_pretrained": dataset == "imdb"}
        self.task = EXPERIMENT.open(_options(EXPERIMENT, options, more | {"vectors": options.vectors}))
        words = more["max_length"]
        self.scale = f"{self.task.title}, {self.task.n:,} reviews of {words} words, {more['hidden_dim']} units, "
        self.scale += f"{self.task.schedule.epochs} epochs"

    def logits(self, labels, seed, rows, held):
        from models.RNN.train import fit_lstm, last_layer

        whole = self.task.data.train.labelled(labels)
        data = replace(self.task.data, train=whole.part(rows))
        network = fit_lstm(data, self.task.schedule, self.task.hidden, seed)
        return last_layer(network, whole.part(held))[1]


def _options(experiment, options, chosen):
    """The options of a label-flip experiment at their defaults, but for those that are chosen."""
    from config import ArgumentParser

    parser = ArgumentParser()
    experiment.add_options(parser)
    usual = vars(parser.parse_args([]))
    unknown = set(chosen) - set(usual)
    if unknown:
        raise UserError(f"{experiment.model} has no option {', '.join(sorted(unknown))}: leave it out")
    return Namespace(**{**usual, **chosen, "data_dir": options.data_dir, "device": options.device, "jobs": 1})


def _snippets():
    """2,000 of the carried film reviews: 100 singular vectors of their tf-idf."""
    from models.RNN.utils_imdb import texts

    source = texts("snippets")
    rows = np.random.default_rng(0).choice(len(source.names), 2000, replace=False)
    X = TfidfVectorizer(min_df=3, sublinear_tf=True).fit_transform([source.text(i) for i in rows])
    return TruncatedSVD(100, random_state=0).fit_transform(X), source.labels[rows]


def _german():
    from models.Xgboost.utils_german import load

    data = load()
    return data.X_train, data.y_train


def _blobs(classes):
    """Points of Gaussian clusters, two a class, 20 features of which ten say something."""
    more = {"n_features": 20, "n_informative": 10, "n_classes": classes, "class_sep": 1.5, "random_state": 0}
    return make_classification(1500, **more)


def _digits(parity):
    X, y = load_digits(return_X_y=True)
    X = X[:, X.std(0) > 0]
    return (X, y % 2) if parity else (X, y)


HEADS = {
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "digits": lambda: _digits(False),
    "digits, even or odd": lambda: _digits(True),
    "German Credit": _german,
    "snippets": _snippets,
    "clusters": lambda: _blobs(2),
    "clusters, 4 classes": lambda: _blobs(4),
}
SOURCES = {
    "CNN": Images,
    "CNN, digits": lambda options: Images(options, "digits"),
    "RNN": Sentences,
    "RNN, snippets": lambda options: Sentences(options, "snippets"),
    "Xgboost": Boosting,
    **{name: (lambda options, read=read: LinearHead(*read())) for name, read in HEADS.items()},
}
USUAL = [name for name in SOURCES if name not in ("CNN, digits", "RNN, snippets")]
