"""Train the paper's sentiment classifier, a bidirectional LSTM, on film reviews.

python models/RNN/train.py --lr 1e-3 --epochs 10 --saved_path saved_models/base --use_pretrained True

Writes model/lstm.pt (a state dict), vocabulary.txt, reviews.json (which texts they are) and saved_outputs.npz below
--saved_path. Goes on where it was stopped.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import copy
import hashlib
import time
from dataclasses import dataclass

import numpy as np
import torch

from config import (
    ArgumentParser,
    UserError,
    a_data_folder,
    a_file,
    a_path,
    at_least_one,
    at_least_two,
    boolean,
    count,
    device,
    given_folder,
    passes,
    positive,
    run_command,
    shown,
    usual_run,
    whole,
)
from explainer.label_errors import Moment
from models.checksums import checksum
from models.files import save_json, save_text
from models.folders import holding
from models.memory import room
from models.moments import (
    BEFORE,
    add_moments_option,
    add_overwrite,
    begin_anew,
    begin_moments,
    finished_training,
    keep_running,
    keeper,
    running,
)
from models.outputs import SavedOutputs, open_run, outputs_path
from models.RNN import utils_imdb
from models.RNN.batches import Reviews
from models.RNN.RNN import SentimentLSTM
from models.RNN.vectors import WIDTH
from models.RNN.vectors import vectors as word_vectors
from models.training import Schedule, binary_loss, enough_memory, fit, initialized, save_network

UNITS = 16384  # of an LSTM, at most
EVALUATED = 50000  # padded words in a batch when nothing is trained


@dataclass(frozen=True)
class Data:
    """The reviews on the computing device.

    vectors: the first vectors of the words (k,100), None to draw them; known: how many of the words were in their file.
    corpus: where the reviews come from, of the data set `dataset`; chosen: which reviews of each part of it;
    max_length: how many words of each are read, None for all. fingerprint: a hash of what is trained and tested on.
    """

    train: Reviews
    validation: Reviews
    test: Reviews
    vectors: np.ndarray | None
    known: int
    corpus: utils_imdb.Corpus
    chosen: dict
    dataset: str
    max_length: int | None
    fingerprint: str


def read(options, chosen_device):
    """The data that the options of a command ask for (see `add_options`), on a torch device."""
    if options.vectors and not options.use_pretrained:
        raise UserError(f"--vectors: got {options.vectors} beside --use_pretrained False; leave one of them out")
    room(_bytes(options.hidden_dim), f"--hidden_dim {options.hidden_dim}")
    corpus = utils_imdb.load(options.dataset, options.data_dir, options.skip_unreadable)
    vectors, known = None, 0
    if options.use_pretrained:
        vectors, known = word_vectors(corpus.words, options.vectors, options.data_dir)
    digest = hashlib.sha256(b"" if vectors is None else vectors)
    chosen, parts = utils_imdb.sample(corpus, options.num_of_samples), {}
    for name, rows in chosen.items():
        reviews = getattr(corpus, name).choose(rows, options.max_length)
        for array in (reviews.words, reviews.starts, reviews.labels):
            digest.update(np.ascontiguousarray(array))
        parts[name] = Reviews(reviews, chosen_device)
    more = {"corpus": corpus, "chosen": chosen, "dataset": options.dataset, "max_length": options.max_length}
    return Data(**parts, vectors=vectors, known=known, **more, fingerprint=digest.hexdigest()[:16])


def _bytes(hidden):
    """What the LSTMs take in a training: float32, their gradients and both averages of Adam."""
    return 16 * 8 * hidden * (WIDTH + 4 * hidden)


def new_network(data, hidden, number):
    """The network before training: the last layers drawn from seed `number`, the words' vectors if there are any."""
    network = initialized(lambda: SentimentLSTM(len(data.corpus.words), WIDTH, hidden), number)
    if data.vectors is not None:
        with torch.no_grad():
            network.embedding.weight.copy_(torch.from_numpy(data.vectors))
    return network.to(data.train.device)


