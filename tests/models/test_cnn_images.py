"""The images of the CNN: where they are read from, in which order, and what is refused."""

import hashlib
import re
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from config import UserError
from dataset_debugging.networks import flipped_labels
from models.CNN import pretrain, train
from models.CNN.data import batches, prepare
from models.CNN.data.prepare import Images
from models.CNN.train import saved_outputs
from models.CNN.utils_cifar import Start, images_behind, load, normalized


def test_digits_are_split_by_class_and_come_in_order():
    images = prepare.read("digits")
    assert images.x_train.shape == (285, 32, 32, 3) and images.x_test.shape == (72, 32, 32, 3)
    assert (np.diff(images.y_train) >= 0).all() and np.bincount(images.y_train).tolist() == [146, 139]
    assert np.bincount(images.y_test).tolist() == [37, 35]
    assert (images.x_train[..., 0] == images.x_train[..., 2]).all() and images.x_train.max() == 255


def test_class_folders_come_in_the_order_of_the_classes_and_names(class_folders):
    images = prepare.read("cifar", class_folders)
    assert images.classes == ("automobile", "horse")
    assert images.x_train[:, 0, 0].tolist() == [[i, 100 * c, 7] for c in range(2) for i in range(4)]
    assert images.y_train.tolist() == [0] * 4 + [1] * 4 and images.y_test.tolist() == [0, 0, 1, 1]
    turned = prepare.read("cifar", class_folders, ("horse", "automobile"))
    np.testing.assert_array_equal(turned.x_train[:4], images.x_train[4:])
    below = class_folders.rename(class_folders.with_name("cifar10_images"))
    np.testing.assert_array_equal(prepare.read("cifar", below.parent).x_test, images.x_test)


def test_images_behind_outputs_are_those_that_the_network_was_trained_on(class_folders):
    network = Start("carried").network().eval()
    for samples in (5, None):
        data = load("cifar", class_folders, samples=samples)
        outputs = saved_outputs(network, data)
        images = images_behind(outputs, network, "cifar", class_folders)
        assert torch.equal(normalized(torch.from_numpy(images.x_train)), data.x_train)
        np.testing.assert_array_equal(images.y_train, data.y_train)
    with pytest.raises(UserError, match="8 training and 4 test images, and the outputs are of 9 and 4: give --saved"):
        images_behind(SimpleNamespace(labels_train=range(9), labels_test=range(4)), network, "cifar", class_folders)
    with pytest.raises(UserError, match="are not those behind the outputs, or the network is another"):
        images_behind(outputs, network, "cifar", class_folders, ("horse", "automobile"))
    with pytest.raises(UserError, match="or the network is another: its features differ by"):
        images_behind(outputs, Start("none").network().eval(), "cifar", class_folders)


def test_pretraining_does_not_go_on_with_other_images_or_another_rate(class_folders, tmp_path, monkeypatch):
    known = []

    def fit(network, *_, identity, **__):
        known.append(identity)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "fit", fit)
    monkeypatch.setattr(
        pretrain, "read", lambda *_: Images(*[np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)] * 2, (), "")
    )
    for more in ([], ["--lr", "0.1"]):
        monkeypatch.setattr("sys.argv", ["pretrain", "--output", str(tmp_path / "a.pt"), *more])
        with pytest.raises(KeyboardInterrupt):
            pretrain.main()
    assert len(set(known)) == 2


def test_samples_are_the_first_of_each_class(class_folders):
    for samples, expected in ((5, [0, 0, 0, 1, 1]), (8, [0] * 4 + [1] * 4)):
        data = load("cifar", class_folders, samples=samples)
        assert data.y_train.tolist() == expected and len(data.y_test) == 4
    with pytest.raises(UserError, match="--num_of_samples: got 10; give at most 8"):
        load("cifar", class_folders, samples=10)


