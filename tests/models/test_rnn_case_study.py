"""The case studies on reviews, on a tiny LSTM of the carried snippets."""

import html
import re

import numpy as np
import pytest

from explainer.methods import METHODS
from models.RNN import case_study, perturbation
from models.RNN.case_study import CaseStudy
from models.RNN.perturbation import change_word


@pytest.fixture
def study(lstm_run):
    return CaseStudy(lstm_run)


def test_explanations_leave_wrongly_predicted_reviews_out(study):
    o, tests = study.outputs, np.arange(10)
    right = (o.pred_train > 0.5) == (o.labels_train == 1)
    assert 0 < right.sum() < len(right)
    for key in METHODS:
        best = study.best(key, tests, 4)
        importance = study.importance(key, tests)
        for t in tests:
            order = [i for i in np.argsort(-importance[:, t], kind="stable") if right[i]]
            np.testing.assert_allclose(importance[best[:, t], t], importance[order[:4], t])
            assert right[best[:, t]].all()


def test_a_table_has_the_test_review_and_three_of_each_method(study):
    table = study.table(7)
    assert len(table) == 10 and table.index[0] == ("test review", 7)
    assert table["text"].iloc[0] == study.model.test_text(7)
    (_, i), row = table.index[1], table.iloc[1]
    assert i == study.best("ours", 7)[0, 0] and row["text"] == study.model.text(i)
    assert row["class"] == ("negative", "positive")[study.outputs.labels_train[i]]
    table["text"] = "<b>&"
    shown = case_study.shown(table, "one").to_html()
    assert html.escape("<b>&") in shown and "<b>&" not in shown


def test_sensitivity_has_the_best_reviews_of_every_step(study):
    table = study.sensitivity(3)
    assert len(table) == 3 * len(case_study.GAMMAS)
    found = table.loc["γ = 10"].index.get_level_values("review")
    np.testing.assert_array_equal(found, study.best("ours", 3, lr=10.0)[:, 0])


def test_correlations_do_not_depend_on_the_blocks(study, monkeypatch):
    whole = study.correlations()
    assert len(whole) == len(study.outputs.labels_test)
    monkeypatch.setattr(case_study, "BLOCK", 7)
    np.testing.assert_allclose(study.correlations(), whole, atol=1e-6)


def test_one_word_is_changed_and_marked():
    text = "Don't miss it: a " + "long " * 60 + "film <3"
    seen = set()
    for number in range(200):
        changed = change_word(5, text, ["new", "film"], np.random.default_rng(number))
        before, after = text.split(), changed.text.split()
        assert changed.review == 5 and len(before) == len(after)
        different = [i for i in range(len(before)) if before[i] != after[i]]
        assert len(different) == 1 and changed.replacement in after[different[0]]
        assert f"<del>{changed.word}</del> <b><mark>{changed.replacement}</mark></b>" in changed.marked()
        plain = html.unescape(re.sub(r"<del>.*?</del> |<.?b>|<.?mark>|… | …", "", changed.marked()))
        assert plain in changed.text and len(plain) < 320
        seen.add(different[0])
    assert 0 in seen and len(before) - 1 not in seen and len(seen) > 40  # "Do" of "Don't" is a word, "<3" is none
    assert change_word(0, "... 1 2", ["new"], np.random.default_rng(0)) is None
    assert change_word(0, "1 good film", ["new"], np.random.default_rng(0), max_length=2).word == "good"


def test_ranks_of_the_originals(study):
    changed = perturbation.draw(study, 12, 1)
    assert [one[:4] for one in changed] == [one[:4] for one in perturbation.draw(study, 12, 1)]
    assert len({one.review for one in changed}) == 12 and study.model.right[[one.review for one in changed]].all()
    table = perturbation.ranks(study, changed)
    features, logits = study.model.features([one.text for one in changed])
    for j, one in enumerate(changed):
        f, sign = features[j].numpy(), 1 if logits[j] > 0 else -1
        w = study.weights("ours")["weight_matrix"][:, 0]
        score = np.where(study.model.right, sign * (w @ f), -np.inf)
        assert table["RPS-LJE"][j] == 1 + (score > score[one.review]).sum()
        assert table["prediction changed"][j] == ((logits[j] > 0) != (study.outputs.pred_train[one.review] > 0.5))
    rates = perturbation.hit_rates(table)
    assert rates.loc["RPS-LJE", "original among the best 5"] == (table["RPS-LJE"] <= 5).mean()
    assert list(rates.index) == [*(method.label for method in METHODS.values()), "cosine"]


def test_unchanged_reviews_are_their_own_nearest_by_cosine(study):
    same = [
        perturbation.Changed(i, 0, "", "", study.model.text(i)) for i in np.flatnonzero(study.model.right)[:8].tolist()
    ]
    assert (perturbation.ranks(study, same)["cosine"] == 1).all()
