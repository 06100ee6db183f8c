"""Checksums in files: NumPy and torch read what is written, and no flipped bit is read as other numbers."""

import zipfile

import numpy as np
import pytest
import torch

from config import UserError
from models import checksums
from models.arrays import Array
from models.checksums import training_of
from models.files import (
    load_bytes,
    load_json,
    load_npy,
    load_npz,
    save_bytes,
    save_json,
    save_npy,
    save_npz,
)
from models.training import load_tensors, save_tensors

TRAINING = "0123456789abcdef"
ARRAYS = {"f": np.arange(12.0, dtype=np.float32).reshape(4, 3), "y": np.array([0, 1, 1, 0]), "s": np.array("text")}


def written(folder):
    """{path: (reader, what numpy or torch reads)} of a file of every kind."""
    save_npz(folder / "a.npz", **ARRAYS, training=TRAINING)
    save_npz(folder / "compressed.npz", **ARRAYS, compressed=True)
    save_npy(folder / "a.npy", np.asfortranarray(ARRAYS["f"]))
    save_json(folder / "a.json", {"b": {"c": [1.5, None]}, "12": "text", "3": 1})
    save_tensors(folder / "a.pt", {"w": torch.arange(5.0), "more": {"epoch": 3}}, training=TRAINING)
    save_bytes(folder / "a.bytes", checksums.sealed(b"some bytes", TRAINING))
    npz = lambda path: load_npz(path, ["f", "y", "s"], "again")  # noqa: E731
    return {
        folder / "a.npz": npz,
        folder / "compressed.npz": npz,
        folder / "a.npy": lambda path: load_npy(path, "again"),
        folder / "a.json": lambda path: load_json(path, "again"),
        folder / "a.pt": lambda path: load_tensors(path, "again"),
        folder / "a.bytes": lambda path: load_bytes(path, "again", end=b"some bytes")[0],
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return np.array_equal(a, b) if isinstance(a, (np.ndarray, torch.Tensor)) else a == b


def test_other_readers_read_them(tmp_path):
    written(tmp_path)
    for name in ("a.npz", "compressed.npz"):
        with np.load(tmp_path / name) as found:
            assert same({key: found[key] for key in found.files}, ARRAYS)
    for mode in (None, "r"):
        found = np.load(tmp_path / "a.npy", mmap_mode=mode)
        assert same(found, ARRAYS["f"]) and found.flags.f_contiguous
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True)["w"], torch.arange(5.0))
    assert [training_of(tmp_path / name) for name in ("a.npz", "a.pt", "a.npy")] == [TRAINING, TRAINING, None]


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for path, read in written(tmp_path).items():
        right, whole = read(path), path.read_bytes()
        refused = 0
        for at in rng.integers(8 * len(whole), size=150):
            data = bytearray(whole)
            data[at // 8] ^= 1 << at % 8
            path.write_bytes(data)
            try:
                found = read(path)
            except UserError as error:
                refused += "\n" not in str(error)
            else:  # in the line itself, which then is none
                assert path.suffix == ".json" or at // 8 >= len(whole) - checksums.LENGTH, path
                assert path.suffix == ".json" or same(found, right), path
        assert refused > 75, path


@pytest.mark.parametrize("cut", [1, 30, checksums.LENGTH, checksums.LENGTH + 1, 100])
def test_a_file_cut_short_is_refused(tmp_path, cut):
    for path, read in written(tmp_path).items():
        if path.suffix == ".bytes" or (path.suffix == ".npy" and cut == checksums.LENGTH):
            continue  # whole without the line, as one of the official release
        if path.suffix == ".json" and cut == 1:
            continue  # the last newline
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(UserError, match="again"):
            read(path)


def test_files_without_a_checksum_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "b.npz", **ARRAYS)
    for name in ("a.npz", "b.npz"):
        assert same(load_npz(tmp_path / name, list(ARRAYS), ""), ARRAYS) and training_of(tmp_path / name) is None
    np.save(tmp_path / "a.npy", ARRAYS["f"])
    assert same(load_npy(tmp_path / "a.npy", ""), ARRAYS["f"])
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert load_json(tmp_path / "a.json", "") == {"a": 1}
    torch.save({"w": torch.arange(3.0)}, tmp_path / "a.pt")
    assert torch.equal(load_tensors(tmp_path / "a.pt", "")["w"], torch.arange(3.0))


def test_damage_in_tensors_without_a_checksum_is_refused(tmp_path):
    """torch itself reads them as other numbers."""
    path = tmp_path / "a.pt"
    torch.save({"w": torch.full((50,), 7.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((50,), 7.0).numpy().tobytes()) + 6] ^= 1
    path.write_bytes(data)
    assert not torch.equal(torch.load(path, weights_only=True)["w"], torch.full((50,), 7.0))
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path, "again")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("f.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**24,)})
            for _ in range(128):
                file.write(bytes(2**20))
    with pytest.raises(UserError, match="damaged"):
        load_npz(tmp_path / "a.npz", ["f"], "again")
    np.save(tmp_path / "a.npy", np.zeros(3))
    announced = (tmp_path / "a.npy").read_bytes().replace(b"(3,),", b"(999999999999,),".ljust(5))
    (tmp_path / "a.npy").write_bytes(announced)
    with pytest.raises(UserError, match="damaged"):
        load_npy(tmp_path / "a.npy", "again")


def test_arrays_are_what_they_have_to_be(tmp_path):
    schema = {"f": Array("f", (("n", "d"),)), "y": Array("ib", (("n",), ("n", 1)), 0, 1)}
    good = {"f": np.zeros((4, 3)), "y": np.zeros(4, int)}
    path = tmp_path / "a.npz"
    for change, said in (
        ({}, None),
        ({"y": np.zeros((4, 1), bool)}, None),
        ({"y": np.zeros(5, int)}, "shape"),
        ({"y": np.zeros((1, 4), int)}, "shape"),
        ({"y": np.full(4, 2)}, "from 0 to 1"),
        ({"y": np.zeros(4)}, "whole numbers"),
        ({"f": np.zeros((4, 3), complex)}, "real numbers"),
        ({"f": np.full((4, 3), np.nan)}, "finite"),
        ({"f": np.array([["a"]])}, "real numbers"),
    ):
        save_npz(path, **{**good, **change})
        if said is None:
            load_npz(path, schema, "again")
        else:
            with pytest.raises(UserError, match=f"{said}.*: again"):
                load_npz(path, schema, "again")
