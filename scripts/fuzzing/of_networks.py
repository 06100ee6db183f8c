"""Files of networks and trees: checkpoints, state dicts, vocabularies, boosters, results of CDEP, caches."""

import numpy as np
import torch
import xgboost as xgb
from torch.utils.data import DataLoader, TensorDataset

from explainer.attribution import RPSLJE
from explainer.attribution.tracin import _loaded
from explainer.attribution.xgboost_trees import leaf_values
from fuzzing.formats import Format, M, N, outputs
from models import training
from models.CDEP.methods import Settings
from models.CDEP.train import NUMBERS, result_of
from models.checksums import checksum
from models.CNN import utils_cifar
from models.CNN.CNN import ResNet20
from models.files import save_json, save_text
from models.RNN import utils_imdb
from models.RNN.batches import Reviews
from models.RNN.RNN import SentimentLSTM
from models.RNN.saved import SavedModel
from models.RNN.texts import tokens
from models.RNN.train import last_layer
from models.Xgboost import trees

AGAIN = "make it again"
TEXTS = {}  # of the snippets, read once


class Points:
    """Training data of the smallest kind, as `models.training.Batches` says."""

    device = torch.device("cpu")

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(N, 3, generator=generator)
        self.y = (self.x[:, 0] > 0).float()

    def rows(self, size, generator):
        return torch.randperm(N, generator=generator).split(size)

    def batch(self, rows, generator, done):
        return (self.x[rows],), self.y[rows]


def train(folder, epochs):
    """A small training that goes on where its checkpoint ends."""
    network = training.initialized(lambda: torch.nn.Linear(3, 1), "fuzz")
    kept = {}

    def keep(network, epoch, kept):
        kept.update(best=network.weight.detach().clone(), accuracy=0.5 + epoch / 10)

    more = {"checkpoint": folder / "training.checkpoint", "identity": "fuzz", "after_epoch": keep, "kept": kept}
    schedule = training.Schedule(3, 0.1, 4)
    if epochs == 3:
        return training.fit(network, Points(), training.binary_loss, schedule, 0, **more), kept

    class Stopped(Exception):
        pass

    def stopped(network, epoch, kept):
        if epoch > epochs:
            raise Stopped
        keep(network, epoch, kept)

    try:
        training.fit(network, Points(), training.binary_loss, schedule, 0, **{**more, "after_epoch": stopped})
    except Stopped:
        return network, kept


def read_checkpoint(folder):
    network, kept = train(folder, 3)
    return {**network.state_dict(), **kept}


def make_resnet(folder):
    training.save_network(folder / "model" / "resnet20.pt", training.initialized(ResNet20))


def make_start(folder):
    training.save_network(folder / "start.pt", training.initialized(ResNet20))


def make_lstm(folder):
    """A run of the LSTM on a few of the snippets."""
    texts = TEXTS.setdefault("all", utils_imdb.texts("snippets"))
    rows = [list(map(int, np.flatnonzero(texts.part == part)[:number])) for part, number in ((0, N), (1, M))]
    words = ["<unk>", "<pad>", *sorted({word for row in rows[0] for word in tokens(texts.text(row))})]
    network = training.initialized(lambda: SentimentLSTM(len(words), 5, 2)).eval()
    numbers = {word: i for i, word in enumerate(words)}
    values = {"bias": None}
    for part, some in zip(("train", "test"), rows):
        reviews = [[numbers.get(word, 0) for word in tokens(texts.text(row))][:9] for row in some]
        labels = texts.labels[some]
        starts = np.cumsum([0, *map(len, reviews)])
        batch = utils_imdb.Reviews(np.concatenate(reviews).astype(np.int32), starts, labels, labels)
        f, logits = (found.detach() for found in last_layer(network, Reviews(batch)))
        values |= {f"intermediate_{part}": f.numpy(), f"labels_{part}": labels, f"outputs_{part}": logits.numpy()}
        values |= {f"pred_{part}": logits.sigmoid().numpy()}
    values["labels_train"] = np.arange(N) % 2
    outputs(**values, weight=network.fc.weight.detach().numpy()).save(folder / "model" / "saved_outputs.npz")
    training.save_network(folder / "model" / "lstm.pt", network)
    text = "\n".join(words)
    save_text(folder / "model" / "vocabulary.txt", text)
    reviews = {"dataset": "snippets", "max_length": 9, "train": rows[0], "test": rows[1]}
    save_json(folder / "model" / "reviews.json", {**reviews, "vocabulary": checksum(text)})