def batch(images, labels):
    """A batch as Python 2 has pickled CIFAR-10's: its strings are bytes, its lists go in by 1,000 at a time."""

    def text(value):
        return b"U" + bytes([len(value)]) + value + b"q\x01"

    def items(pieces, at=1000):
        return b"".join(b"(" + b"".join(pieces[i : i + at]) + b"e" for i in range(0, len(pieces), at))

    shape = b"M" + struct.pack("<H", len(labels)) + b"M\x00\x0c\x86q\x0a"
    dtype = b"cnumpy\ndtype\nq\x0bU\x02u1q\x0cK\x00K\x01\x87q\x0dRq\x0e(K\x03U\x01|q\x0fNNN"
    dtype += b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85q\x08U\x01bq\x09\x87Rq\x0a(K\x01"
    )
    array += shape + dtype + b"\x89T" + struct.pack("<i", images.size) + images.tobytes() + b"q\x10tb"
    names = [text(b"a_%05d.png" % i) for i in range(len(labels))]
    content = b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"training batch 1 of 5")
    content += text(b"labels") + b"]q\x05" + items([b"K" + bytes([label]) for label in labels])
    return content + text(b"data") + array + text(b"filenames") + b"]q\x11" + items(names) + b"u."


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small CIFAR-10 as torchvision keeps it, {name: (planes (n,3,32,32), labels (n,))}, and its checksums."""
    generator, found = np.random.default_rng(0), {}
    folder = tmp_path / batches.FOLDER
    folder.mkdir()
    for part in (batches.TRAIN, batches.TEST):
        for name in part:
            n = 2100 if name == "data_batch_1" else 20
            planes, labels = generator.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 10
            (folder / name).write_bytes(batch(planes, labels.tolist()))
            found[name] = planes, labels
            monkeypatch.setitem(part, name, "md5:" + hashlib.md5((folder / name).read_bytes()).hexdigest())
    return tmp_path, found


def test_cifar_10s_own_archive_is_read_by_class_and_nothing_is_unpickled(archive, monkeypatch):
    folder, known = archive
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", None)
    images = prepare.read("cifar", folder)
    planes = np.concatenate([known[name][0][known[name][1] == k] for k in (1, 7) for name in batches.TRAIN])
    np.testing.assert_array_equal(images.x_train, planes.transpose(0, 2, 3, 1))
    assert np.bincount(images.y_train).tolist() == [218, 218] and np.bincount(images.y_test).tolist() == [2, 2]
    few = prepare.read("cifar", folder, limit=1)
    np.testing.assert_array_equal(few.x_train[0], images.x_train[0])
    assert few.y_train.tolist() == [0, 1] and len(few.y_test) == 4


def test_one_flipped_bit_of_the_archive_is_refused(archive):
    folder, _ = archive
    path = folder / batches.FOLDER / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"data_batch_3 is not the published file .its md5 .*remove .*{batches.FOLDER}"):
        prepare.read("cifar", folder)
    (folder / batches.FOLDER / "data_batch_1").unlink()
    with pytest.raises(UserError, match="cannot read .*data_batch_1 .No such file.*remove"):
        prepare.read("cifar", folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}.", b"no pickle", b"\x80\x02U\x06labels(K\x01K\x02e."])
def test_pickles_of_other_things_are_no_batches(content):
    with pytest.raises(ValueError):
        batches.parsed(content)


def test_normalization_is_the_official_one():
    white = normalized(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)).flatten()
    expected = [(1 - 0.4914) / 0.2023, (1 - 0.4822) / 0.1994, (1 - 0.4465) / 0.2010]
    np.testing.assert_allclose(white, expected, rtol=1e-5)


def test_flipping_changes_those_labels_alone_and_not_the_original():
    y = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert flipped_labels(y, np.array([3, 0])).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert y.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert flipped_labels(y, np.array([], int)).tolist() == y.tolist()


def test_images_that_cannot_be_had_say_where_they_were_looked_for(refused, monkeypatch, tmp_path):
    def unreachable(url):
        raise OSError("<urlopen error no route to host>")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    assert "there is no folder absent" in refused(train.main, "--data_dir", tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "absent").mkdir()
    said = refused(train.main, "--weights", "none", "--data_dir", tmp_path / "absent")
    for part in ("train/<class>/*", "cifar-10-batches-py", "no route to host", "--data_dir", "--dataset digits"):
        assert part in said
    assert "no CIFAR-10 in absent: " in said and "damaged" not in said
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half an archive")
    said = refused(train.main, "--weights", "none", "--data_dir", tmp_path)
    assert "cifar-10-python.tar.gz there is damaged" in said


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda d: [p.unlink() for p in (d / "train" / "horse").iterdir()], "train/horse holds no images"),
        (lambda d: (d / "train" / "horse").rename(d / "horse"), "has no class horse; it has automobile"),
        (lambda d: (d / "test").rename(d / "tests"), "test is missing: lay the images out as"),
        (lambda d: (d / "train" / "horse" / "0002.png").write_bytes(b"no"), "cannot read the image .*0002.png"),
        (
            lambda d: Image.new("RGB", (40, 32)).save(d / "train/horse/0001.png"),
            "0001.png has 40 x 32 pixels, expected 32",
        ),
    ],
)
def test_unusable_class_folders_are_named(refused, class_folders, harm, said):
    harm(class_folders)
    assert re.search(said, refused(train.main, "--weights", "none", "--data_dir", class_folders))
