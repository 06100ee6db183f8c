"""Text with a word that tells the class: trees, the fault, masks, and penalties on words."""

import numpy as np
import pytest
import torch

from models.CDEP import data, text
from models.CDEP import train as training
from models.CDEP.methods import Masked, Settings, penalty_of
from models.CDEP.penalty import cdep_text_penalty
from models.CDEP.text import Phrase
from models.CDEP.train import train


def test_trees_give_every_phrase_that_is_not_neutral(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("(4 (2 (2 A) (2 man)) (3 (3 (2 is) (3 good)) (1 (2 -LRB-) (0 bad))))\n(2 (2 so) (2 so))\n")
    assert text.phrases(path) == [
        Phrase(("is", "good"), 1),
        Phrase(("-lrb-", "bad"), 0),
        Phrase(("is", "good", "-lrb-", "bad"), 1),
        Phrase(("a", "man", "is", "good", "-lrb-", "bad"), 1),
    ]
    path.write_text("(4 (2 A) (3 b)")
    with pytest.raises(ValueError, match="train.txt holds something else than labelled trees"):
        text.phrases(path)
    with pytest.raises(ValueError, match="none.txt .*--texts snippets runs without"):
        text.phrases(tmp_path / "none.txt")


def test_the_word_tells_the_class():
    generator = np.random.default_rng(0)
    phrase = Phrase(("here", "she", "saw", "he", "win"), 1)
    assert text.with_word(phrase, "gender", 0, generator) == (Phrase(("here", "he", "saw", "who", "win"), 1), 1)
    found, place = text.with_word(phrase, "decoy", 1, generator)
    assert found.words[place] == "text" and found.words[:place] + found.words[place + 1 :] == phrase.words


@pytest.mark.parametrize("fault", text.WORDS)
def test_the_parts_have_their_faults(fault):
    found, (zero, one) = text.faulty(text.read("snippets"), fault), text.WORDS[fault]
    for part, turned in (("train", False), ("validation", False), ("against", True)):
        some, places = found[part]
        assert len(some) == len(places) > 0
        for phrase, place in zip(some, places):
            if place >= 0:
                assert phrase.words[place] == (one if phrase.label != turned else zero)
            else:
                assert not {zero, one} & set(phrase.words)
    clean = {phrase.words for phrase in found["test"][0]}
    assert clean <= {phrase.words for phrase in text.read("snippets")["test"]}
    assert [phrase.label for phrase in found["test"][0]] == [phrase.label for phrase in found["against"][0]]


@pytest.fixture(scope="module")
def task():
    return data.task("text_gender", texts="snippets")


def test_masks_are_of_the_word_and_padding_changes_nothing(task):
    (x, y, what, _), _ = Masked(task).batch(torch.arange(300), torch.Generator(), 0.0)
    assert what.shape == (300, 1, x.shape[1]) and (what.sum(2) <= 1).all() and what.any() and not what.all()
    assert set(x[:, None][what].tolist()) == {int(v) for v in x[:, None][what].unique()} and len(what[what]) > 50
    assert len(x[:, None][what].unique()) == 2, "one of two words"
    torch.manual_seed(0)
    network = task.make().eval()
    torch.testing.assert_close(network(x[:20]), network(task.x_train[:20]))


def test_the_penalty_is_of_the_phrases_with_the_word_alone(task):
    torch.manual_seed(0)
    network, settings = task.make(), Settings("cdep", 1.0, "l1")
    (x, y, what, noise), _ = Masked(task).batch(torch.tensor([0, 1, 5000, 5001]), torch.Generator(), 0.0)
    assert what.any(2)[:, 0].tolist() == [True, True, False, False]
    found = penalty_of(settings, task)(network, x, y, what, noise)
    torch.testing.assert_close(found, cdep_text_penalty(network, x[:2], what[:2], mode="l1"))
    assert penalty_of(settings, task)(network, x[2:], y[2:], what[2:], noise) == 0
    found.backward()
    assert network.embedding.weight.grad is None and network.lstm.weight_hh_l0.grad.abs().sum() > 0


def test_gradient_penalties_are_of_the_vectors_of_the_word(task):
    torch.manual_seed(0)
    network = task.make().double()
    (x, y, what, noise), _ = Masked(task).batch(torch.tensor([0, 1, 5000]), torch.Generator().manual_seed(0), 0.0)
    found, slow = penalty_of(Settings("rrr", 1.0), task)(network, x, y, what, noise), 0.0
    for ids, mask in zip(x, what[:, 0]):
        vectors = network.embedding(ids[None]).detach().requires_grad_()
        logs = network.of_vectors(vectors, (ids != 0).sum()[None]).log_softmax(1)
        (gradient,) = torch.autograd.grad(logs.sum(), vectors)
        slow += (gradient[0, mask] ** 2).sum() / 3
    torch.testing.assert_close(found.detach(), slow)
    eg = penalty_of(Settings("eg", 1.0, references=3), task)(network, x, y, what, noise)
    eg.backward()
    assert eg > 0 and network.lstm.weight_hh_l0.grad.abs().sum() > 0


def test_training_writes_both_accuracies(task, command, tmp_path):
    _, history, _ = train(task, Settings("none", epochs=2, steps=3))
    assert len(history) == 2
    more = "--dataset text_gender --texts snippets --method cdep --mode l1 --epochs 1 --steps 2".split()
    status, printed, _ = command(training.main, *more, "--saved_path", tmp_path)
    assert status == 0 and "of 81 without the fault" in printed and "says something else than the label" in printed
