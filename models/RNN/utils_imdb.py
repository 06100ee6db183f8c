"""The reviews as word numbers. The only module that uses torchtext.

Sources: IMDB, the Large Movie Review Dataset (Maas et al., 2011), as its archive unpacks,
`<dir>/aclImdb/{train,test}/{neg,pos}/*.txt`, downloaded where it can be; and snippets, 10,605 sentences of film reviews
that this repository carries. Labels: 0 negative, 1 positive.
"""

import hashlib
import json
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spacy
from tqdm import tqdm

from config import PROJECT_ROOT, UserError, data_folder, shown
from models.archives import extract
from models.arrays import Array
from models.downloads import download, reason
from models.files import load_npz, save_npz
from models.RNN.texts import LABELS, SPLIT_SEED, WITHOUT, Files, Lines, Texts, tokens
from models.stopping import end_with_parent

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it greets every torch newer than itself with deprecations
    from torchtext.vocab import Vocab

DATASETS = ("imdb", "snippets")
PARTS = ("train", "validation", "test")
SNIPPETS = Path(__file__).resolve().parent / "data" / "movieReviewSnippets_GroundTruth.txt"
VALIDATION = 0.3  # of the training reviews
MAX_WORDS = 25000
SPECIALS = ("<unk>", "<pad>")  # word numbers 0 and 1
FOLDER = "aclImdb"
# Where torchtext has it from, but over https, and the hash that it publishes.
IMDB = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
IMDB_HASH = "md5:7c2ac02c03563afcf9b574c7e56c153a"


@dataclass(frozen=True)
class Reviews:
    """Tokenized reviews, one after the other.

    words: the word numbers of all of them. starts (n+1,): where each begins. labels (n,): 0 or 1. rows (n,): the texts
    of the source that they are, by number.
    """

    words: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self):
        return len(self.labels)

    @property
    def lengths(self):
        """Words in each review, (n,)."""
        return np.diff(self.starts)

    def review(self, i):
        """The word numbers of review i."""
        return self.words[self.starts[i] : self.starts[i + 1]]

    def choose(self, indices, max_length=None):
        """Some of the reviews, in the order of `indices`, with at most `max_length` words, their first ones."""
        kept = [self.review(i)[:max_length] for i in indices]
        return Reviews(np.concatenate(kept), _starts(kept), self.labels[indices], self.rows[indices])


@dataclass(frozen=True)
class Corpus:
    """train, validation, test: tokenized reviews. words: what their numbers mean. source: the texts behind them."""

    train: Reviews
    validation: Reviews
    test: Reviews
    words: list
    source: Texts


def _starts(reviews):
    return np.concatenate([[0], np.cumsum([len(review) for review in reviews], dtype=np.int64)])


def texts(dataset, data_dir=None):
    """The texts of "imdb" or "snippets". Raises UserError where they are not found and cannot be downloaded."""
    if dataset == "snippets":
        return Lines(SNIPPETS)
    root = data_folder(data_dir)
    folder = next((f for f in (root / FOLDER, root) if (f / "train" / "pos").is_dir()), None)
    return Files(folder or _unpacked(root))


def _unpacked(root):
    """The folder of IMDB's archive, which is downloaded where it is not there."""
    folder, archive = root / FOLDER, root / "aclImdb_v1.tar.gz"
    if not (archive.exists() or folder.exists()):
        try:
            download(IMDB, archive, IMDB_HASH)
        except (OSError, UserError) as error:
            raise UserError(
                f"no IMDB in {shown(root)}: looked for {FOLDER}/train/pos and {archive.name}, and could not "
                f"download {reason(error)}; give its folder as --data_dir; {WITHOUT}"
            ) from error
    if folder.exists():
        raise UserError(f"{shown(folder)} holds no train/pos, so that it is not all of IMDB: remove it; {WITHOUT}")

    def review(path):
        below = path.parts[1:3]
        return path.suffix == ".txt" and len(path.parts) == 4 and below[0] in ("train", "test") and below[1] in LABELS

    def whole(below):
        try:
            Files(below)
        except UserError as error:
            raise UserError(
                f"{shown(archive)} is not all of IMDB ({str(error).partition(':')[0]}): delete it"
            ) from None

    extract(archive, folder, review, FOLDER, check=whole)
    return folder


