"""ResNet-20, and the weights that its training starts from."""

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv2d

from config import UserError
from models.CNN import utils_cifar
from models.CNN.CNN import ResNet20
from models.CNN.data import prepare
from models.CNN.train import last_layer
from models.CNN.utils_cifar import Start, as_channels_last, normalized
from models.files import load_json
from models.training import Schedule, load_tensors, save_tensors


def names_of_the_hub():
    """The parameters of cifar10_resnet20 in chenyaofo/pytorch-cifar-models, by its published architecture."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["conv1.weight", *(f"bn1.{name}" for name in norm)]
    for layer in (1, 2, 3):
        for block in range(3):
            prefix = f"layer{layer}.{block}"
            for i in (1, 2):
                names += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{name}" for name in norm)]
            if layer > 1 and block == 0:
                names += [f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{name}" for name in norm)]
    return {*names, "fc.weight", "fc.bias"}


def test_parameters_are_those_of_the_hubs_network():
    network = ResNet20(classes=10)
    assert set(network.state_dict()) == names_of_the_hub()
    convolutions = 432 + 6 * 2304 + (4608 + 5 * 9216 + 512) + (18432 + 5 * 36864 + 2048)
    norms, head = 2 * 7 * (16 + 32 + 64), 650
    assert sum(p.numel() for p in network.parameters()) == convolutions + norms + head == 272_474


def test_features_are_those_of_the_architecture_written_out(random_images):
    network = ResNet20().eval()
    for module in network.modules():  # statistics that matter
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    p = network.state_dict()

    def normed(x, name):
        return batch_norm(
            x, p[f"{name}.running_mean"], p[f"{name}.running_var"], p[f"{name}.weight"], p[f"{name}.bias"]
        )

    x = images = as_channels_last(normalized(random_images))
    x = normed(conv2d(x, p["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for layer, channels in ((1, 16), (2, 32), (3, 64)):
        for block in range(3):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            out = normed(conv2d(x, p[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1").clamp(min=0)
            out = normed(conv2d(out, p[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                x = normed(conv2d(x, p[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
            x = (out + x).clamp(min=0)
            assert x.shape == (9, channels, 32 // 2 ** (layer - 1), 32 // 2 ** (layer - 1))
    expected = x.flatten(2).mean(2)
    with torch.no_grad():
        torch.testing.assert_close(network.features(images), expected)
        torch.testing.assert_close(network(images), expected @ p["fc.weight"].T + p["fc.bias"])


def test_every_start_has_the_same_last_layer_and_the_pretrained_body(tmp_path):
    torch.manual_seed(5)
    ten = ResNet20(classes=10).state_dict()
    save_tensors(tmp_path / "ten.pt", ten)
    start, again, other = Start(str(tmp_path / "ten.pt")), Start(str(tmp_path / "ten.pt")), Start("none")
    assert start.fingerprint == again.fingerprint != other.fingerprint
    for name, value in start.network().state_dict().items():
        torch.testing.assert_close(value, other.state[name] if name.startswith("fc.") else ten[name], rtol=0, atol=0)


def test_carried_weights_classify_the_ten_classes_as_they_say(real_data):
    network = ResNet20(classes=10)
    network.load_state_dict(load_tensors(utils_cifar.PRETRAINED, ""))
    images = prepare.read("cifar", real_data, prepare.CIFAR10, limit=1)
    _, outputs = last_layer(network, normalized(torch.from_numpy(images.x_test[::10])))
    accuracy = np.mean(outputs.argmax(1).numpy() == images.y_test[::10])
    stated = load_json(utils_cifar.PRETRAINED.with_suffix(".json"), "")["test_accuracy"]
    assert abs(accuracy - stated) < 0.03 and stated > 0.85


def test_the_hub_comes_first_and_the_carried_weights_stand_in(monkeypatch):
    ten = ResNet20(classes=10).state_dict()

    def reached(url, **settings):
        assert url.endswith("cifar10_resnet20-4118986f.pt") and settings["check_hash"] and settings["weights_only"]
        return ten

    def unreachable(url, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", reached)
    assert Start("auto").name == "cifar10_resnet20-4118986f.pt"
    torch.testing.assert_close(Start("hub").state["conv1.weight"], ten["conv1.weight"], rtol=0, atol=0)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    assert Start("auto").fingerprint == Start("carried").fingerprint
    with pytest.raises(UserError, match="cannot download .*no route to host.*give --weights carried"):
        Start("hub")


def test_weights_of_another_network_are_refused(tmp_path):
    for change, said in (
        ({"conv1.weight": torch.zeros(8, 3, 3, 3)}, r"conv1.weight is \(8, 3, 3, 3\), expected \(16, 3, 3, 3\)"),
        ({"stem.weight": torch.zeros(1)}, "stem.weight is .* expected no such parameter"),
    ):
        save_tensors(tmp_path / "w.pt", {**ResNet20().state_dict(), **change})
        with pytest.raises(UserError, match=f"of another network .*{said}"):
            Start(str(tmp_path / "w.pt"))
    save_tensors(tmp_path / "w.pt", {"conv1.weight": torch.zeros(16, 3, 3, 3)})
    with pytest.raises(UserError, match="it has no bn1.weight"):
        Start(str(tmp_path / "w.pt"))
    torch.save(Schedule, tmp_path / "w.pt")  # a pickled class
    with pytest.raises(UserError, match="is damaged or holds more than tensors"):
        Start(str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match="absent.pt not found"):
        Start(str(tmp_path / "absent.pt"))
