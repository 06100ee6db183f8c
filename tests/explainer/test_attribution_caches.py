"""Caches of features: filled by one process at a time, whole or made again, and damage is one line."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from config import UserError
from explainer.attribution import RPSLJE, cache
from models.files import save_npy

X, Y = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).eval()


def loader():
    return [(X[i : i + 10], Y[i : i + 10].float()) for i in range(0, 40, 10)]


@pytest.fixture
def filled(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 40)
    RPSLJE(model(), loader(), cache=tmp_path / "cache")
    return tmp_path / "cache"


def test_a_flipped_bit_or_a_missing_shard_is_one_line(filled):
    expected = RPSLJE.from_cache(filled).self_influence()
    shards = sorted((filled / "features").glob("*.npy"))
    for path in (*shards, filled / "labels.npy", filled / "weight.npy", filled / "bias.npy"):
        whole = path.read_bytes()
        for data in (whole[:130] + bytes([whole[130] ^ 1]) + whole[131:], whole[:-200], b""):
            path.write_bytes(data)
            with pytest.raises(UserError, match="damaged.*: remove the cache, and it is made again"):
                RPSLJE.from_cache(filled)
        path.write_bytes(whole)
    for path in shards:
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match="row.*remove the cache"):
            RPSLJE.from_cache(filled)
        path.write_bytes(whole)
    np.testing.assert_array_equal(RPSLJE.from_cache(filled).self_influence(), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("labels", np.zeros(39)), ("labels", np.array(["a"] * 40)), ("weight", np.zeros((1, 3), np.float32))]
    + [("weight", np.full((1, 4), np.nan)), ("bias", np.zeros(2)), ("groups", -np.arange(40)), ("count", np.ones(2))],
)
def test_arrays_of_others_are_one_line(filled, name, value):
    save_npy(filled / f"{name}.npy", value)
    with pytest.raises(UserError, match="remove the cache"):
        RPSLJE.from_cache(filled)


@pytest.mark.parametrize("text", ["[]", "{", '{"layer": []}', '{"model": 3}', '{"rows": "many"}'])
def test_settings_of_other_types_are_one_line(filled, text):
    (filled / "settings.json").write_text(text)
    for again in (lambda: RPSLJE.from_cache(filled), lambda: RPSLJE(model(), loader(), cache=filled)):
        with pytest.raises(UserError, match="settings.json .*: remove the cache"):
            again()


def test_a_cache_made_before_is_read(filled):
    expected = RPSLJE.from_cache(filled).self_influence()
    settings = json.loads((filled / "settings.json").read_text())
    (filled / "settings.json").write_text(json.dumps({k: settings[k] for k in ("layer", "model", "loader")}))
    for path in filled.rglob("*.npy"):
        np.save(path, np.load(path))
    for again in (RPSLJE.from_cache(filled), RPSLJE(model(), loader(), cache=filled)):
        np.testing.assert_array_equal(again.self_influence(), expected)


def test_a_second_process_is_refused_and_what_a_dead_one_left_goes(tmp_path):
    folder = tmp_path / "cache"
    program = f"""
        import sys
        from explainer.attribution.cache import filling
        from pathlib import Path
        with filling(Path({str(folder)!r})):
            Path({str(folder)!r}, ".filling.1").mkdir()
            print("filling", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "filling\n"
        with pytest.raises(UserError, match=rf"being written by the filling of a cache \(process {process.pid} on"):
            RPSLJE(model(), loader(), cache=folder)
        assert (folder / ".filling.1").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    expected = RPSLJE(model(), loader(), cache=folder).self_influence()
    np.testing.assert_array_equal(RPSLJE.from_cache(folder).self_influence(), expected)
    assert not list(folder.glob(".filling*"))


KILLS = """
import os, sys
import torch
from explainer.attribution import RPSLJE, cache

sys.path.insert(0, sys.argv[2])
from test_attribution_caches import loader, model

cache.SHARD, folder = 80, sys.argv[1]

def ended(path, left):
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    def audit(event, _):
        nonlocal left
        if event in ("os.rename", "os.mkdir", "os.remove"):
            left -= 1
            if left < 0:
                os._exit(9)
    sys.addaudithook(audit)
    RPSLJE(model(), loader(), cache=path)
    os._exit(0)

torch.set_num_threads(1)
k, killed = 0, True
while killed:
    killed = ended(f"{folder}/{k}", k) != 0
    assert not killed or ended(f"{folder}/{k}", 10**6) == 0
    k += 1
"""


def test_killed_before_any_write_it_is_made_again(tmp_path):
    command = [sys.executable, "-c", KILLS, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    *killed, whole = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    expected = RPSLJE.from_cache(whole).self_influence()
    assert len(killed) > 12
    for folder in killed:
        np.testing.assert_array_equal(RPSLJE.from_cache(folder).self_influence(), expected)
        assert not list(folder.glob(".filling*"))