def fit_lstm(data, schedule, hidden, number, y_train=None, pick=False, after_epoch=None, kept=None, **more):
    """A network trained on the reviews, labels y_train (n,) if given; more: as `models.training.fit` takes it.

    pick: return the epoch of the highest validation accuracy, the first of equal ones, instead of the last.
    """
    network = new_network(data, hidden, number)

    def better(network, epoch, kept):
        found = accuracy(network, data.validation)
        if found > kept.get("accuracy", -1.0):
            kept.update(accuracy=found, epoch=epoch, network=copy.deepcopy(network.state_dict()))
        if after_epoch is not None:
            after_epoch(network, epoch, kept)

    best = {} if kept is None else kept
    fit(
        network,
        data.train.labelled(y_train),
        binary_loss,
        schedule,
        number,
        after_epoch=better if pick else after_epoch,
        kept=best,
        **more,
    )
    if pick:
        network.load_state_dict(best["network"])
    return network


@torch.inference_mode()
def last_layer(network, reviews, tokens=EVALUATED):
    """The features (n,2h) and logits (n,) of reviews, in float32 and evaluation mode, on the CPU, in their own order.

    tokens: padded words in a batch; changes no result.
    """
    network.eval()
    batches, features = reviews.sorted_batches(tokens), []
    for rows in batches:
        with enough_memory():
            features.append(network.features(*reviews.tokens(rows)))
    back = torch.cat(batches).argsort()
    features = torch.cat(features)[back.to(reviews.device)]
    return features.cpu(), network.fc(features)[:, 0].cpu()


def accuracy(network, reviews):
    """Share of the reviews whose label is the predicted class."""
    _, logits = last_layer(network, reviews)
    return ((logits > 0) == (reviews.labels.cpu() == 1)).double().mean().item()


def saved_outputs(network, data, y_train=None):
    """What the explainers read; labels_train are those that the network was trained on, y_train (n,) if given."""
    train = data.train.labelled(y_train)
    return SavedOutputs.of_head(
        *((*last_layer(network, part), part.labels.cpu()) for part in (train, data.test)), network.fc
    )


def training_points(network, data, y_train=None):
    """The features (n,2h) of the training reviews and the labels (n,) that the network is trained on, on the CPU."""
    reviews = data.train.labelled(y_train)
    return last_layer(network, reviews)[0], reviews.labels.cpu()


def moments_keeper(folder, data, schedule, hidden, number, y_train=None):
    """An after_epoch that keeps the moments of a training (`models.moments`), and the one before it.

    That one is what the network is given before it has seen a label, the mean of each review's word vectors (n,100).
    """
    after = keeper(folder, schedule.epochs, lambda network: training_points(network, data, y_train))

    def keep(network, epoch, kept):
        if not (running(folder) / str(BEFORE)).exists():
            embedding, reviews = new_network(data, hidden, number).embedding, data.train.labelled(y_train)
            nothing, labels = torch.zeros(1, embedding.embedding_dim), reviews.labels.long().cpu().numpy()
            before = Moment(mean_vectors(embedding, reviews).numpy(), labels, nothing.numpy())
            keep_running(folder, BEFORE, before, kept["training"])
        after(network, epoch, kept)

    return keep


@torch.inference_mode()
def mean_vectors(embedding, reviews, tokens=EVALUATED):
    """The mean (n,d) of the vectors of each review's words, on the CPU, in their own order."""
    batches, means = reviews.sorted_batches(tokens), []
    for rows in batches:
        words, lengths = reviews.tokens(rows)
        inside = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
        means.append((embedding(words) * inside[:, :, None]).sum(1) / lengths[:, None])
    return torch.cat(means).cpu()[torch.cat(batches).argsort()]


