"""Hierarchies, the baselines that they may be built of, and their pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_decomposition import network
from test_decomposition_text import Tagger
from torch import nn

from config import UserError
from explainer.decomposition import (
    Hierarchy,
    agglomerate_image,
    agglomerate_text,
    build_up,
    cd,
    cd_layers,
    draw_image,
    draw_layers,
    draw_methods,
    draw_sentence,
    gradient_times_input,
    image_scores,
    integrated_gradients,
    occlusion,
    superpixels,
    text_scores,
    tiles,
)
from explainer.decomposition.pictures import seen

METHODS = ["cd", "build_up", "occlusion"]


@pytest.fixture
def sentence():
    torch.manual_seed(0)
    return Tagger(2, True).double(), torch.randint(0, 30, (11,))


@pytest.fixture
def image():
    model, x, _ = network("reused, functional", torch.float64)
    return model, x[0]


def sums(values):
    """Scores that add up."""
    return lambda sets: [float(np.sum(values[list(some)])) for some in sets]


@pytest.mark.parametrize("method", METHODS)
def test_hierarchies_of_sentences_are_nested_and_end_in_the_sentence(sentence, method):
    model, ids = sentence
    h = agglomerate_text(text_scores(model, ids, 1, method), 11)
    assert h.nested() and (h.levels[-1] == 1).all() and not h.levels[0].any()
    whole = text_scores(model, ids, 1, method)([list(range(11))])[0]
    assert h.scores[-1][1] == pytest.approx(whole)
    for level in h.levels:
        for c in range(1, level.max() + 1):
            assert (np.diff(np.flatnonzero(level == c)) == 1).all(), "components are runs"
    for size in (1, 3, 100):
        other = agglomerate_text(text_scores(model, ids, 1, method, max_batch=size), 11)
        assert all((a == b).all() for a, b in zip(h.levels, other.levels)) and len(h.levels) == len(other.levels)


@pytest.mark.parametrize("method", METHODS)
def test_hierarchies_of_images_are_nested_and_end_in_one_component(image, method):
    model, x = image
    units = tiles(16, 16, 4)
    h = agglomerate_image(image_scores(model, x, units, 1, method), units, percentile=80)
    assert h.nested() and h.levels[-1].max() == 1 and len(h.levels) > 2
    other = agglomerate_image(image_scores(model, x, units, 1, method, max_batch=5), units, percentile=80)
    assert all((a == b).all() for a, b in zip(h.levels, other.levels)) and len(h.levels) == len(other.levels)


def test_the_most_telling_token_comes_first_and_grows_by_what_adds_most():
    values = np.array([0.1, 3.0, -0.2, 0.4, -5.0, 2.0])
    h = agglomerate_text(sums(values), 6, percentile=99)
    assert h.components(1) == {1: [4]} and h.scores[1] == {1: -5.0}
    np.testing.assert_allclose(h.unit_scores[1], [0.1, 3.0, -0.2, 0.4, np.nan, 2.0])
    assert h.components(2) == {1: [1], 2: [4, 5]}  # of five left, those above the 59th percentile
    assert h.scores[-1][1] == pytest.approx(values.sum())
    assert len(agglomerate_text(sums(values), 6, rounds=2).levels) == 3


def test_neighbours_are_scored_by_what_they_add_to_the_component():
    """Two tokens that say something together alone."""

    def score(sets):
        return [1.0 * (2 in some) + 5.0 * ({2, 3} <= set(some)) - 0.5 * (0 in some) for some in sets]

    h = agglomerate_text(score, 9, percentile=99)
    assert h.components(1) == {1: [2]} and h.unit_scores[1][3] == 5.0 and h.components(2) == {1: [2, 3]}
    tree = {tuple(node["units"]): node for node in h.collapse()}
    assert tree[2, 3]["level"] == 1 and tree[2, 3]["score"] == 6.0 and tree[(3,)]["score"] == 0.0


def test_parts_of_an_image_grow_and_are_merged_by_their_gain():
    units, values = tiles(8, 8, 2), -np.linspace(0.1, 0.2, 16)
    values[[0, 1]], values[15] = (3.0, 2.0), 2.5  # a corner, and the opposite one
    h = agglomerate_image(sums(values), units, percentile=93, rounds=1)
    assert h.components(1) == {1: [0], 2: [15]} and h.levels[-1].max() == 1
    grown = agglomerate_image(sums(values), units, percentile=93, rounds=2)
    assert grown.components(2) == {1: [0, 1], 2: [15]}
    assert grown.scores[2] == {1: 5.0, 2: 2.5} and grown.scores[-1][1] == pytest.approx(7.5)


def test_hierarchies_are_read_back(sentence, tmp_path):
    model, ids = sentence
    h = agglomerate_text(text_scores(model, ids, 0), 11, names=list("abcdefghijk"))
    for source in (h.to_json(tmp_path / "h.json"), tmp_path / "h.json"):
        other = Hierarchy.from_json(source)
        assert all((a == b).all() for a, b in zip(h.levels, other.levels)) and other.names == h.names
        assert other.collapse() == h.collapse() and other.units is None
    with pytest.raises(ValueError, match="this is no hierarchy"):
        Hierarchy.from_json("{}")
    single = {"levels": [[0]], "scores": [{}], "unit_scores": [[float("nan")]], "units": None, "names": []}
    with pytest.raises(ValueError, match="a unit's score is no number"):
        Hierarchy.from_json(json.dumps(single))


def test_linear_models_have_one_answer():
    """Of a linear model without a bias all methods agree, but for gradients' sum over the unit."""
    torch.manual_seed(0)
    model, x, masks = nn.Linear(6, 3, bias=False).double(), torch.randn(2, 6).double(), torch.rand(4, 6) > 0.5
    expected = cd(model, x, masks).rel
    torch.testing.assert_close(build_up(model, x, masks), expected.detach())
    torch.testing.assert_close(occlusion(model, x, masks), expected.detach())
    target = torch.tensor([0, 2])
    gradient = gradient_times_input(model, x, target)
    path = integrated_gradients(model, x, target, steps=3)
    torch.testing.assert_close(gradient, path)
    by_mask = (gradient[:, None] * masks).sum(2)
    torch.testing.assert_close(by_mask, expected[[0, 1], :, target].detach())


