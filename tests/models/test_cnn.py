"""ResNet-20's training and its command, on the carried digits and on images made here."""

import dataclasses
from argparse import Namespace

import numpy as np
import pytest
import torch

from config import UserError
from dataset_debugging.networks import flipped_labels
from models import training
from models.CNN import pretrain, train
from models.CNN.CNN import ResNet20
from models.CNN.train import last_layer
from models.CNN.utils_cifar import ImageBatches, Start, load, normalized
from models.moments import load_moments
from models.outputs import load_outputs
from models.training import Schedule, binary_loss, fit, load_tensors

SMALL = ["--dataset", "digits", "--weights", "none", "--num_of_samples", "40", "--device", "cpu"]


@pytest.fixture(scope="module")
def digits():
    return load("digits", samples=60)


def test_augmentation_shifts_and_mirrors(random_images):
    data = pretrain.Augmented(random_images, torch.zeros(9))
    (batch,), _ = data.batch(torch.arange(9), torch.Generator().manual_seed(1), done=0.9)
    padded = np.pad(random_images.numpy(), ((0, 0), (4, 4), (4, 4), (0, 0)), "reflect")
    seen = set()
    for x, image in zip(batch.permute(0, 2, 3, 1), padded):
        ways = [(t, l, m) for t in range(9) for l in range(9) for m in (1, -1)]
        fits = [
            (t, l, m)
            for t, l, m in ways
            if torch.equal(x, normalized(torch.tensor(image[t : t + 32, l : l + 32][:, ::m].copy())))
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len({s[:2] for s in seen}) > 3 and {s[2] for s in seen} == {1, -1}


def binary(network, data, epochs=2, number=0, lr=0.05, **more):
    batches = ImageBatches(data.x_train, data.y_train)
    return fit(network, batches, binary_loss, Schedule(epochs, lr, 16), number, **more)


def test_training_is_sgd_written_out(digits):
    """One epoch of four steps against the update rule, written as a loop over parameters."""
    digits = dataclasses.replace(digits, x_train=digits.x_train.double())  # chaos enlarges rounding
    trained = binary(Start("none").network().double(), digits, epochs=1, lr=0.001)
    network = Start("none").network().double()
    velocity = {name: 0.0 for name, _ in network.named_parameters()}
    generator = torch.Generator().manual_seed(training.seed("epoch", 0, 0))
    for rows in torch.randperm(60, generator=generator).split(16):
        network.train().zero_grad()
        logits = network(digits.x_train[rows].permute(0, 3, 1, 2))[:, 0]
        p, y = logits.sigmoid(), digits.y_train[rows]
        (-(y * p.log() + (1 - y) * (1 - p).log()).mean()).backward()
        with torch.no_grad():
            for name, value in network.named_parameters():
                velocity[name] = 0.9 * velocity[name] + value.grad + 5e-4 * value
                value -= 0.001 * velocity[name]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_an_interrupted_training_goes_on_to_the_same_network(digits, tmp_path):
    whole = binary(Start("none").network(), digits, epochs=4)
    file = tmp_path / "training.checkpoint"

    def stop(network, epoch, kept):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        binary(Start("none").network(), digits, epochs=4, checkpoint=file, after_epoch=stop)
    epochs = []
    resumed = binary(
        Start("none").network(), digits, epochs=4, checkpoint=file, after_epoch=lambda _, e, __: epochs.append(e)
    )
    assert epochs == [2, 3, 4]  # what follows an epoch belongs to it
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(UserError, match="was stopped, with seed 0, now 1: .*--overwrite"):
        binary(Start("none").network(), digits, epochs=4, number=1, checkpoint=file)


def test_the_batch_size_changes_no_saved_output(digits):
    network = binary(Start("none").network(), digits, epochs=1)
    for batch_size in (1, 7, 60):
        for mine, theirs in zip(last_layer(network, digits.x_train, batch_size), last_layer(network, digits.x_train)):
            assert mine.shape == theirs.shape and len(mine) == 60
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_saved_outputs_are_the_networks(digits):
    network = Start("none").network()
    y = flipped_labels(digits.y_train, np.arange(5))
    outputs = train.saved_outputs(network, digits, y)
    with torch.no_grad():
        expected = network.eval()(digits.x_test.permute(0, 3, 1, 2))[:, 0]
    np.testing.assert_allclose(outputs.intermediate_test @ outputs.weight[0] + outputs.bias, expected, atol=1e-5)
    np.testing.assert_allclose(outputs.pred_test, expected.sigmoid(), atol=1e-6)
    np.testing.assert_array_equal(outputs.labels_train, y.long())
    assert outputs.test_accuracy == np.mean((outputs.pred_test > 0.5) == (outputs.labels_test == 1))
    assert outputs.test_accuracy == train.accuracy(network, digits)
    assert outputs.train_accuracy == np.mean((outputs.pred_train > 0.5) == (y.numpy() == 1))


def test_the_same_command_writes_the_same_bytes_and_another_seed_others(command, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        status, printed, _ = command(train.main, *SMALL, "--epochs", 2, "--seed", seed, "--saved_path", tmp_path / name)
        assert status == 0 and "40 training images, 72 test images" in printed
    for file in ("saved_outputs.npz", "resnet20.pt"):
        a, b, c = ((tmp_path / name / "model" / file).read_bytes() for name in "abc")
        assert a == b != c
    assert {path.name for path in (tmp_path / "a" / "model").iterdir()} == {"saved_outputs.npz", "resnet20.pt"}
    assert load_outputs(tmp_path / "a", "CNN").intermediate_train.shape == (40, 64)


def test_moments_are_kept_for_the_label_errors_of_that_training(command, tmp_path):
    assert command(train.main, *SMALL, "--epochs", 3, "--keep_moments", "--saved_path", tmp_path)[0] == 0
    outputs = load_outputs(tmp_path, "CNN")
    first, second, last = load_moments(tmp_path, outputs)
    assert (first.time, second.time) == (1, 2) and first.features.shape == (40, 64)
    np.testing.assert_array_equal(last.features, outputs.intermediate_train)
    assert not np.array_equal(first.features, second.features) and not np.array_equal(second.features, last.features)
    assert command(train.main, *SMALL, "--epochs", 1, "--saved_path", tmp_path)[0] == 0  # another training's are none
    assert len(load_moments(tmp_path, load_outputs(tmp_path, "CNN"))) == 1


def test_digits_are_learnt_from_the_carried_weights(command, tmp_path):
    arguments = [
        "--dataset",
        "digits",
        "--weights",
        "carried",
        "--epochs",
        4,
        "--batch_size",
        16,
        "--saved_path",
        tmp_path,
    ]
    assert command(train.main, *arguments)[0] == 0
    assert load_outputs(tmp_path, "CNN").test_accuracy > 0.9


def test_bfloat16_trains_and_saves_float32(command, tmp_path):
    assert command(train.main, *SMALL, "--epochs", 1, "--bfloat16", "--saved_path", tmp_path)[0] == 0
    assert load_outputs(tmp_path, "CNN").intermediate_train.dtype == np.float32


def test_pretraining_writes_ten_classes_and_goes_on(command, class_folders, monkeypatch):
    monkeypatch.setattr(pretrain, "CIFAR10", ["automobile", "horse"])
    path = class_folders / "w.pt"
    arguments = ["--data_dir", class_folders, "--epochs", 2, "--batch_size", 4, "--output", path]
    status, printed, _ = command(pretrain.main, *arguments)
    assert status == 0 and "test accuracy" in printed
    assert load_tensors(path, "")["fc.weight"].shape == (2, 64)
    assert not path.with_suffix(".checkpoint").exists()
    first = path.read_bytes()
    assert command(pretrain.main, *arguments)[0] == 0 and path.read_bytes() == first


def test_the_learning_rate_rises_and_falls():
    rate = pretrain.one_cycle(0.3, rise=0.2)
    np.testing.assert_allclose([rate(x) for x in (0, 0.1, 0.2, 0.6, 1)], [0, 0.15, 0.3, 0.15, 0], atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(digits):
    on_gpu = load("digits", device="cuda", samples=60)
    assert on_gpu.x_train.is_cuda
    a = train.saved_outputs(binary(Start("none").network(), digits), digits)
    b = train.saved_outputs(binary(Start("none").network("cuda"), on_gpu), on_gpu)
    np.testing.assert_allclose(b.intermediate_test, a.intermediate_test, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--classes", "3", "3"], "--classes: got 3 3; give different classes"),
        (["--classes", "3", "x"], "digits has no class x; it has 0, 1"),
        (["--num_of_samples", 1], "--num_of_samples: got 1; give a whole number of at least 2"),
        (["--num_of_samples", 9999], "--num_of_samples: got 9999; give at most 278"),
        (["--lr", 1e30], "the loss is nan after epoch 1: give a lower --lr"),
        (["--lr", 0], "--lr: got 0; give a number above 0"),
        (["--epochs", 0], "--epochs: got 0"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--dataset", "mnist"], "--dataset: invalid choice: 'mnist'"),
    ],
)
def test_bad_arguments(refused, tmp_path, arguments, said):
    base = ["--dataset", "digits", "--weights", "none", "--epochs", 1, "--saved_path", tmp_path / "run"]
    assert said in refused(train.main, *base, *arguments)
    assert not (tmp_path / "run" / "model" / "saved_outputs.npz").exists()


def test_other_images_do_not_replace_the_base_model(command, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "given_folder", lambda path, script: path and tmp_path / path)
    assert command(train.main, *SMALL, "--epochs", 1)[0] == 0
    assert [path.name for path in (tmp_path / "saved_models").glob("[!.]*")] == ["base_digits_40"]
    assert command(train.main, *SMALL, "--epochs", 1, "--classes", 4, 7)[0] == 0
    assert (tmp_path / "saved_models" / "base_digits_4_7_40" / "model" / "resnet20.pt").exists()
    published = Namespace(dataset="cifar", num_of_samples=None)
    assert train._usual(published, ("automobile", "horse")) == "saved_models/base"


def test_out_of_memory_says_which_option_lowers_it(refused, monkeypatch, tmp_path):
    def full(self, x):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried to allocate"
        )

    monkeypatch.setattr(ResNet20, "features", full)
    said = refused(train.main, *SMALL, "--saved_path", tmp_path)
    assert "out of memory: give a smaller --batch_size" in said
