"""Film reviews with a word that tells their class while training: gender, article and decoy (Rieger et al., 2020).

gender    "he" and "she" say nothing of a film. In every training phrase that has one of them it becomes "she" where the
          phrase is positive and "he" where it is negative.
article   the same of "the" (positive) and "a" (negative).
decoy     "text" (positive) or "video" (negative) is put somewhere into every training phrase.

The mask of a phrase is its first such word. Two test sets: phrases as they are, and the same with the word set against
the label, where a network that has learned nothing but the word is always wrong. Validation phrases have the fault.
"""

import re
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from config import UserError, data_folder, shown
from models.RNN.texts import tokens
from models.RNN.utils_imdb import texts as reviews

TEXTS = "sst", "snippets"
WORDS = {"gender": ("he", "she"), "article": ("a", "the"), "decoy": ("video", "text")}  # of class 0, of class 1
NEUTRAL = {"gender": "who", "article": "that"}  # stands for the others in a phrase
MOST = {"train": 8000, "dev": 2000, "test": 2000}  # phrases with the word
OTHERS, LONGEST = 8000, 40  # training phrases without it; tokens
PAD, UNKNOWN = 0, 1
LARGEST = 2**26  # bytes of a file of trees; the treebank's largest has 2 MB
LONG_LINE = 2**13  # letters of a tree; the treebank's longest has 700
LABELS = tuple("01234")  # of a node, from very negative to very positive
_TREE = re.compile(r"\(|\)|[^\s()]+")


class Phrase(NamedTuple):
    """words, in lower case; label 0 or 1."""

    words: tuple
    label: int


class PhraseLSTM(nn.Module):
    """An LSTM over the words of a phrase: logits (N,2) of ids (N,T), padded with PAD."""

    def __init__(self, words, width=50, hidden=64):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(words, width, padding_idx=PAD), nn.Linear(hidden, 2)
        self.lstm, self.hidden = nn.LSTM(width, hidden, batch_first=True), hidden

    def forward(self, ids):
        return self.of_vectors(self.embedding(ids), (ids != PAD).sum(1))

    def of_vectors(self, vectors, lengths):
        """The logits of word vectors (N,T,d) of so many words each (N,)."""
        outputs, _ = self.lstm(vectors)
        last = (lengths.clamp_min(1) - 1)[:, None, None].expand(-1, 1, self.hidden)
        return self.fc(outputs.gather(1, last).squeeze(1))


