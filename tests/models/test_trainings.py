"""Folders of trainings: the old model or the new one, never a mixture; nothing is lost without a word."""

import copy
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from config import UserError
from models import training
from models.CNN import train
from models.CNN.CNN import ResNet20
from models.CNN.utils_cifar import Start, load_network
from models.folders import holding
from models.moments import load_moments
from models.outputs import load_outputs
from models.states import is_state_of, load_state
from models.training import OPTIMIZERS, Schedule, binary_loss, fit, load_tensors, save_tensors
from models.Xgboost import train as trees

SMALL = "--dataset digits --weights none --num_of_samples 20 --device cpu --keep_moments".split()
FILES = "resnet20.pt", "saved_outputs.npz"


def contents(folder):
    """{name: bytes} of a run folder, without what is hidden."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if "/." not in f"/{name}"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished trainings of other seeds, and what is left of a third one that was stopped after two epochs."""
    root = tmp_path_factory.mktemp("trainings")
    found = {}
    for name, seed in (("old", 1), ("new", 2)):
        folder, sys.argv = root / name, ["train.py", *SMALL, "--epochs", "2", "--seed", str(seed), "--saved_path", ""]
        sys.argv[-1] = str(folder)
        train.main()
        found[name] = folder
    return found


def stopped_after(epochs, folder, seed, monkeypatch, command):
    """A training that is stopped after so many epochs."""
    with monkeypatch.context() as patched:
        patched.setattr("models.training._epoch", after(epochs))
        assert command(train.main, *SMALL, "--epochs", 2, "--seed", seed, "--saved_path", folder)[0] == 130


def after(epochs):
    whole = training._epoch

    def epoch(*given):
        if given[4] >= epochs:
            raise KeyboardInterrupt
        return whole(*given)

    return epoch


def test_a_retraining_killed_at_any_write_leaves_the_old_model_or_the_new_one(trained, tmp_path):
    old, new = (contents(trained[name]) for name in ("old", "new"))
    seen, status, k = set(), 1, 0
    while status:
        folder = tmp_path / str(k)
        shutil.copytree(trained["old"], folder)
        process = os.fork()
        if not process:
            left = [k]

            def audit(event, arguments, left=left):
                written = event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
                if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "open") and written:
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(1)

            source = trained["new"]
            sys.addaudithook(audit)
            with train.finished_training(folder) as model:
                for name in FILES:
                    (model / name).write_bytes((source / "model" / name).read_bytes())
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        with holding(folder, "a test"):
            found = contents(folder)
        assert {n: b for n, b in found.items() if n.startswith("model/")} in ({n: b for n, b in old.items()
               if n.startswith("model/")}, {n: b for n, b in new.items() if n.startswith("model/")}), k  # fmt: skip
        if found["model/resnet20.pt"] == old["model/resnet20.pt"]:
            assert found == old
        seen.add(found["model/resnet20.pt"])
        k += 1
    assert len(seen) == 2 and k > 10


