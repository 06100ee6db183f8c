"""Images of a folder with masks, and classifiers of a frozen network's features."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from explainer.decomposition import cd, cd_parts
from models.CDEP import data, folder
from models.CDEP import train as training
from models.CDEP.methods import Settings
from models.CDEP.train import evaluated, train

SIDE, PATCH = 24, 6


def image(generator, label, patch):
    """A bright bar, upright or level; with a patch in the lower right corner."""
    x = generator.integers(0, 120, (SIDE, SIDE, 3))
    place = int(generator.integers(4, SIDE - 10))
    x[(slice(place, place + 2), slice(2, 16)) if label else (slice(2, 16), slice(place, place + 2))] += 90
    if patch:
        x[-PATCH:, -PATCH:] = 255, 200, 0
    return Image.fromarray(x.astype(np.uint8))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 training images, the patch in those of class 1 alone; 20 to validate; 40 to test, the patch in class 0.

    The mask is the corner of all of them: masks of the patches alone leave the empty corner to tell the class.
    """
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    masks = [np.zeros((SIDE, SIDE), np.uint8) for _ in range(2)]
    masks[0][-PATCH - 1 :, -PATCH - 1 :] = masks[1][-PATCH:, -PATCH:] = 255
    for part, n, patched in (("train", 30, 1), ("validation", 10, 1), ("test", 20, 0)):
        for label, name in enumerate(("level", "upright")):
            for i in range(n):
                path = root / part / name / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image(generator, label, label == patched).save(path)
                if part == "train":
                    path = root / "masks" / name / f"{i:02}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(masks[label]).save(path)
    return root


def test_images_and_masks_are_read_in_one_order(images):
    task = data.task("folder", images, side=SIDE)
    assert task.x_train.shape == (60, 3, SIDE, SIDE) and task.y_train.tolist() == [0] * 30 + [1] * 30
    masks = task.masks(torch.arange(60), None)
    assert masks.shape == (60, 1, SIDE, SIDE)
    assert (masks[:30].sum((1, 2, 3)) == (PATCH + 1) ** 2).all() and (masks[30:].sum((1, 2, 3)) == PATCH**2).all()
    yellow = torch.tensor([1.0, 200 / 255, 0]).sub(torch.tensor(folder.MEAN)).div(torch.tensor(folder.STD))
    torch.testing.assert_close(task.x_train[30:, :, -1, -1], yellow.expand(30, 3))


@pytest.mark.parametrize("seed", [2, 3])
def test_with_a_penalty_on_it_the_patch_does_not_decide(images, seed):
    """Where it does, all test images are wrong. Rounding tells what decides instead: the bar, or one class for all."""
    task = data.task("folder", images, side=SIDE)
    common = {"epochs": 60, "batch_size": 20, "lr": 2e-3, "seed": seed}
    accuracies, sizes = [], []
    for settings in (Settings(**common), Settings("cdep", 100.0, "l1", **common)):
        network, history, _ = train(task, settings)
        accuracies.append(evaluated(network, task.x_test, task.y_test)[1])
        sizes.append(history["relevance"].iloc[-1])
    assert accuracies[0] < 0.2 and accuracies[1] > 0.4
    assert sizes[1] < sizes[0] / 1000


@pytest.mark.parametrize("relu", ["acd", "shapley"])
def test_parts_of_features_go_on_as_the_whole_network_does(relu):
    torch.manual_seed(0)
    first, second = (
        nn.Sequential(nn.Linear(6, 8), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2)),
    )
    x, masks = torch.randn(4, 6), torch.rand(3, 6) > 0.5
    with torch.no_grad():
        whole, parts = cd(nn.Sequential(first, second), x, masks, relu=relu), cd(first, x, masks, relu=relu)
        found = cd_parts(second, parts.rel, parts.irrel, relu=relu)
    torch.testing.assert_close(found.rel, whole.rel)
    torch.testing.assert_close(found.logits, whole.logits)
    with pytest.raises(ValueError, match=r"the parts are \(4, 3, 8\) and \(4, 8\): give two \(N, Q, ...\)"):
        cd_parts(second, parts.rel, parts.logits)