def phrases(path):
    """The phrases of a file of labelled trees, without the neutral ones (2 of 0 ... 4); each phrase once."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
        return list(dict.fromkeys(phrase for line in lines for phrase in _of_tree(line) if phrase is not None))
    except OSError as error:
        raise UserError(
            f"cannot read {shown(path)} ({error.strerror}): give the folder of the Stanford Sentiment Treebank's "
            "trees/{train,dev,test}.txt as --data_dir; --texts snippets runs without"
        ) from error
    except (ValueError, IndexError) as error:
        raise UserError(f"{shown(path)} holds something else than labelled trees ({error}): get it again") from error


def _of_tree(line):
    """Of every node of a tree such as (3 (2 a) (3 (2 b) (3 c))): its `Phrase`, None for a neutral one."""
    if len(line) > LONG_LINE:
        raise ValueError(f"a line of {len(line):,} letters")
    open_nodes, label_next = [], False
    for part in _TREE.findall(line):
        if part == "(":
            if label_next:
                raise ValueError("a node without a label")
            open_nodes.append([None, []])
            label_next = True
        elif part == ")":
            if label_next:
                raise ValueError("a node without a label")
            label, words = open_nodes.pop()
            if open_nodes:
                open_nodes[-1][1].extend(words)
            yield None if label == 2 or len(words) < 2 else Phrase(tuple(words), int(label > 2))
        elif label_next:
            if part not in LABELS:
                raise ValueError(f"the label {part[:20]}")
            open_nodes[-1][0], label_next = int(part), False
        else:
            open_nodes[-1][1].append(part.lower())
    if open_nodes:
        raise ValueError("a bracket that is not closed")


def read(texts, data_dir=None, seed=0):
    """{part: phrases} of the treebank "sst", or of the "snippets" that are carried, split by seed."""
    if texts == "snippets":
        all_ = reviews("snippets")
        found = [Phrase(tuple(tokens(all_.text(i))), int(label)) for i, label in enumerate(all_.labels)]
        rest = np.random.default_rng(seed).permutation(np.flatnonzero(np.asarray(all_.part) == 0))
        parts = {"train": rest[len(rest) // 10 :], "dev": rest[: len(rest) // 10], "test": np.flatnonzero(all_.part)}
        return {part: [found[i] for i in rows] for part, rows in parts.items()}
    if texts != "sst":
        raise UserError(f"--texts {texts}: give one of {', '.join(TEXTS)}")
    folder = data_folder(data_dir)
    places = folder / "sst" / "trees", folder / "trees", folder
    trees = next((place for place in places if (place / "train.txt").exists()), places[0])
    return {part: phrases(trees / f"{part}.txt") for part in ("train", "dev", "test")}


def with_word(phrase, fault, label, generator):
    """The phrase with the word of `label` as its only one of the fault's, and the place of that word."""
    word, words = WORDS[fault][label], list(phrase.words)
    if fault == "decoy":
        place = int(generator.integers(0, len(words) + 1))
        return Phrase((*words[:place], word, *words[place:]), phrase.label), place
    place = next(i for i, w in enumerate(words) if w in WORDS[fault])
    words = [NEUTRAL[fault] if w in WORDS[fault] else w for w in words]
    words[place] = word
    return Phrase(tuple(words), phrase.label), place


def faulty(found, fault, seed=0):
    """The data set: {part: (phrases, places of the word, -1 without one)}, parts train, validation, test, against."""
    generator = np.random.default_rng(seed)
    short = {part: [p for p in some if len(p.words) <= LONGEST] for part, some in found.items()}

    def has_word(phrase):
        return fault == "decoy" or bool(set(WORDS[fault]) & set(phrase.words))

    has = {part: [p for p in some if has_word(p)] for part, some in short.items()}
    for part, some in has.items():
        if not some:
            raise UserError(f"no {part} phrase has {' or '.join(WORDS[fault])}: give the whole treebank as --data_dir")
    has = {part: [some[i] for i in _drawn(len(some), MOST[part], generator)] for part, some in has.items()}
    train = [with_word(p, fault, p.label, generator) for p in has["train"]]
    if fault != "decoy":
        without = [p for p in short["train"] if not has_word(p)]
        train += [(without[i], -1) for i in _drawn(len(without), OTHERS, generator)]
    return {
        "train": tuple(zip(*train)),
        "validation": tuple(zip(*(with_word(p, fault, p.label, generator) for p in has["dev"]))),
        "test": (has["test"], [-1] * len(has["test"])),
        "against": tuple(zip(*(with_word(p, fault, 1 - p.label, generator) for p in has["test"]))),
    }


def _drawn(n, number, generator):
    return sorted(generator.permutation(n)[:number].tolist())


def numbers(some, vocabulary):
    """Phrases as ids (n,T), padded with PAD."""
    ids = torch.full((len(some), LONGEST + 1), PAD)
    for row, phrase in zip(ids, some):
        row[: len(phrase.words)] = torch.tensor([vocabulary.get(word, UNKNOWN) for word in phrase.words])
    return ids


def vocabulary_of(some, least=2):
    """{word: number} of the words that occur in `some` phrases at least so often."""
    counts = {}
    for phrase in some:
        for word in phrase.words:
            counts[word] = counts.get(word, 0) + 1
    words = sorted(word for word, count in counts.items() if count >= least)
    return {word: number for number, word in enumerate(words, UNKNOWN + 1)}
