"""Where the points come from: models and loaders, arrays, memmaps, shards and caches; one rank or two; bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from sklearn.linear_model import LogisticRegression
from test_attribution import Problem
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from explainer.attribution import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TracIn, collect

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
    for batches in (dictionaries, DataLoader(TensorDataset(*data), batch_size=1)):
        np.testing.assert_allclose(RPSLJE(model, batches).self_influence(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sources_of_any_kind_and_blocks_of_any_size_give_the_same(method, dtype, tmp_path):
    problem = Problem("multiclass", 3, n=101)
    F, F_test = (f.numpy().astype(dtype) for f in (problem.F, problem.F_test))
    rest = problem.y.numpy(), problem.weight.numpy(), problem.bias.numpy()
    np.save(tmp_path / "features.npy", F)
    (tmp_path / "shards").mkdir()
    for number, part in enumerate(np.split(F, [7, 7, 60])):
        np.save(tmp_path / "shards" / f"{number}.npy", part)
    whole = method.from_arrays(torch.from_numpy(F), *rest)
    expected = whole.self_influence(), scores(whole, F_test, target=1), whole.top_k(F_test, 4).indices
    sources = [
        F,
        np.load(tmp_path / "features.npy", mmap_mode="r"),
        tmp_path / "features.npy",
        str(tmp_path / "shards"),
    ]
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    for source in sources:
        for memory_limit in (500, 5000, 2**28):
            explainer = method.from_arrays(source, *rest, memory_limit=memory_limit)
            np.testing.assert_allclose(explainer.self_influence(), expected[0], rtol=tolerance, atol=tolerance * 1e-2)
            found = scores(explainer, F_test, target=1)
            np.testing.assert_allclose(found, expected[1], rtol=10 * tolerance, atol=tolerance * 1e-2)
            np.testing.assert_array_equal(explainer.top_k(F_test, 4).indices, expected[2])


def test_scores_are_written_to_a_file_of_numpy(tmp_path):
    problem = Problem("binary", 1)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, memory_limit=2000)
    written = explainer.influence(problem.F_test, out=tmp_path / "scores.npy")
    np.testing.assert_allclose(written, scores(explainer, problem.F_test), rtol=1e-6)
    assert isinstance(written, np.memmap) and written.dtype == np.float32
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), written)


def test_caches_are_read_again_and_refused_when_made_with_others(data, tmp_path):
    model, folder = Network().eval(), tmp_path / "cache"
    first = RPSLJE(model, loader(data), cache=folder)
    calls = []
    handle = model.fc.register_forward_hook(lambda *_: calls.append(1))
    again = RPSLJE(model, loader(data), cache=folder)
    handle.remove()
    assert not calls, "the model is not run again"
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


def _with(state):
    network = Network().eval()
    network.load_state_dict(state)
    return network


def test_heads_of_scikit_learn(data):
    x, y = data[0].double().numpy(), np.array(["a", "b", "c"])[data[1].numpy()]
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(x, y)
    explainer = InfluenceFunction.from_sklearn(model, x, y)
    np.testing.assert_allclose(explainer.logits(x), model.decision_function(x), rtol=1e-6, atol=1e-8)
    assert explainer.decay.tolist() == pytest.approx([1 / 50] * 6 + [0])
    found, refits = explainer.leave_one_out().logits, []
    for i in range(50):  # LogisticRegression sums the losses: without a point its C stays
        kept = np.arange(50) != i
        refits.append(
            LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(x[kept], y[kept]).decision_function(x)[i]
        )
    whole = model.decision_function(x)
    assert np.corrcoef((found - whole).reshape(-1), (np.array(refits) - whole).reshape(-1))[0, 1] > 0.99
    bare = LogisticRegression(fit_intercept=False).fit(x, y)
    assert InfluenceFunction.from_sklearn(bare, x, y).parameters.shape == (6, 3)
    with pytest.raises(ValueError, match="y holds labels that are not of"):
        InfluenceFunction.from_sklearn(model, x, np.full(50, "z"))
    with pytest.raises(ValueError, match="has no coef_"):
        InfluenceFunction.from_sklearn(object(), x, y)


SCRIPT = """
import sys, numpy as np, torch
from explainer.attribution import RPSLJE, RPSL2, InfluenceFunction, GroupInfluence, ranks
sys.path.insert(0, sys.argv[1])
from test_attribution import Problem
torch.set_num_threads(1)
with ranks.begin():
    for kind, C in (("binary", 1), ("multiclass", 3), ("multilabel", 2)):
        problem, found = Problem(kind, C, n=41), {}
        for method in (RPSLJE, RPSL2, InfluenceFunction, GroupInfluence):
            e = method.from_arrays(*problem.arrays)
            found[method.__name__ + "_own"] = e.self_influence()
            found[method.__name__ + "_scores"] = np.concatenate(list(e.influence(problem.F_test)))
            found[method.__name__ + "_top"], found[method.__name__ + "_rows"] = e.top_k(problem.F_test, 30)
            found[method.__name__ + "_sum"] = e.parameters.numpy()
        found["loo"] = e.leave_one_out().logits
        found["group"] = e.effect([0, 3, 40], problem.F_test)
        if ranks.rank() == 0:
            np.savez(sys.argv[2] + "/" + kind + ".npz", **found)
