"""Masks of a folder's images: whose they are, what they cover once they are small; accuracies of unequal classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from config import UserError
from models import images
from models.CDEP import data, masks
from models.CDEP import train as training
from models.CDEP.accuracy import evaluated, measured, weights_of
from models.CDEP.methods import Settings
from models.files import load_json


def put(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path, **options)
    return path


def named(folder, *names):
    return [put(folder / "train" / "a" / name, np.zeros((4, 4), np.uint8)) for name in names]


@pytest.mark.parametrize(("height", "width", "side"), [(512, 512, 32), (100, 137, 32), (33, 20, 24), (16, 16, 40)])
def test_a_mask_covers_what_the_masked_pixels_change(height, width, side):
    """Two images that differ under the mask alone differ, once they are scaled, nowhere but under the scaled mask."""
    generator = np.random.default_rng(0)
    for _ in range(3):
        mask = np.zeros((height, width), bool)
        mask[generator.integers(0, height, 3), generator.integers(0, width, 3)] = True  # three single pixels
        row, column = generator.integers(0, 8, 2)
        mask[row : row + 10, column : column + 10] = True
        small = [
            np.asarray(Image.fromarray(np.where(mask, value, 0.5).astype(np.float32)).resize((side, side), 2))
            for value in (-1e3, 1e3)
        ]
        np.testing.assert_array_equal(images.covered(mask, side), small[0] != small[1])


def test_small_spots_do_not_vanish_beside_larger_ones():
    mask = np.zeros((512, 512), bool)
    mask[200:400, 200:400] = True
    for i in range(8):
        mask[10 + 50 * i, 20] = True
    found = images.covered(mask, 32)
    assert all(found[(10 + 50 * i) // 16, 20 // 16] for i in range(8)) and found[13:24, 13:24].all()
    assert not images.covered(np.zeros((512, 512), bool), 32).any() and found.mean() < 0.35


@pytest.mark.parametrize("name", ["x.png", "X.PNG", "x_mask.png", "x-mask.tif", "x.mask.bmp", "x_segmentation.png",
                                  "x.jpg.png", "x.jpg_mask.gif"])  # fmt: skip
def test_masks_are_found_as_people_name_them(tmp_path, name):
    (path,) = named(tmp_path, "x.jpg")
    mask = put(tmp_path / "Masks" / "A" / name, np.zeros((4, 4), np.uint8))
    assert masks.paths_of(tmp_path, [path]) == [mask]


def test_names_that_could_be_two_images(tmp_path):
    paths = named(tmp_path, "x.png", "x_mask.png", "e\u0301.png")
    for name in ("x.png", "x_mask.png", "\u00e9.png"):
        put(tmp_path / "masks" / "a" / name, np.zeros((4, 4), np.uint8))
    assert [mask.name for mask in masks.paths_of(tmp_path, paths)] == ["x.png", "x_mask.png", "\u00e9.png"]
    put(tmp_path / "masks" / "a" / "x.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match=r"masks/a holds two masks of x.png, x.png and x.tif: keep one"):
        masks.paths_of(tmp_path, paths)
    with pytest.raises(UserError, match=r"1 of 1 training images have no mask in .*, the first is a/y: give one each"):
        masks.paths_of(tmp_path, named(tmp_path, "y.png"))


SPOT = np.zeros((12, 9), bool)
SPOT[2:5, 6:9] = True
LEVELS = np.where(SPOT, 200, 90).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "array", "options"),
    [
        ("grey", LEVELS, {}),
        ("bits", SPOT, {}),
        ("16 bits", SPOT.astype(np.uint16) * 65535, {}),
        ("bytes in 16 bits", LEVELS.astype(np.uint16), {}),
        ("white over nothing", np.dstack([np.full((12, 9, 3), 255), SPOT * 255]).astype(np.uint8), {}),
        ("colours of nothing", np.dstack([SPOT * 255] * 3 + [np.full((12, 9), 255)]).astype(np.uint8), {}),
        ("turned", np.rot90(LEVELS), {"exif": 6}),
    ],
)
@pytest.mark.filterwarnings("ignore:the images of more than 8 bits")
def test_masks_are_read_as_a_person_sees_them(tmp_path, name, array, options):
    exif = Image.Exif()
    exif[0x0112] = options.get("exif", 1)
    path = put(tmp_path / "a.png", array, exif=exif)
    np.testing.assert_array_equal(images.read_mask(path, images.white_of([path]))[0], SPOT)


def test_an_upright_mask_covers_the_patch_of_a_photo_that_lies_on_its_side(tmp_path):
    photo = np.full((12, 9, 3), 80, np.uint8)
    photo[SPOT] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = 8
    path = put(tmp_path / "train" / "a" / "x.png", np.rot90(photo, -1), exif=exif)
    put(tmp_path / "masks" / "a" / "x.png", SPOT)
    pixels, size = images.scaled(path, 18)
    (found,) = masks.read(tmp_path, masks.paths_of(tmp_path, [path]), [size], 18)
    assert ((np.ptp(pixels, axis=2) > 0.01) <= found).all() and found.sum() < 0.3 * found.size


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ([SPOT, SPOT[:5]], r"x1.png has \(9, 5\) pixels, its image \(9, 12\): give as many"),
        ([SPOT, SPOT.astype(np.uint8)], "x1.png has no white pixel, the brightest is 1 of 255: give 255"),
        ([~SPOT & SPOT] * 2, "no mask in .* has a white pixel, the brightest is 0 of 255"),
        ([SPOT, np.dstack([SPOT * 255, SPOT * 0, SPOT * 0]).astype(np.uint8)], "x1.png has colours: give white where"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(tmp_path, arrays, said):
    paths = [put(tmp_path / "masks" / "a" / f"x{i}.png", array) for i, array in enumerate(arrays)]
    with pytest.raises(UserError, match=said):
        masks.read(tmp_path, paths, [(9, 12)] * len(paths), 24)


def test_black_masks_and_white_ones_are_noted(tmp_path):
    arrays = SPOT, SPOT & ~SPOT, np.arange(108).reshape(12, 9) > 2
    paths = [put(tmp_path / "masks" / "a" / f"x{i}.png", array) for i, array in enumerate(arrays)]
    with pytest.warns(UserWarning) as noted:
        masks.read(tmp_path, paths, [(9, 12)] * 3, 24)
    said = [str(w.message) for w in noted]
    assert len(said) == 2 and "x1.png, are all black" in said[0] and "of 3 masks 1" in said[0]
    assert "x2.png, are white on more than 90%" in said[1]


@pytest.fixture
def unequal(tmp_path):
    """60 images of noise of one class to 3 of the other in training, 19 to 1 in the test."""
    generator = np.random.default_rng(0)
    for part, counts in (("Train", (60, 3)), ("val", (19, 1)), ("TEST", (19, 1))):
        for name, count in zip(("many", "few"), counts):
            for i in range(count):
                x = generator.integers(0, 256, (16, 16, 3)).astype(np.uint8)
                put(tmp_path / part / name / f"{i}.png", x)
                if part == "Train":
                    put(tmp_path / "masks" / name / f"{i}_mask.png", x[:, :, 0] > 250)
    return tmp_path


def test_the_report_names_what_the_commonest_class_gives(unequal, command, tmp_path):
    arguments = ["--dataset", "folder", "--data_dir", unequal, "--side", 16, "--epochs", 1, "--device", "cpu"]
    status, printed, _ = command(training.main, *arguments, "--saved_path", tmp_path / "run")
    result = load_json(tmp_path / "run" / "result.json", "")
    assert status == 0 and result["test_counts"] == {"few": 1, "many": 19} and result["majority_share"] == 0.95
    assert result["balanced_test_accuracy"] == pytest.approx(sum(result["test_recalls"].values()) / 2)
    assert f"balanced {result['balanced_test_accuracy']:.4f}; the commonest class is 0.9500" in printed
    assert "many " in printed and " of 19" in printed
    refused = command(training.main, *arguments, "--class_weight", "balanced", "--saved_path", tmp_path / "run")
    assert refused[0] == 2 and "was made with class_weight none, now balanced" in refused[2]
    old = {name: value for name, value in result.items() if name not in ("class_weight", "balanced_test_accuracy")}
    (tmp_path / "run" / "result.json").write_text(json.dumps(old))
    assert command(training.main, *arguments, "--saved_path", tmp_path / "run")[0] == 0


def of_rows(counts, features=4):
    """A task of rows, with so many of each class in every part."""
    torch.manual_seed(0)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.randn(len(y), features)
    mask = torch.zeros(features)
    mask[0] = 1
    return data.Task(x, y, x, y, x, y, lambda: nn.Linear(features, len(counts)), lambda r, g: mask, mask, "rows")


def test_balanced_weights_are_those_of_copies_of_the_rare_class():
    """The loss is that of data in which every input of the rare class is there 20 times, gradient and all."""
    task = of_rows([60, 3])
    network = task.make()
    model = training.Penalized(network, lambda *_: torch.zeros(()), 0.0, {}, weights_of(task))
    loss = model(task.x_train, task.y_train, None, None)[0]
    (found,) = torch.autograd.grad(loss, network.weight)
    rows = torch.cat([torch.arange(60), torch.arange(60, 63).repeat(20)])
    equal = cross_entropy(network(task.x_train[rows]), task.y_train[rows])
    torch.testing.assert_close(loss, equal)
    torch.testing.assert_close(found, torch.autograd.grad(equal, network.weight)[0])
    assert evaluated(network, task.x_test, task.y_test, weights_of(task)).loss == pytest.approx(equal.item(), rel=1e-5)
    plain = evaluated(network, task.x_test, task.y_test)
    assert plain.loss == pytest.approx(cross_entropy(network(task.x_test), task.y_test).item(), rel=1e-5)


def test_with_balanced_weights_the_rare_class_is_not_given_up():
    task = of_rows([190, 10])
    x = task.x_train + 0.5 * task.y_train[:, None]
    task = task._replace(x_train=x, x_validation=x, x_test=x)
    common = {"epochs": 30, "lr": 0.02, "batch_size": 50}
    found = [measured(training.train(task, Settings(class_weight=w, **common))[0], task) for w in ("none", "balanced")]
    assert found[0]["test_accuracy"] >= 0.94 and found[0]["test_recalls"]["1"] < 0.3
    assert found[1]["test_recalls"]["1"] >= 0.5
    assert found[1]["balanced_test_accuracy"] > found[0]["balanced_test_accuracy"] + 0.1


def test_classes_without_inputs():
    task = of_rows([20, 5, 5])
    rows = task.y_test != 1
    less = task._replace(x_test=task.x_test[rows], y_test=task.y_test[rows], classes=("a", "b", "c"))
    found = measured(less.make(), less)
    assert found["test_recalls"]["b"] is None and found["test_counts"] == {"a": 20, "b": 0, "c": 5}
    assert found["balanced_test_accuracy"] == pytest.approx(
        (found["test_recalls"]["a"] + found["test_recalls"]["c"]) / 2
    )
    rows = task.y_train != 1
    none = task._replace(x_train=task.x_train[rows], y_train=task.y_train[rows])
    with pytest.raises(UserError, match="class 1 has no training input to weigh: give --class_weight none"):
        weights_of(none)
    with pytest.raises(UserError, match="class_weight is 'some': give one of none, balanced"):
        training.train(task, Settings(class_weight="some", epochs=1))


def test_copies_between_the_parts_are_noted(unequal):
    (unequal / "TEST" / "many" / "0.png").write_bytes((unequal / "Train" / "many" / "7.png").read_bytes())
    with pytest.warns(UserWarning, match=r"^1 image of one part or class can be found in another too, the first is "):
        data.task("folder", unequal, side=16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["none", "cdep", "rrr", "eg"])
def test_a_gpu_trains_as_the_cpu_does(unequal, method):
    settings = Settings(method, 1.0, "l1", epochs=2, class_weight="balanced", references=2)
    tables = [
        training.train(data.task("folder", unequal, side=16, device=where).to(where), settings)[1]
        for where in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*(table.to_numpy(float) for table in tables), rtol=1e-2, atol=1e-3)
