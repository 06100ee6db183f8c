"""The vectors of words: GloVe 6B (Pennington et al., 2014), downloaded where it can be, or a file in its format."""

import re

import numpy as np

from config import UserError, data_folder, expanded, seed, shown
from models.archives import Broken, unzip
from models.downloads import download, reason
from models.RNN.utils_imdb import SPECIALS

WIDTH = 100  # of the word vectors
GLOVE = "glove.6B.100d.txt"
# Where torchtext has it from, but over https, and the hash that GluonNLP publishes.
GLOVE_ARCHIVE = "https://nlp.stanford.edu/data/glove.6B.zip"
GLOVE_HASH = "sha1:b64e54f1877d2f735bdd000c1d7d771e25c7dfdc"
LONGEST = 2**16  # characters of a line of vectors


def vectors(words, file=None, data_dir=None):
    """The vectors (k,100) of a vocabulary of k words, float32, and for how many of them the file has one.

    file: in GloVe's text format, `word v1 ... v100`, or with word2vec's first line, `k 100`; None: GloVe 6B below
    `data_dir`, downloaded where it can be.
    Words without one are drawn from a normal distribution, always the same; <unk> and <pad> are 0, as published.
    """
    path = _glove(data_folder(data_dir)) if file is None else expanded(file)
    rows = {word: i for i, word in enumerate(words)}
    found = np.random.RandomState(seed("vectors", 0)).normal(size=(len(words), WIDTH)).astype(np.float32)
    count, checked = 0, False
    try:
        with open(path, encoding="utf-8") as lines:
            for at, line in enumerate(iter(lambda: lines.readline(LONGEST), ""), 1):
                if len(line) == LONGEST:
                    raise ValueError(f"line {at} has {LONGEST:,} letters or more")
                word, _, rest = line.rstrip("\n").partition(" ")
                if checked and word not in rows or at == 1 and re.fullmatch(r"\d+ \d+ ?", line.rstrip("\n")):
                    continue
                checked = True
                values = np.array(rest.split(), dtype=np.float32)
                if len(values) != WIDTH:
                    got = f"line {at} has {len(values)} numbers after its word, expected {WIDTH}"
                    raise UserError(f"{shown(path)} holds vectors of another width: {got}; give another --vectors")
                if word in rows:
                    found[rows[word]] = values
                    count += 1
    except OSError as error:
        raise UserError(f"cannot read the vectors {shown(path)} ({error.strerror}): give another --vectors") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{shown(path)} is no text file of vectors ({error}): give another --vectors") from error
    if not count:
        raise UserError(f"{shown(path)} has a vector of none of the {len(words):,} words: give another --vectors")
    if not np.isfinite(found).all():
        word = words[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]
        raise UserError(f"{shown(path)} has a vector that is not finite, of {word!r}: give another --vectors")
    found[: len(SPECIALS)] = 0
    return found, count


def _glove(root):
    """GloVe's file of 100 dimensions below `root`, downloaded where it can be."""
    path, archive = root / GLOVE, root / "glove.6B.zip"
    if path.exists():
        return path
    try:
        if not archive.exists():
            download(GLOVE_ARCHIVE, archive, GLOVE_HASH)
    except (OSError, UserError) as error:
        raise UserError(
            f"no word vectors in {shown(root)}: looked for {GLOVE} and {archive.name}, and could not download "
            f"{reason(error)}; give a file as --vectors, or --use_pretrained False"
        ) from error
    try:
        unzip(archive, GLOVE, path)
    except Broken as error:
        raise UserError(
            f"cannot unpack {shown(archive)} ({reason(error)}): delete it, so that it is fetched again, give a file as "
            "--vectors, or --use_pretrained False"
        ) from error
    return path