def train(folder, data, schedule, hidden, number, y_train=None, pick=True, after_epoch=None, progress=None):
    """Train and write the model and its outputs below `folder`/model; as `fit_lstm`. Returns SavedOutputs."""
    path = outputs_path(folder)
    checkpoint = path.with_name("training.checkpoint")
    labels = hashlib.sha256(data.train.labelled(y_train).labels.cpu().numpy()).hexdigest()
    begin_moments(folder, checkpoint)
    kept = {}
    more = {"checkpoint": checkpoint, "identity": f"{labels} {data.fingerprint} {hidden} {pick}", "progress": progress}
    network = fit_lstm(data, schedule, hidden, number, y_train, pick, after_epoch, kept, **more)
    outputs = saved_outputs(network, data, y_train)
    training, words = kept["training"], "\n".join(data.corpus.words)
    rows = {name: getattr(data.corpus, name).rows[data.chosen[name]].tolist() for name in ("train", "test")}
    about = {"dataset": data.dataset, "max_length": data.max_length, **rows}
    with finished_training(folder) as model:
        save_text(model / "vocabulary.txt", words)
        save_json(model / "reviews.json", {**about, "training": training, "vocabulary": checksum(words)})
        save_network(model / "lstm.pt", network, training)
        outputs.save(model / path.name, training)
    return outputs


def add_options(parser):
    """The options that choose the reviews and the network."""
    add = parser.add_argument
    add("--dataset", default="imdb", choices=utils_imdb.DATASETS, help="reviews to train on; snippets need no folder")
    add("--data_dir", type=a_data_folder, help="folder of IMDB and the vectors (default: $RPS_LJE_DATA, else data/)")
    add("--use_pretrained", type=boolean, default=True, metavar="True|False", help="begin with trained word vectors")
    add(
        "--vectors",
        type=a_file,
        help="file of word vectors in GloVe's text format (default: glove.6B.100d.txt of --data_dir)",
    )
    add("--skip_unreadable", action="store_true", help="leave out reviews that are empty or no UTF-8")
    add("--num_of_samples", type=at_least_two, help="keep so many training reviews, and as large a share of the others")
    add("--max_length", type=at_least_one, help="read so many words of each review (default: all)")
    add("--hidden_dim", type=count(1, UNITS), default=256, help="units of each LSTM")
    add("--batch_size", type=at_least_one, default=64, help="reviews per step")
    add("--bfloat16", action="store_true", help="train in bfloat16: faster on GPUs and on CPUs with bfloat16 products")


def main():
    parser = ArgumentParser(description="Train a bidirectional LSTM on film reviews.")
    parser.add_argument("--lr", type=positive, default=1e-3, help="learning rate of Adam")
    parser.add_argument("--epochs", type=passes, default=10, help="passes over the training reviews")
    add = parser.add_argument
    add(
        "--saved_path",
        type=a_path,
        help="run folder, relative to this script (default: saved_models/base; of other reviews _NAME)",
    )
    parser.add_argument("--seed", type=whole, default=0, help="seed of the initialization and the batches")
    add_options(parser)
    add_moments_option(parser)
    add_overwrite(parser)
    parser.add_device()
    options = parser.parse_args()
    cut = options.max_length and f"{options.max_length}words"
    usual = usual_run(options.dataset.removeprefix("imdb"), options.num_of_samples, cut)
    folder = given_folder(usual if options.saved_path is None else options.saved_path, __file__)
    chosen = device(options.device)
    data, began = read(options, chosen), time.perf_counter()
    schedule = Schedule(options.epochs, options.lr, options.batch_size, "fused adam", options.bfloat16)
    settings = folder, data, schedule, options.hidden_dim, options.seed
    keep = moments_keeper(*settings) if options.keep_moments else None
    with holding(folder, "a training"):
        open_run(folder)
        begin_anew(folder, options.overwrite)
        outputs = train(*settings, after_epoch=keep, progress="training")
    seconds, sizes = time.perf_counter() - began, [len(part) for part in (data.train, data.validation, data.test)]
    print("LSTM on {}: {:,} training, {:,} validation, {:,} test reviews".format(options.dataset, *sizes))
    vectors = f", {data.known:,} of them begin with a given vector" if options.use_pretrained else ""
    print(f"{len(data.corpus.words):,} words{vectors}; {torch.get_num_threads()} threads, {chosen}")
    print(f"training accuracy {outputs.train_accuracy:.4f}, test accuracy {outputs.test_accuracy:.4f}")
    print(f"time: {seconds:.1f} s")
    print(f"written: saved_outputs.npz, lstm.pt, vocabulary.txt and reviews.json in {shown(folder / 'model')}")


if __name__ == "__main__":
    run_command(main)
