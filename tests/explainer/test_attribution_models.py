"""Models and their loaders, caches and checkpoints, and what of them is refused."""

import json
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from test_attribution import Problem
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from explainer.attribution import RPSL2, RPSLJE, InfluenceFunction, TracIn, cache

METHODS = [RPSLJE, RPSL2, InfluenceFunction]


class Network(nn.Module):
    """Two linear layers, BatchNorm and dropout between them."""

    def __init__(self, C=3, last=lambda z: z):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.fc, self.last = nn.Linear(8, C), last

    def forward(self, x):
        return self.last(self.fc(self.body(x)))


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=g)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def loader(data, **options):
    return DataLoader(TensorDataset(*data), batch_size=16, **options)


def scores(explainer, test, **more):
    return np.concatenate(list(explainer.influence(test, **more)))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_explained_as_its_features_are(method, data):
    model = Network().train()
    model.body[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explainer = method(model, loader(data), layer="fc")
    model_modes = [module.training for module in model.modules()]
    F = model.eval().body(data[0]).detach()
    by_hand = method.from_arrays(F, data[1], model.fc.weight, model.fc.bias)
    np.testing.assert_allclose(explainer.self_influence(), by_hand.self_influence(), rtol=1e-4, atol=1e-7)
    test = data[0][:9], data[1][:9]
    found = scores(explainer, loader(test), target="label")
    np.testing.assert_allclose(found, scores(by_hand, (F[:9], test[1]), target="label"), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(explainer.logits(loader(test)), model(test[0]).detach(), rtol=1e-4, atol=1e-5)
    expected = [False if module is model.body[0] else True for module in model.modules()]
    assert model_modes == expected, "the model's modes are to be as they were"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.fc._forward_hooks and all(p.grad is None for p in model.parameters())


def test_the_predicted_class_is_explained_by_default(data):
    model = Network().eval()
    explainer = RPSLJE(model, loader(data))
    predicted = model(data[0][:9]).argmax(1)
    result = explainer.top_k(loader((data[0][:9], data[1][:9])), k=4)
    np.testing.assert_array_equal(result.classes, predicted)
    by_hand = RPSLJE.from_arrays(model.body(data[0]).detach(), data[1], model.fc.weight, model.fc.bias)
    features = model.body(data[0][:9]).detach()
    np.testing.assert_array_equal(result.indices, by_hand.top_k(features, k=4, target=predicted).indices)
    assert json.loads(result.to_json())["explanations"][5]["training_point"] == result.indices[1, 1]
    with pytest.raises(ValueError, match="made from a model: give test points as a loader of its inputs"):
        explainer.top_k(features, k=4)


def test_batches_may_be_dictionaries_and_pairs_and_their_size_does_not_matter(data):
    model = Network().eval()
    expected = RPSLJE(model, loader(data)).self_influence()
    dictionaries = [{"x": data[0][i : i + 7], "labels": data[1][i : i + 7]} for i in range(0, 50, 7)]
    mappings = [UserDict(batch) for batch in dictionaries]
    for batches in (dictionaries, mappings, DataLoader(TensorDataset(*data), batch_size=1)):
        np.testing.assert_allclose(RPSLJE(model, batches).self_influence(), expected, rtol=1e-3, atol=1e-6)


def test_inputs_may_be_packed_sequences_and_named_tuples(data):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lstm, self.fc = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, given):
            return self.fc(self.lstm(given)[1][0][-1])

    class Named(Recurrent):
        def forward(self, given):
            return super().forward(given.x)

    x, Given = data[0].reshape(50, 3, 2), namedtuple("Given", "x length")
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.full((50,), 3), batch_first=True)
    expected = RPSLJE(Recurrent(), loader((x, data[1]))).self_influence()
    for model, given in ((Recurrent(), packed), (Named(), Given(x, 3))):
        found = RPSLJE(model, [(given, data[1])]).self_influence()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_caches_are_read_again_and_refused_when_made_with_others(data, tmp_path):
    model, folder = Network().eval(), tmp_path / "cache"
    first = RPSLJE(model, loader(data), cache=folder)
    calls = []
    handle = model.fc.register_forward_hook(lambda *_: calls.append(1))
    again = RPSLJE(model, loader(data), cache=folder)
    handle.remove()
    assert len(calls) == 1, "the model is run on the first batch alone"
    np.testing.assert_allclose(again.self_influence(), first.self_influence(), rtol=1e-5)
    alone = RPSLJE.from_cache(folder)
    np.testing.assert_allclose(alone.self_influence(), first.self_influence(), rtol=1e-5)
    with pytest.raises(ValueError, match="was made with another layer"):
        RPSLJE(_reordered(), loader(data), layer="other", cache=folder)
    with torch.no_grad():
        model.fc.weight.mul_(2)
    with pytest.raises(ValueError, match="was made with another model: give another folder"):
        RPSLJE(model, loader(data), cache=folder)
    with torch.no_grad():
        model.fc.weight.div_(2)
    with pytest.raises(ValueError, match="was made with another model"):
        RPSLJE(_OtherForward().eval(), loader(data), cache=folder)
    with pytest.raises(ValueError, match="was made with another loader"):
        RPSLJE(model, loader((data[0], data[1].flip(0))), cache=folder)
    with pytest.raises(ValueError, match="was made with another loader"):
        RPSLJE(model, loader((data[0][:32], data[1][:32])), cache=folder)
    with pytest.raises(ValueError, match="holds no cache"):
        RPSLJE.from_cache(tmp_path / "absent")