def test_integrated_gradients_sum_to_the_change_of_the_logit(image, sentence):
    model, x = image
    found = integrated_gradients(model, x[None], 2, baseline=0.3, steps=400, max_batch=64)
    with torch.no_grad():
        change = model(x[None])[0, 2] - model(torch.full_like(x[None], 0.3))[0, 2]
    assert float(found.sum()) == pytest.approx(float(change), rel=1e-2)
    model, ids = sentence
    found = integrated_gradients(model, ids[None], 1, baseline=4, steps=200)
    with torch.no_grad():
        change = model(ids[None])[0, 1] - model(torch.full_like(ids[None], 4))[0, 1]
    assert found.shape == (1, 11) and float(found.sum()) == pytest.approx(float(change), rel=1e-3)


def test_one_logit_speaks_for_class_1_and_its_negative_for_class_0():
    model, x, masks = nn.Linear(3, 1).double(), torch.randn(2, 3).double(), torch.eye(3)
    torch.testing.assert_close(build_up(model, x, masks, 1), -build_up(model, x, masks, 0))
    torch.testing.assert_close(gradient_times_input(model, x, 1), -gradient_times_input(model, x, 0))


def test_pictures_are_files_and_return_what_they_show(sentence, image, tmp_path):
    model, ids = sentence
    h = agglomerate_text(text_scores(model, ids, 1), 11)
    table = draw_sentence(h, tmp_path / "sentence.png", tokens=[f"word{i}" for i in range(11)])
    assert (table["level"] == 0).sum() == 11 and table.iloc[-1]["text"].startswith("word0 word1")
    tops = table[table["level"] == table["level"].max()]
    assert len(tops) == 1 and tops.iloc[0]["score"] == pytest.approx(h.scores[-1][1])
    model, x = image
    units = tiles(16, 16, 4)
    h = agglomerate_image(image_scores(model, x, units, 1), units)
    picture = np.random.default_rng(0).random((16, 16, 3))
    table = draw_image(h, picture, tmp_path / "image.png", "abc", image_scores(model, x, units, None))
    assert table.columns.tolist() == ["level", "component", "units", "a", "b", "c"]
    last = table.iloc[-1]
    assert last["b"] == pytest.approx(h.scores[-1][1])
    maps = draw_methods(picture, {"cd": np.zeros((16, 16))}, tmp_path / "methods.png")
    assert maps["cd"].shape == (16, 16)
    layers = draw_layers(cd_layers(model, x, torch.ones(16, 16)), tmp_path / "layers.png")
    assert (layers["share"] == 1).all()
    for name in ("sentence", "image", "methods", "layers"):
        assert min(Image.open(tmp_path / f"{name}.png").size) > 200