"""


def test_two_ranks_give_the_result_of_one(tmp_path):
    script, results = tmp_path / "ranks.py", []
    script.write_text(SCRIPT)
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(number),
            "--master_port",
            "0",
        ]
        arguments = [str(script), str(REPOSITORY / "tests" / "explainer"), str(folder)]
        launcher += ["--standalone"] if number > 1 else []
        done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        results.append({path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))})
    one, two = results
    assert len(one) == 3
    for kind in one:
        for name, value in one[kind].items():
            np.testing.assert_allclose(two[kind][name], value, rtol=1e-6, atol=1e-9, err_msg=f"{kind} {name}")


# Bad input.


def arrays(**changes):
    problem = Problem("multiclass", 3)
    given = {"features": problem.F, "labels": problem.y, "weight": problem.weight, "bias": problem.bias, **changes}
    return given


NAN = Problem("multiclass", 3).F.clone()
NAN[13, 2] = float("nan")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": NAN}, "the features of row 13 are not finite: mend or leave out that point"),
        ({"features": torch.zeros(0, 4)}, "got 0 rows of features: give at least one"),
        ({"features": torch.zeros(60, 4).long()}, "features are torch.int64: give float32 or float64"),
        ({"features": torch.zeros(60)}, r"features has the shape \(60,\): give rows"),
        ({"features": torch.zeros(60, 5)}, "the features have 5 columns and the head 4"),
        ({"features": "absent.npy"}, "cannot read absent.npy"),
        ({"labels": torch.zeros(59)}, "got 60 rows of features and 59 labels: give as many of each"),
        ({"labels": torch.zeros(60)}, "every label is 0.0: give points of two classes at least"),
        ({"labels": torch.arange(60)}, "the label of row 3 is 3: give whole numbers from 0 to 2"),
        ({"labels": torch.full((60,), 0.5)}, "the label of row 0 is 0.5: give whole numbers from 0 to 2"),
        ({"labels": torch.full((60, 3), 2)}, "the label of row 0 is .*: give 0 and 1"),
        ({"weight": torch.zeros(3, 4, 1)}, r"the head's weight has the shape \(3, 4, 1\)"),
        ({"weight": torch.full((3, 4), float("inf"))}, "holds numbers that are not finite: train the model again"),
        ({"bias": torch.zeros(2)}, "the head has 3 logits and 2 biases"),
        ({"head": "binary"}, "head binary with 3 logits"),
        ({"head": "linear"}, "head is 'linear': give one of binary"),
        ({"lr": 0}, "lr is 0: give a number above 0"),
        ({"decay": -1}, "decay is -1: give 0 or a number above it"),
        ({"lmbd": 1}, "RPSLJE has no option 'lmbd': give some of"),
        ({"labels": torch.eye(3)[torch.arange(60) % 3]}, "the labels look one-hot: give class numbers"),
    ],
)
def test_bad_arrays(changes, said):
    with pytest.raises(ValueError, match=said):
        RPSLJE.from_arrays(**arrays(**changes))


def test_shards_of_unequal_width_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no .npy files"):
        RPSLJE.from_arrays(**arrays(features=tmp_path))
    np.save(tmp_path / "0.npy", np.zeros((30, 4)))
    np.save(tmp_path / "1.npy", np.zeros((30, 3)))
    with pytest.raises(ValueError, match="1.npy has 3 features, 0.npy has 4: make every shard of one width"):
        RPSLJE.from_arrays(**arrays(features=tmp_path))


def test_bad_questions(tmp_path):
    problem = Problem("multiclass", 3)
    explainer = RPSLJE.from_arrays(*problem.arrays)
    for call, said in (
        (lambda: explainer.top_k(problem.F_test, 61), "k is 61: give 1 to 60"),
        (lambda: explainer.top_k(problem.F_test, 0), "k is 0"),
        (lambda: explainer.top_k(problem.F_test, 3.0), "k is 3.0"),
        (lambda: explainer.top_k(problem.F_test, order="up"), "order is 'up': give descending or ascending"),
        (lambda: explainer.top_k(problem.F_test, target="best"), "target is 'best': give predicted, label, or classes"),
        (lambda: explainer.top_k(problem.F_test, target="label"), "the test points have none"),
        (lambda: explainer.top_k(problem.F_test, target=3), "target: give a class from 0 to 2"),
        (lambda: explainer.top_k(problem.F_test, target=[0, 1]), "for each of 7 test points"),
        (lambda: explainer.top_k(problem.F_test, search="magic"), "search is 'magic': give exact or faiss"),
        (lambda: explainer.top_k(NAN[:20]), "the features of test point 13 are not finite"),
        (lambda: explainer.top_k([(problem.F_test, None)]), "was made from arrays: give features"),
        (lambda: RPSL2.from_arrays(*problem.arrays, lmbd=-1), "lmbd is -1: give a number above 0"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect([60], problem.F_test), "from 0 to 59"),
        (lambda: GroupInfluence.from_arrays(*problem.arrays).effect([1], problem.F_test, 0), "order is 0: give 1, 2"),
        (lambda: TracIn.from_arrays(*problem.arrays, learning_rates=[1, 2]), "one above 0 for each of 1 checkpoints"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


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
        (lambda: RPSLJE(model, loader(data, shuffle=True)), "the loader shuffles"),
        (lambda: RPSLJE(model, _Shuffling(data)), "two passes of the loader disagree: it shuffles or augments"),
        (lambda: RPSLJE(model, loader(data[:1])), "the loader gives no labels"),
        (lambda: RPSLJE(model, []), "the loader has no batches"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
        assert model.training and model.body[1].training and not model.fc._forward_hooks


class _Shuffling:
    """A loader of one's own that shuffles, which nothing but its batches tells."""

    def __init__(self, data):
        self.data, self.generator = data, torch.Generator().manual_seed(0)

    def __iter__(self):
        order = torch.randperm(50, generator=self.generator)
        return iter([(self.data[0][order], self.data[1][order])])