def sample(corpus, number=None):
    """{part: rows}: all of them where `number` is None, else `number` training reviews and that share of the others.

    Half of each class, the first ones of it in the data set's order. Raises UserError where a part has too few.
    """
    parts = {name: getattr(corpus, name) for name in PARTS}
    if number is None:
        return {name: np.arange(len(part)) for name, part in parts.items()}
    whole, chosen = len(corpus.train), {}

    def halves(count, part):
        wanted = max(2, count * len(part) // whole)
        return wanted - wanted // 2, wanted // 2  # of class 0 and of class 1

    def enough(count):
        return all((np.bincount(part.labels, minlength=2) >= halves(count, part)).all() for part in parts.values())

    if not enough(number):
        most = next((count for count in range(min(number, whole), 1, -1) if enough(count)), None)
        given = f"give at most {most}" if most else "no number will do"
        raise UserError(f"--num_of_samples: got {number}; {given} of these reviews, half of each class")
    for name, part in parts.items():
        rows = [np.flatnonzero(part.labels == label)[:half] for label, half in enumerate(halves(number, part))]
        chosen[name] = np.sort(np.concatenate(rows))
    return chosen


def load(dataset="imdb", data_dir=None, skip=False):
    """The tokenized data set: split, numbered by the words of its training part, and cached.

    Training and validation reviews are drawn 70 : 30 with the published seed; each part keeps the source's order. The
    vocabulary is the 25,000 most frequent words of the training part. skip: leave out texts that are empty or no UTF-8.
    Raises UserError where the data are missing or hold such texts.
    """
    source = texts(dataset, data_dir)
    settings = [source.key, SPLIT_SEED, VALIDATION, MAX_WORDS, spacy.__version__, skip, _VERSION]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    path = PROJECT_ROOT / "models" / "RNN" / "data" / "cache" / f"{dataset}_{key}.npz"
    arrays = _cached(path)
    if arrays is None:
        arrays = _tokenized(source, skip)
        save_npz(path, **arrays, checksum=np.array(_checksum(arrays)))
    parts = (Reviews(*(arrays[f"{part}_{name}"] for name in _FIELDS)) for part in PARTS)
    return Corpus(*parts, str(arrays["words"]).split("\n"), source)


_VERSION = 1  # of the preparation; another one makes every cache again
_FIELDS = ("words", "starts", "labels", "rows")


def _cached(path):
    """The arrays of a cache, or None where there is none or it is not what was written."""
    if not path.exists():
        return None
    lengths = {"words": None, "starts": "starts", "labels": "reviews", "rows": "reviews"}
    wanted = {
        f"{part}_{name}": Array("i", ((f"{part} {lengths[name] or name}",),)) for part in PARTS for name in _FIELDS
    }
    try:
        arrays = load_npz(path, {**wanted, "words": Array("U", ((),)), "checksum": Array("U", ((),))}, "")
    except UserError:
        return None
    return arrays if str(arrays.pop("checksum")) == _checksum(arrays) else None


def _checksum(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:16]


def _words_of(job):
    """The words of some texts; runs in a process of its own."""
    source, numbers = job
    return [tokens(source.text(i)) for i in numbers]


def _tokenized(source, skip):
    """Tokenize on all cores, split, number."""
    blocks = np.array_split(np.arange(len(source.names)), max(1, len(source.names) // 500))
    reviews = []
    with ProcessPoolExecutor(initializer=end_with_parent) as pool:
        jobs = ((source, block) for block in blocks)
        try:
            for block in tqdm(pool.map(_words_of, jobs), "tokenizing", len(blocks), disable=None, leave=False):
                reviews += block
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    empty = [i for i, words in enumerate(reviews) if not words]
    if empty and not skip:
        raise UserError(
            f"{len(empty)} of {len(reviews)} reviews are empty or no UTF-8, the first is {source.names[empty[0]]}: "
            "mend them, or leave them out with --skip_unreadable"
        )
    usable = np.array([bool(words) for words in reviews])
    train = np.flatnonzero((source.part == 0) & usable)
    drawn = np.random.RandomState(SPLIT_SEED).permutation(train)
    cut = len(train) - int(len(train) * VALIDATION)
    parts = np.sort(drawn[:cut]), np.sort(drawn[cut:]), np.flatnonzero((source.part == 1) & usable)
    if not all(len(rows) for rows in parts):
        there = f"{len(train)} usable training and {len(parts[2])} usable test reviews"
        raise UserError(f"there are {there}: give at least 4 and 1, of which 30 % of the former are for validation")
    counter = Counter(word for i in parts[0] for word in reviews[i])
    vocabulary = Vocab(counter, max_size=MAX_WORDS, specials=list(SPECIALS))
    arrays = {"words": np.array("\n".join(vocabulary.itos))}
    for part, rows in zip(PARTS, parts):
        kept = [[vocabulary.stoi[word] for word in reviews[i]] for i in rows]
        arrays[f"{part}_words"] = np.concatenate(kept).astype(np.int32)
        arrays[f"{part}_starts"] = _starts(kept)
        arrays[f"{part}_labels"], arrays[f"{part}_rows"] = source.labels[rows], rows
    return arrays