def _reordered():
    network = Network().eval()
    network.other = network._modules.pop("fc")
    network.forward = lambda x: network.other(network.body(x))
    return network


def test_tracin_reads_the_features_of_every_checkpoint(data):
    model = Network().eval()
    states = [{name: value.clone() for name, value in model.state_dict().items()}]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    now = {name: value.clone() for name, value in model.state_dict().items()}
    explainer = TracIn(model, loader(data), checkpoints=[*states, now], learning_rates=[0.1, 0.01])
    assert all(torch.equal(now[name], value) for name, value in model.state_dict().items())
    test = loader((data[0][:4], data[1][:4]))
    expected = sum(
        rate * scores(TracIn(network, loader(data)), test, target="label")
        for rate, network in ((0.1, _with(states[0])), (0.01, _with(now)))
    )
    np.testing.assert_allclose(scores(explainer, test, target="label"), expected, rtol=1e-4, atol=1e-7)


class _OtherForward(Network):
    """The same parameters under the same names, and other features."""

    def forward(self, x):
        return self.fc(self.body(x).tanh())


def _with(state):
    network = Network().eval()
    network.load_state_dict(state)
    return network


def test_bad_models_and_loaders(data):
    model = Network().train()
    for call, said in (
        (
            lambda: RPSLJE(model, loader(data), layer="head"),
            "layer 'head' does not exist: the linear layers are body.0, fc",
        ),
        (lambda: RPSLJE(model, loader(data), layer="body.1"), "layer 'body.1' is BatchNorm1d, not linear"),
        (lambda: RPSLJE(model, loader(data), layer=2), "layer 2 does not exist"),
        (lambda: RPSLJE(model, loader(data), layer=0), "the layer must be its last one"),
        (
            lambda: RPSLJE(Network(last=lambda z: z.softmax(1)), loader(data)),
            "differs from that of layer fc by 0.*logits",
        ),
        (lambda: RPSLJE(Network(last=nn.ReLU(inplace=True)), loader(data)), "differs from that of layer fc by"),
        (lambda: RPSLJE(Network(last=torch.sigmoid_), loader(data)), "differs from that of layer fc by"),
        (lambda: RPSLJE(model, loader(data, shuffle=True)), "the loader shuffles"),
        (lambda: RPSLJE(model, _Shuffling(data)), "two passes of the loader disagree: it shuffles or augments"),
        (lambda: RPSLJE(model, loader(data[:1])), "the loader gives no labels"),
        (lambda: RPSLJE(model, []), "the loader has no batches"),
        (lambda: RPSLJE(model, (batch for batch in [data])), "the loader can be read once only"),
        (lambda: RPSLJE(model, *data), "layer is Tensor: give its name or number; labels come with the loader"),
        (lambda: RPSLJE(model, data[0]), "the loader is Tensor: give a DataLoader"),
        (lambda: RPSLJE(model, 5), "the loader is int: give a DataLoader"),
        (lambda: RPSLJE(model, [(data[0][:, :4], data[1])]), "the model cannot take a batch of the loader .*mat1"),
        (lambda: RPSLJE(model, [{"z": data[0], "labels": data[1]}]), "cannot take a batch of the loader .*'z'"),
        (lambda: RPSLJE(model, [(data[0], list("abc"))]), "labels: got list of <U1"),
        (lambda: RPSLJE(model, [(data[0], 1)]), r"a batch has 50 points and labels \(\): give one for each"),
        (lambda: RPSLJE(model, loader(data)).top_k(loader(data, shuffle=True)), "the loader shuffles"),
        (lambda: RPSLJE(model, loader(data), cache=""), "cache is '': give a path"),
        (lambda: TracIn(model, loader(data), checkpoints=[{"fc.weight": data[0]}]), "a checkpoint is of another model"),
        (lambda: TracIn(model, loader(data), checkpoints=[model]), "cannot read the checkpoint .*: give a state dict"),
        (lambda: TracIn(model, loader(data), checkpoints="absent.pt"), "cannot read the checkpoint absent.pt"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
        assert model.training and model.body[1].training and not model.fc._forward_hooks
    with pytest.raises(ValueError, match="the model is function: give a torch.nn.Module"):
        RPSLJE(lambda x: x, loader(data))


def test_a_first_point_that_is_not_finite_is_named_and_not_taken_for_shuffling(data):
    data[0][2, 0] = float("nan")
    with pytest.raises(ValueError, match="the features of row 2 are not finite"):
        RPSLJE(Network().eval(), loader(data))


class _Shuffling:
    """A loader of one's own that shuffles, which nothing but its batches tells."""

    def __init__(self, data):
        self.data, self.generator = data, torch.Generator().manual_seed(0)

    def __iter__(self):
        order = torch.randperm(50, generator=self.generator)
        return iter([(self.data[0][order], self.data[1][order])])


def test_tracin_explains_what_the_last_checkpoint_predicts(data):
    model, other = Network().eval(), Network().eval()
    with torch.no_grad():
        other.fc.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    explainer = TracIn(model, loader(data), checkpoints=[model.state_dict(), other.state_dict()])
    assert (explainer.top_k(loader(data), 2).classes == 2).all()
    as_it_is = TracIn(model, loader(data))
    pairs = [(x, y) for x, y in loader(data)]
    np.testing.assert_array_equal(scores(as_it_is, pairs), scores(as_it_is, loader(data)))
    with pytest.raises(ValueError, match="TracIn keeps no cache"):
        TracIn(model, loader(data), cache="anywhere")


def test_caches_are_written_in_shards_and_shards_are_counted_as_people_do(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 100)
    model = Network().eval()
    expected = RPSLJE(model, loader(data)).self_influence()
    found = RPSLJE(model, loader(data), cache=tmp_path / "cache").self_influence()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 4
    problem, folder = Problem("binary", 1), tmp_path / "shards"
    folder.mkdir()
    for number, part in zip((1, 2, 10), problem.F.split(20)):
        np.save(folder / f"part{number}.npy", part.numpy())
    whole, shards = (InfluenceFunction.from_arrays(F, *problem.arrays[1:]) for F in (problem.F, folder))
    np.testing.assert_allclose(shards.self_influence(), whole.self_influence(), rtol=1e-9)


def test_a_cache_removes_no_files_of_others(data, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "mine.npy").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds files of others: give the cache a folder of its own"):
        RPSLJE(Network(), loader(data), cache=tmp_path)
    assert (tmp_path / "features" / "mine.npy").read_bytes() == b"mine"