def test_an_approximate_search_says_how_much_it_finds():
    pytest.importorskip("faiss", reason="faiss is an optional package: pip install faiss-cpu")
    problem = Problem("multiclass", 3, n=2000, d=8, m=50)
    for method in METHODS:
        explainer = method.from_arrays(*problem.arrays)
        for order in ("descending", "ascending"):
            exact = explainer.top_k(problem.F_test, 5, order=order)
            all_cells = explainer.top_k(
                problem.F_test, 5, order=order, search="faiss", search_settings={"lists": 8, "probes": 8}
            )
            assert exact.recall is None and all_cells.recall > 0.99
            np.testing.assert_allclose(all_cells.values, exact.values, rtol=1e-3, atol=1e-5)
            few = explainer.top_k(
                problem.F_test, 5, order=order, search="faiss", search_settings={"lists": 40, "probes": 1}
            )
            found = (exact.indices[:, :, None] == few.indices[:, None, :]).any(2).mean()
            assert few.recall == pytest.approx(found) and few.recall < 1


DISAGREEING = """
import os, torch
from explainer.attribution import InfluenceFunction, ranks
with ranks.begin():
    F = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(1, 3) * (1 + int(os.environ["RANK"]))
    try:
        InfluenceFunction.from_arrays(F, torch.arange(20) % 2, weight)
    except ValueError as error:
        print(f"said: {error}")
"""