def read_lstm(folder):
    saved = SavedModel(folder)
    features, logits = saved.features(["A film of great charm.", "dull, and far too long"])
    return {**saved.network.state_dict(), "words": saved.words, "rows": saved.rows, "tests": saved.test_rows,
            "longest": saved.max_length, "features": features, "logits": logits,
            "texts": [saved.text(i) for i in range(N)] + [saved.test_text(t) for t in range(M)]}  # fmt: skip


X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


def make_booster(folder):
    booster = xgb.train({**trees.PARAMETERS, "seed": 0}, xgb.DMatrix(X, label=X[:, 0] > 0, nthread=1), 4)
    trees.save(booster, folder / "model" / "xgb.ubj")


def read_booster(folder):
    return leaf_values(trees.load_booster(folder / "model" / "xgb.ubj", AGAIN), X)


class Data:
    """Stands for the data of a CDEP training."""

    def fingerprint(self):
        return "0123456789abcdef"


SETTINGS = Settings("cdep", 10.0)


def make_result(folder):
    numbers = {name: 0.5 for name in NUMBERS}
    save_json(folder / "result.json", {**SETTINGS._asdict(), "dataset": "own", "data": Data().fingerprint(), **numbers})


def network_and_loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=generator)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network, DataLoader(TensorDataset(x, (x[:, 0] > 0).float()), batch_size=4)


def make_cache(folder):
    RPSLJE(*network_and_loader(), cache=folder / "cache")


def read_cache(folder):
    """With the model, and without it."""
    explained = [RPSLJE(*network_and_loader(), cache=folder / "cache"), RPSLJE.from_cache(folder / "cache")]
    return [e.self_influence() for e in explained]


def make_state(folder):
    training.save_network(folder / "state.pt", network_and_loader()[0])


FORMATS = (
    Format("training checkpoint", "training.checkpoint", lambda folder: train(folder, 2), read_checkpoint, "tensors"),
    Format("resnet20.pt", "model/resnet20.pt", make_resnet,
           lambda folder: dict(utils_cifar.load_network(folder).state_dict()), "tensors"),
    Format("starting weights", "start.pt", make_start,
           lambda folder: dict(utils_cifar.Start(str(folder / "start.pt")).state), "tensors",
           loose=("fc.weight", "fc.bias")),
    Format("lstm.pt", "model/lstm.pt", make_lstm, read_lstm, "tensors"),
    Format("vocabulary.txt", "model/vocabulary.txt", make_lstm, read_lstm, "text"),
    Format("reviews.json", "model/reviews.json", make_lstm, read_lstm, "json"),
    Format("xgb.ubj", "model/xgb.ubj", make_booster, read_booster),
    Format("CDEP result.json", "result.json", make_result,
           lambda folder: {n: result_of(Data(), SETTINGS, folder).get(n) for n in (*NUMBERS, *Settings._fields)},
           "json", loose=("dataset",)),
    *(Format(f"cache {name}", f"cache/{name}", make_cache, read_cache, kind)
      for name, kind in (("labels.npy", "npy"), ("weight.npy", "npy"), ("bias.npy", "npy"), ("settings.json", "json"),
                         ("features/000000000000.npy", "npy"))),
    Format("tracin checkpoint", "state.pt", make_state, lambda folder: dict(_loaded(folder / "state.pt")), ""),
)  # fmt: skip