def test_a_frozen_network_is_decomposed_once(images):
    task = data.task("folder", images, side=32, frozen="resnet18", weights="none")
    assert task.x_train.shape == (60, 512) and task.parts[0].shape == (60, 512)
    torch.testing.assert_close(task.parts[0] + task.parts[1], task.x_train, rtol=1e-3, atol=1e-3)
    assert task.parts[0].any(1).all()
    network, history, _ = train(task, Settings("cdep", 1.0, "l1", epochs=2))
    assert np.isfinite(history.to_numpy()).all()
    with pytest.raises(ValueError, match="--method rrr needs the images themselves: train without --backbone"):
        train(task, Settings("rrr", 1.0, epochs=1))


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (lambda root: (root / "masks" / "upright" / "03.png").unlink(), [], "1 of 60 training images have no mask"),
        (lambda root: (root / "masks" / "upright" / "03.png").unlink(), [], "the first is upright/03: give one each"),
        (lambda root: (root / "test" / "level" / "00.png").write_text("no"), [], "cannot read the image"),
        (lambda root: (root / "test" / "level").rename(root / "test" / "flat"), [], "give level, upright"),
        (
            lambda root: [p.unlink() for p in (root / "test" / "level").iterdir()],
            [],
            "level holds no images (.bmp, .gif",
        ),
        (
            lambda root: rewrite(root / "masks", lambda mask: mask // 255),
            [],
            "has a white pixel, the brightest is 1 of",
        ),
        (
            lambda root: rewrite(root / "masks", lambda mask: mask[:5]),
            [],
            f"has (24, 5) pixels, its image ({SIDE}, {SIDE})",
        ),
        (lambda root: shutil.rmtree(root / "test"), [], "there is no folder"),
        (
            lambda root: shutil.copy(root / "train" / "level" / "00.png", root / "train" / "level" / "00.jpg"),
            [],
            "two images named 00: rename one",
        ),
        (lambda root: None, ["--side", "2"], "--side 2: give at least 16"),
        (lambda root: None, ["--backbone", "resnet18", "--backbone_weights", "/nowhere.pt"], "nowhere.pt not found in"),
    ],
)
def test_bad_folders(images, refused, tmp_path, change, more, said):
    root = tmp_path / "copy"
    shutil.copytree(images, root)
    change(root)
    assert said in refused(training.main, "--dataset", "folder", "--data_dir", root, "--epochs", 1, *more)


def test_a_stopped_training_does_not_go_on_with_other_images(images, command, tmp_path):
    """Only its own settings and data are gone on with; a finished one is not made again, nor overwritten."""
    other, saved = tmp_path / "copy", tmp_path / "saved"
    shutil.copytree(images, other)
    rewrite(other / "train", lambda image: 255 - image)
    arguments = ["--dataset", "folder", "--epochs", 2, "--side", SIDE, "--saved_path", saved, "--data_dir"]
    assert command(training.main, *arguments, images)[0] == 0
    first = (saved / "model.pt").read_bytes()
    assert command(training.main, *arguments, images)[0] == 0
    status, _, said = command(training.main, *arguments, other)
    assert status == 2 and "was made with data" in said and (saved / "model.pt").read_bytes() == first


def test_a_random_backbone_is_always_the_same(images):
    a, b = (data.task("folder", images, side=32, frozen="resnet18", weights="none") for _ in "ab")
    assert a.fingerprint() == b.fingerprint()


def rewrite(folder, change):
    """Change every image below a folder, as an array."""
    for path in folder.rglob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def test_a_folder_must_be_given(refused):
    assert "--dataset folder: give the folder of the images" in refused(training.main, "--dataset", "folder")