def test_ranks_that_disagree_say_so(tmp_path):
    script = tmp_path / "disagreeing.py"
    script.write_text(DISAGREEING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, timeout=300)
    assert done.stdout.count("said: the ranks disagree: rank") == 2, done.stderr
    assert "give every rank the same model and arguments" in done.stdout


@pytest.mark.parametrize("method", [*METHODS, GroupInfluence])
def test_what_is_given_is_never_changed(method):
    problem = Problem("multiclass", 3)
    before = [array.clone() for array in (*problem.arrays, problem.F_test)]
    explainer = method.from_arrays(*problem.arrays)
    explainer.self_influence(), explainer.top_k(problem.F_test, 5, order="ascending")
    list(explainer.influence(problem.F_test))
    assert all(torch.equal(a, b) for a, b in zip(before, (*problem.arrays, problem.F_test)))


def test_what_was_written_into_a_private_memmap_stays(tmp_path):
    problem = Problem("binary", 1)
    np.save(tmp_path / "features.npy", problem.F.numpy())
    mapped = np.load(tmp_path / "features.npy", mmap_mode="c")
    mapped[:, 0] = 7
    InfluenceFunction.from_arrays(mapped, *problem.arrays[1:], memory_limit=1000, damping=0.1)
    assert (mapped[:, 0] == 7).all()


def test_tracin_explains_what_the_last_checkpoint_predicts(data):
    model, other = Network().eval(), Network().eval()
    with torch.no_grad():
        other.fc.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    explainer = TracIn(model, loader(data), checkpoints=[model.state_dict(), other.state_dict()])
    assert (explainer.top_k(loader(data), 2).classes == 2).all()
    with pytest.raises(ValueError, match="TracIn keeps no cache"):
        TracIn(model, loader(data), cache="anywhere")


def test_caches_are_written_in_shards_and_shards_are_counted_as_people_do(data, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "SHARD", 100)
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": np.array(["a", "b"] * 30)}, "labels are ndarray of no numbers"),
        ({"labels": 1}, "got one label: give one for each point"),
        ({"device": "moon"}, "device is 'moon' .*: give cpu"),
        ({"precision": "float32"}, "precision is 'float32': give torch.float32"),
        ({"solver": "cg", "solver_settings": {"depth": 3}}, r"solver_settings of cg: got \['depth'\]; give some of"),
    ],
)
def test_bad_types(options, said):
    with pytest.raises(ValueError, match=said):
        RPSLJE.from_arrays(**arrays(**options))


def test_labels_are_kept_as_they_were_given():
    problem = Problem("binary", 1)
    explainer = InfluenceFunction.from_arrays(*problem.arrays)
    before = explainer.self_influence()
    problem.y.fill_(0)
    np.testing.assert_array_equal(explainer.self_influence(), before)
    for target, said in ((None, "target is None"), (["a"] * 7, "target holds no numbers")):
        with pytest.raises(ValueError, match=said):
            explainer.top_k(problem.F_test, target=target)
