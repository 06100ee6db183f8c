"""The reviews as their authors wrote them, and the words that they are made of."""

import hashlib
import math
import os
import re
from abc import ABC, abstractmethod
from functools import cache

import numpy as np
import spacy

from config import UserError, shown
from models.files import readable

LABELS = ("neg", "pos")  # 0 and 1
CLASSES = "negative", "positive"  # the same, as they are shown
SPLIT_SEED = 1234  # the published one
SNIPPETS_TEST = 0.3  # of the snippets
MOST = 2**20  # bytes of a text in a file of its own; IMDB's longest has 14,000
SNIPPET = re.compile(r"(\d+)\t([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\t([^\t]*\S[^\t]*)", re.ASCII)
AGAIN = "take it from the repository again"
WITHOUT = "to train without any: --dataset snippets"


class Texts(ABC):
    """The texts of a data set. names: of each. labels (n,): 0 or 1. part (n,): 0 training, 1 test.

    key: a hash, another one where a text may have changed.
    """

    def __init__(self, names, labels, part, key):
        self.names, self.labels, self.part, self.key = names, np.array(labels), np.array(part), key

    @abstractmethod
    def text(self, i):
        """Text number i as its author wrote it, but for HTML's line breaks; "" where it cannot be decoded."""


class Files(Texts):
    """Texts in a file each, below aclImdb."""

    def __init__(self, folder):
        self.folder = folder
        names, labels, part, digest = [], [], [], hashlib.sha256()
        for p, section in enumerate(("train", "test")):
            for label, name in enumerate(LABELS):
                below = folder / section / name
                files = (f for f in _listing(below) if f.name.endswith(".txt") and f.is_file())
                files = sorted(files, key=lambda f: f.name)
                if not files:
                    raise UserError(f"{shown(below)} holds no reviews (*.txt): unpack IMDB again; {WITHOUT}")
                for file in files:
                    status = file.stat()
                    if status.st_size > MOST:
                        size = f"{status.st_size:,} bytes, more than the {MOST:,} of a review"
                        raise UserError(f"{shown(below / file.name)} has {size}: remove it")
                    digest.update(f"{section}/{name}/{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
                names += [f"{section}/{name}/{file.name}" for file in files]
                labels += [label] * len(files)
                part += [p] * len(files)
        super().__init__(names, labels, part, digest.hexdigest())

    def text(self, i):
        path = self.folder / self.names[i]
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return ""
        except OSError as error:
            raise UserError(f"cannot read {shown(path)} ({error.strerror}): mend or remove it") from error
        return text.replace("<br />", " ").strip()


class Lines(Texts):
    """The carried snippets: number, mean score by twenty people, text. Those of score 0 are of no class: left out."""

    def __init__(self, path):
        """Raises UserError where the file cannot be read, or has a line of another form."""
        with readable(path, AGAIN):
            content = path.read_bytes()
            lines = content.decode("utf-8").splitlines()
        rows = [_snippet(path, number, line) for number, line in enumerate(lines, 1)]
        rows = [(number, score, text) for number, score, text in rows if score != 0]
        if not rows:
            raise UserError(f"{shown(path)} holds no snippets: {AGAIN}")
        self.texts = [text.strip() for _, _, text in rows]
        drawn = np.random.RandomState(SPLIT_SEED).permutation(len(rows))
        part = np.zeros(len(rows), int)
        part[drawn[: int(len(rows) * SNIPPETS_TEST)]] = 1
        labels = [int(score > 0) for _, score, _ in rows]
        names = [f"snippet {number}" for number, _, _ in rows]
        super().__init__(names, labels, part, hashlib.sha256(content).hexdigest())

    def text(self, i):
        return self.texts[i]


def _snippet(path, number, line):
    """(number, score, text) of a line of the snippets. Raises UserError where it has another form."""
    found = SNIPPET.fullmatch(line)
    if not found or not math.isfinite(float(found[2])):
        raise UserError(f"{shown(path)}, line {number}, is no snippet (number, score and text, with tabs): {AGAIN}")
    return found[1], float(found[2]), found[3]


def _listing(folder):
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


@cache
def _tokenizer():
    return spacy.blank("en").tokenizer


def spans(text):
    """The words of a text in lower case, as (word, begin, end), of which the characters begin:end of the text are each.

    Cut by spaCy's rules for English, which need no trained model.
    """
    return [(token.lower_, token.idx, token.idx + len(token)) for token in _tokenizer()(text) if not token.is_space]


def tokens(text):
    """The words of a text in lower case (see `spans`)."""
    return [word for word, _, _ in spans(text)]
