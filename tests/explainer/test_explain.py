"""Both halves of an explanation: the page and its data."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import REPOSITORY

from explainer.decomposition import Hierarchy
from explainer.decomposition.page import page
from explainer.decomposition.parts import runs
from explainer.explain import cut, gather, slug_of


class Tags(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.text, self.images = [], "", 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.images += tag == "img"
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_units_of_texts_are_tokens_sentences_or_clauses():
    assert runs(list("abc")) == [[0], [1], [2]]
    words = "one two . three ! ?".split() + ["four"] * 20 + [","] + ["five"] * 25 + ["."] + ["six"]
    found = runs(words)
    assert [len(unit) for unit in found] == [3, 3, 21, 26, 1]
    assert sum(found, []) == list(range(len(words)))


def test_pages_hold_everything_and_escape_what_they_are_given():
    point = {"index": 1, "name": "<b>review</b>", "class": "positive", "score": 0.5, "words": [["a & b", -1.0, True]]}
    question = {**point, "probability": 0.75, "logit": 1.1, "label": None, "picture": "aGk="}
    method = {"method": "ours", "label": "RPS-LJE", "about": "It <is>.", "points": [point]}
    text = page({"model": "RNN", "question": question, "methods": [method], "scale": 2.0})
    tags = Tags(text)
    assert "<b>" not in text and "a & b" in tags.text and "It <is>." in tags.text and "0.750" in tags.text
    assert tags.images == 1 and all(link.startswith("data:image/png;base64,") for link in tags.links)


class Half:
    """An explained model of two training points, whose parts are known."""

    classes, folder = ("no", "yes"), REPOSITORY
    outputs = type("Outputs", (), {"labels_train": np.array([0, 1])})

    def methods(self, lr):
        return {}

    def parts(self, what, target, whole):
        hierarchy = Hierarchy([np.zeros(2, int)], [{}], [np.array([1.0, -2.0])])
        return {"hierarchy": hierarchy, "words": [[what, -2.0, False]]}


def test_long_texts_are_cut_and_their_files_have_names_of_their_own():
    assert cut("a  b\n c") == "a b c" and cut("one two three", 9) == "one two …" and cut("x" * 9, 5) == "xxxxx …"
    assert slug_of("!!!") != slug_of("???") and slug_of("Not bad!").startswith("not_bad_")


def test_the_question_is_about_the_predicted_class():
    for probability, name, said in ((0.9, "yes", 0.9), (0.2, "no", 0.8)):
        data = gather(Half(), (None, probability, 1, "text"), "Test point 3", 0.01, 1)
        question = data["question"]
        assert question["class"] == name and question["probability"] == pytest.approx(said)
        assert question["label"] == "yes" and data["scale"] == 2.0 and json.dumps(data)
