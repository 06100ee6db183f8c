"""Two ranks with loaders that are shares of a data set give what one rank gives; all else is refused on both."""

from test_attribution_ranks import launched

SHARDED = """
import sys, numpy as np, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset
from explainer.attribution import InfluenceFunction, TracIn, ranks

torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
x = torch.randn(41, 4, generator=g)
tokens = torch.randint(0, 10, (13, 6), generator=g)
labels = torch.where(torch.rand(13, 6, generator=g) < 0.3, -100, tokens % 3)
points, sentences = TensorDataset(x, (x[:, 0] > 0).long()), TensorDataset(tokens, labels)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
words = nn.Sequential(nn.Embedding(10, 5), nn.Tanh(), nn.Linear(5, 3))


def share(data, size, **more):
    return DataLoader(data, size, sampler=DistributedSampler(data, **{"shuffle": False, **more}))


def compared(make, data):
    mine, whole = make(share(data, 4)), make(DataLoader(data, 7))
    assert mine.n == whole.n
    assert mine.groups is None or torch.equal(mine.groups, whole.groups)
    np.testing.assert_allclose(mine.self_influence(), whole.self_influence(), rtol=1e-4, atol=1e-6)
    found, expected = mine.top_k(share(data, 3), 4), whole.top_k(DataLoader(data, 50), 4)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.indices, expected.indices) if data is points else None
    print("equal", flush=True)


def refused(name, work):
    try:
        work()
    except ValueError as error:
        print(f"[{name}] {error}", flush=True)


with ranks.begin():
    spread, rank = DistributedDataParallel(model), ranks.rank()
    compared(lambda given: InfluenceFunction(spread, given), points)
    compared(lambda given: InfluenceFunction(words, given, damping=0.1), sentences)
    compared(lambda given: TracIn(spread, given, checkpoints=[spread.state_dict(), model.state_dict()]), points)
    for time in (1, 2):
        made = InfluenceFunction(words, share(sentences, 4), damping=0.1, cache=sys.argv[1] + "/cache")
        plain = InfluenceFunction(words, DataLoader(sentences, 4), damping=0.1)
        np.testing.assert_allclose(made.self_influence(), plain.self_influence(), rtol=1e-5)
        print("equal", flush=True)
    whole = DataLoader(points, 5)
    half = DataLoader(Subset(points, range(20 * rank, 20 * rank + 20)), 5)
    refused("shuffled", lambda: InfluenceFunction(model, share(points, 4, shuffle=True)))
    refused("halves", lambda: InfluenceFunction(model, half))
    refused("lengths", lambda: InfluenceFunction(model, [(x[rank:], points.tensors[1][rank:])]))
    refused("labels", lambda: InfluenceFunction(model, [(x, (points.tensors[1] + rank) % 2)]))
    refused("mixed", lambda: InfluenceFunction(model, whole if rank else share(points, 4)))
    refused("dropped", lambda: InfluenceFunction(model, share(points, 4, drop_last=True)))
    refused("failed", lambda: InfluenceFunction(model, whole if rank else []))
    refused("layer", lambda: InfluenceFunction(model, whole, layer=-1 if rank else 9))
    refused("cached", lambda: InfluenceFunction(model, [(x, (points.tensors[1] + rank) % 2)], cache=sys.argv[1] + "/c"))
    explainer = InfluenceFunction(model, whole)
    refused("test", lambda: explainer.top_k(half, 3))
"""


def test_shares_of_ranks_are_put_together_and_other_differences_are_refused_on_every_rank(tmp_path):
    printed, errors = launched(SHARDED, 2, tmp_path, tmp_path)
    assert printed.count("equal") == 10, errors
    for name, said in (
        ("shuffled", "the loader shuffles"),
        ("halves", "the ranks read different data, from row 0 on rank 1 on"),
        ("lengths", "the ranks read different data, [41, 40] points"),
        ("labels", "the ranks read different labels"),
        ("mixed", "the loaders of some ranks are shares and those of others whole"),
        ("dropped", "the loaders of all ranks leave out point 40 of 41"),
        ("failed", "the loader has no batches"),
        ("layer", "layer 9 does not exist"),
        ("cached", "was made with another loader"),
        ("test", "the ranks read different data, from row 0 on rank 1 on"),
    ):
        assert printed.count(f"[{name}] ") == 2 and printed.count(said) >= 2, f"{name}: {printed}"