def test_superpixels_are_numbered_and_cover_the_image():
    pytest.importorskip("skimage", reason="scikit-image is an optional package: pip install scikit-image")
    units = superpixels(np.random.default_rng(0).random((32, 32, 3)), 20)
    assert units.shape == (32, 32) and np.array_equal(np.unique(units), np.arange(units.max() + 1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: agglomerate_text(lambda sets: [0.0], 3), r"gave \(1,\) for 3 sets: it must give a number each"),
        (lambda: agglomerate_text(lambda sets: [np.nan] * len(sets), 3), "it must give a number each"),
        (lambda: agglomerate_text(sums(np.ones(3)), 0), "T is 0: give a whole number from 1 up"),
        (lambda: agglomerate_text(sums(np.ones(3)), 3, percentile=101), "percentile is 101: give a number"),
        (lambda: agglomerate_image(sums(np.ones(3)), np.array([[0, 2]])), "give .* with 0, 1, … each used"),
        (lambda: agglomerate_image(sums(np.ones(3)), np.arange(3)[None], rounds=0), "rounds is 0"),
        (lambda: build_up(nn.Linear(3, 2), torch.zeros(1, 3), torch.eye(3), 2), r"target is \[2\]: give classes"),
        (lambda: image_scores(nn.Linear(3, 2), torch.zeros(1, 4, 4), tiles(3, 3, 1), 0), r"units have the shape"),
        (lambda: text_scores(Tagger(), torch.zeros(3).long(), 0, "lrp")([[0]]), "method is 'lrp': give one of cd"),
        (lambda: draw_sentence(Hierarchy([np.zeros(2, int)], [{}], [np.zeros(2)]), "x.png", ["a"]), "got 1 tokens"),
        (lambda: integrated_gradients(nn.Linear(3, 2), torch.zeros(1, 3), 0, steps=0), "steps is 0"),
    ],
)  # fmt: skip
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_images_that_are_drawn_are_not_cut_off():
    bytes_, share = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, np.linspace(0, 1, 16).reshape(4, 4)
    np.testing.assert_allclose(seen(bytes_), bytes_ / 255)
    np.testing.assert_array_equal(seen(torch.from_numpy(share)), share)
    np.testing.assert_array_equal(seen(share[:, :, None] > 0.5), share > 0.5)
    for image, said in (
        (share * 3 - 1, "from -1 to 2"),
        (share * 255, "from 0 to 255"),
        (share * np.nan, "nan to nan"),
    ):
        with pytest.raises(UserError, match=f"{said}: give 0 to 1, or bytes of 0 to 255"):
            seen(image)
    with pytest.raises(UserError, match=r"the image is \(3, 5, 5\): give \(H, W\) or \(H, W, 3\)"):
        seen(np.zeros((3, 5, 5)))
