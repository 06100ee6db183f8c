"""One word of a training review is changed: which method's best explanation is the original review? (Paper, Table 3.)

A changed review is nearly a training review, so that whoever asks for the training data behind its prediction may
expect the original. The paper shows three; here the share is counted over many, drawn by seed.
"""

import html
from typing import NamedTuple

import numpy as np
import pandas as pd

from config import seed
from explainer.methods import METHODS
from models.RNN.texts import spans

HITS = 1, 5  # hit rates among so many best training reviews
AROUND = 150  # characters shown to either side of the changed word


class Changed(NamedTuple):
    """Training review `review` with its word at characters start:start+len(word) replaced. text: the changed one."""

    review: int
    start: int
    word: str
    replacement: str
    text: str

    def marked(self):
        """HTML of the surroundings, cut between words: the old word struck through, the new one beside it."""
        before, after = self.text[: self.start], self.text[self.start + len(self.replacement) :]
        if len(before) > AROUND:
            before = "… " + before[-AROUND:].partition(" ")[2]
        if len(after) > AROUND:
            after = after[:AROUND].rpartition(" ")[0] + " …"
        before, word, replacement, after = map(html.escape, (before, self.word, self.replacement, after))
        return f"{before}<del>{word}</del> <b><mark>{replacement}</mark></b>{after}"


def change_word(review, text, words, generator, max_length=None):
    """`Changed`: a word of the text, drawn by a NumPy generator, is replaced by another one of `words`.

    Only words of letters are changed, among the first `max_length` words of the text. None where there is none.
    """
    places = [span for span in spans(text)[:max_length] if span[0].isalpha()]
    if not places:
        return None
    word, start, end = places[generator.integers(len(places))]
    replacement = word
    while replacement == word:
        replacement = words[generator.integers(len(words))]
    return Changed(review, start, text[start:end], replacement, text[:start] + replacement + text[end:])


def draw(study, number=200, draw_seed=0):
    """`number` training reviews of a `models.RNN.case_study.CaseStudy`, rightly predicted ones, a word of each changed.

    The new words are drawn from those of the vocabulary that consist of letters.
    """
    generator = np.random.default_rng(seed("perturbation", draw_seed))
    words = [word for word in study.model.words if word.isalpha()]
    changed = []
    for i in generator.permutation(np.flatnonzero(study.model.right)):
        if len(changed) == number:
            break
        one = change_word(int(i), study.model.text(i), words, generator, study.model.max_length)
        changed += [one] if one else []
    return changed


def ranks(study, changed):
    """The rank of the original among the explanations of each changed review: a table with a row per review.

    The explained class is that of the prediction. Wrongly predicted training reviews are left out, as published.
    Columns: review, word, replacement, prediction changed (against the original's), the rank by each method (1 is the
    best explanation), and by cosine: the rank by the cosine of the features, which knows nothing of labels and losses.
    """
    features, logits = study.model.features([one.text for one in changed])
    features, labels = features.numpy(), (logits > 0).long().numpy()
    originals = np.array([one.review for one in changed])
    table = pd.DataFrame([one[:1] + one[2:4] for one in changed], columns=["review", "word", "replacement"])
    table["prediction changed"] = labels != (study.outputs.pred_train[originals] > 0.5)
    unit, new = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (study.outputs.intermediate_train, features))
    scores = {
        method.label: method.importance_of(study.weights(key), study.outputs, features, labels)
        for key, method in METHODS.items()
    }
    for name, score in {**scores, "cosine": unit @ new.T}.items():
        own = score[originals, np.arange(len(changed))]
        table[name] = 1 + (score[study.model.right] > own).sum(0)
    return table


def hit_rates(table):
    """For each method, the share of the changed reviews whose original is the best, and among the five best."""
    columns = [method.label for method in METHODS.values()] + ["cosine"]
    rates = {f"original among the best {k}": (table[columns] <= k).mean() for k in HITS}
    return pd.DataFrame({**rates, "median rank of the original": table[columns].median()}).rename_axis("method")
