"""Two ranks give the result of one, and say so when they disagree."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from config import UserError
from explainer.attribution import ranks, rows

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
        weighted = {"sample_weight": np.arange(41) % 4, "decay": 0.1}
        e = GroupInfluence.from_arrays(*problem.arrays, **weighted)
        found["weighted"], found["weighted_loo"] = e.self_influence(), e.leave_one_out().logits
        found["weighted_group"] = e.effect([0, 3, 40], problem.F_test)
        given = problem.arrays[0][5:12], problem.arrays[1][5:12]
        found["candidates"] = e.top_k(problem.F_test, 4, candidates=given).values
        found["mean"] = np.concatenate(list(e.influence(problem.F_test, target=0, mean=True)))
        if ranks.rank() == 0:
            np.savez(sys.argv[2] + "/" + kind + ".npz", **found)
"""


def launched(text, number, folder, *arguments):
    """What torchrun printed of a script in so many processes, on standard output and error; it has succeeded."""
    script = folder / "ranks.py"
    script.write_text(text)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(number), "--standalone"]
    done = subprocess.run([*launcher, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_two_ranks_give_the_result_of_one(tmp_path):
    results = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        launched(SCRIPT, number, tmp_path, REPOSITORY / "tests" / "explainer", folder)
        results.append({path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))})
    one, two = results
    assert len(one) == 3
    for kind in one:
        for name, value in one[kind].items():
            np.testing.assert_allclose(two[kind][name], value, rtol=1e-6, atol=1e-9, err_msg=f"{kind} {name}")


CACHING = """
import sys, numpy as np, torch
from explainer.attribution import RPSLJE, ranks
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
x = torch.randn(41, 5, generator=g)
model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
for p in model.parameters():
    torch.nn.init.normal_(p, generator=g)
batches = list(zip(x.split(7), (torch.arange(41) % 3).split(7)))
with ranks.begin():
    model[0].register_forward_hook(lambda *_: ran.append(1))
    for time in (1, 2):
        ran = []
        made = RPSLJE(model, batches, cache=sys.argv[1] + "/cache").self_influence()
        plain = RPSLJE(model, batches).self_influence()
        np.testing.assert_allclose(made, plain, rtol=1e-5)
        print(f"time {time} rank {ranks.rank()} runs {len(ran) - 7}")
    try:
        RPSLJE(model, [batches[0][:1]] if ranks.rank() == 0 else batches, cache=sys.argv[1] + "/other")
    except ValueError as error:
        print(f"said by {ranks.rank()}: {error}")
"""


def test_ranks_fill_one_cache_one_after_the_other(tmp_path):
    printed, _ = launched(CACHING, 2, tmp_path, tmp_path)
    for line in ("time 1 rank 1 runs 1", "time 2 rank 0 runs 1", "time 2 rank 1 runs 1"):
        assert line in printed, "but for the check of the first batch, the model runs on the first rank alone"
    assert "said by 0: the loader gives no labels" in printed
    assert "said by 1: the first rank could not do its part: see its message" in printed


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
    printed, errors = launched(DISAGREEING, 2, tmp_path)
    assert printed.count("said: the ranks disagree: rank") == 2, errors
    assert "give every rank the same model and arguments" in printed


@pytest.mark.parametrize("size", ["", "two", "0", "-1", "1.5", "²"])
def test_a_world_size_that_is_no_number_is_refused(size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match="WORLD_SIZE is .*: start the command by torchrun"):
        ranks.begin()


def test_damaged_files_of_features_are_refused(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((3, 2)))
    whole = path.read_bytes()
    for content in (b"", whole[:9], whole[:40], whole[:-1], whole.replace(b"}", b"(")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="give a .npy file of numbers"):
            rows.opened(path)