def test_a_reader_finishes_a_step_that_was_killed(trained, tmp_path, monkeypatch):
    shutil.copytree(trained["old"], tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr("models.folders.settle", lambda folder: None)
        with train.finished_training(tmp_path / "run") as model:
            for name in FILES:
                shutil.copy(trained["new"] / "model" / name, model)
    right = load_outputs(trained["new"], "CNN")
    assert load_outputs(tmp_path / "run", "CNN").fingerprint == right.fingerprint
    assert not (tmp_path / "run" / "epochs").exists()


def test_a_retraining_that_diverges_leaves_what_is_there(command, trained, tmp_path):
    shutil.copytree(trained["old"], tmp_path / "run")
    before = contents(tmp_path / "run")
    options = *SMALL, "--epochs", 2, "--lr", 1e30, "--saved_path", tmp_path / "run"
    status, _, said = command(train.main, *options)
    assert status == 2 and "give a lower --lr" in said
    assert {name: contents(tmp_path / "run")[name] for name in before} == before


def test_a_full_disk_leaves_what_is_there(command, trained, tmp_path):
    shutil.copytree(trained["old"], tmp_path / "run")
    before, limits = contents(tmp_path / "run"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        status, _, said = command(train.main, *SMALL, "--epochs", 1, "--saved_path", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2 and "cannot write" in said and said.count("\n") == 1
    assert {name: contents(tmp_path / "run")[name] for name in before} == before


def test_a_stopped_training_is_not_thrown_away_without_a_word(command, trained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(trained["old"], run)
    stopped_after(1, run, 2, monkeypatch, command)
    before = contents(run)
    assert {"model/training.checkpoint", "model/training.epochs/1/model/moment.npz"} <= before.keys()
    for change, said in (
        (("--seed", 3), "with seed 2, now 3"),
        (("--seed", 2, "--lr", 0.5), "with lr 0.01, now 0.5"),
        (("--seed", 2, "--num_of_samples", 22), "with other data"),
    ):
        status, _, error = command(train.main, *SMALL, "--epochs", 2, "--saved_path", run, *change)
        assert status == 2 and said in error and "--overwrite" in error and error.count("\n") == 1
        assert contents(run) == before
    options = *SMALL, "--epochs", 2, "--seed", 2, "--saved_path", run
    assert command(train.main, *options)[0] == 0  # goes on, with the moment of its first epoch
    assert contents(run) == contents(trained["new"])
    stopped_after(1, run, 2, monkeypatch, command)
    assert command(train.main, *SMALL, "--epochs", 2, "--seed", 1, "--overwrite", "--saved_path", run)[0] == 0
    assert contents(run) == contents(trained["old"])


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_second_training_in_a_folder_is_refused(command, trained, more):
    run = trained["old"]
    before = contents(run)
    program = (
        f"from models.folders import holding\nwith holding({str(run)!r}, 'a training'): print(flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        for main, options in ((train.main, (*SMALL, *more)), (trees.main, ())):
            status, _, error = command(main, *options, "--saved_path", run)
            assert status == 2 and "is being written by a training" in error
    finally:
        process.communicate(b"\n")
    assert contents(run) == before


def test_moments_and_networks_of_another_training_are_refused(trained, tmp_path):
    shutil.copytree(trained["old"], tmp_path / "run")
    outputs = load_outputs(tmp_path / "run", "CNN")
    assert len(load_moments(tmp_path / "run", outputs)) == 2 and outputs.training
    shutil.copytree(trained["new"] / "epochs", tmp_path / "run" / "epochs", dirs_exist_ok=True)
    with pytest.raises(UserError, match="moments of another training .*--keep_moments"):
        load_moments(tmp_path / "run", outputs)
    shutil.copy(trained["new"] / "model" / "resnet20.pt", tmp_path / "run" / "model")
    with pytest.raises(UserError, match="resnet20.pt: it is of another training"):
        load_outputs(tmp_path / "run", "CNN")
    network = load_tensors(trained["new"] / "model" / "resnet20.pt", "")
    torch.save(network, tmp_path / "run" / "model" / "resnet20.pt")  # says nothing, as one of the official release
    np.testing.assert_array_equal(load_outputs(tmp_path / "run", "CNN").weight, outputs.weight)


class Line:
    """Points on a line."""

    device = torch.device("cpu")

    def rows(self, size, generator):
        return torch.arange(8).split(size)

    def batch(self, rows, generator, done):
        return (rows[:, None].float(),), (rows > 3).float()


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.update(epoch="1"),
        lambda s: s.update(epoch=9),
        lambda s: s.update(epoch=-1),
        lambda s: s.update(network=[]),
        lambda s: s.update(settings=3),
        lambda s: s.pop("kept"),
        lambda s: s["network"].pop("weight"),
        lambda s: s["network"].update(weight=torch.zeros(2, 2)),
        lambda s: s["network"].update(weight="text"),
        lambda s: s["network"].update(weight=torch.zeros(1, 1, dtype=torch.complex64)),
        lambda s: s["network"].update(another=torch.zeros(1)),
        lambda s: s["optimizer"].update(state=[]),
        lambda s: s["optimizer"].update(param_groups={}),
        lambda s: s["optimizer"]["param_groups"].append({}),
        lambda s: s["optimizer"]["param_groups"][0].update(momentum="a"),
        lambda s: s["optimizer"]["param_groups"][0].pop("lr"),
        lambda s: s["optimizer"]["param_groups"][0].update(params=[0]),
        lambda s: s["optimizer"]["state"].update({7: {}}),
        lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(3)),
        lambda s: s["optimizer"]["state"].update({0: 3}),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused(tmp_path, damage):
    path, schedule = tmp_path / "training.checkpoint", Schedule(3, 0.1, 4)
    fit(torch.nn.Linear(1, 1), Line(), binary_loss, schedule, 0, checkpoint=path)
    state = load_tensors(path, "")
    damage(state)
    save_tensors(path, state)
    with pytest.raises(UserError, match="training.checkpoint .*: delete it") as caught:
        fit(torch.nn.Linear(1, 1), Line(), binary_loss, schedule, 0, checkpoint=path)
    assert "\n" not in str(caught.value)


def test_a_network_of_another_kind_is_refused(trained, tmp_path):
    shutil.copytree(trained["old"], tmp_path / "run")
    path = tmp_path / "run" / "model" / "resnet20.pt"
    whole = load_tensors(path, "")
    name = next(iter(whole))
    for value in (whole[name][:1], whole[name].long(), whole[name].to(torch.complex64), "text", None):
        save_tensors(path, {**whole, name: value})
        with pytest.raises(UserError, match="holds another network .*: run python"):
            load_network(tmp_path / "run")


@pytest.mark.parametrize("value", ["infinite", "complex", "sparse", "truth values"])
def test_tensors_of_another_kind_are_no_starting_weights_and_no_network(tmp_path, value):
    state = dict(Start("none").state)
    weight = state["bn1.weight"]
    state["bn1.weight"] = {
        "infinite": weight / 0,
        "complex": weight + 0j,
        "sparse": weight.to_sparse(),
        "truth values": weight > 0,
    }[value]
    torch.save(state, tmp_path / "start.pt")
    with pytest.raises(UserError, match="start.pt is damaged .bn1.weight (is|holds) .*: give a ResNet-20's"):
        Start(str(tmp_path / "start.pt"))
    with pytest.raises(UserError, match="bn1.weight (is|holds) .*: train again"):
        load_state(ResNet20(), state, tmp_path / "start.pt", "train again")


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_state_of_an_optimizer_is_whole(kind):
    network = torch.nn.Linear(2, 1)
    optimizer = OPTIMIZERS[kind](network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()

    def state():
        return copy.deepcopy(optimizer.state_dict())

    fresh = OPTIMIZERS[kind](network.parameters())
    assert is_state_of(fresh, state())
    missing, empty, text, infinite = (state() for _ in range(4))
    del missing["state"][0]
    empty["state"][1] = {}
    text["param_groups"][0]["foreach"] = "a text"
    infinite["state"][0] = {name: value / 0 for name, value in infinite["state"][0].items()}
    assert not any(is_state_of(fresh, other) for other in (missing, empty, text, infinite))
