import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from config import UserError
from models.files import load_json, load_npy, load_npz, replacing, save_json, save_npz


def test_round_trip(tmp_path):
    save_npz(tmp_path / "new" / "a.npz", x=np.arange(3), y=np.eye(2))
    read = load_npz(tmp_path / "new" / "a.npz", ["x"], "mend it", optional=["y", "z"])
    assert read["x"].tolist() == [0, 1, 2] and set(read) == {"x", "y"}


def test_same_arrays_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_npz(tmp_path / name, x=np.arange(1000.0))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    save_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["a.json"] and load_json(tmp_path / "a.json", "") == {"old": 1}


def test_a_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot write .*a.npz: the disk is full"):
        with replacing(tmp_path / "a.npz"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*: its folder is a file; free the folder or choose another one"):
        save_npz(tmp_path / "file" / "a.npz", x=np.arange(3))


def damaged(path):
    save_npz(path, x=np.arange(1000))
    path.write_bytes(path.read_bytes()[:600])


def pickled(path):
    np.savez(path, x=np.array([{}, []], dtype=object))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "a.npz not found in .*: mend it"),
        (damaged, "is damaged or of another format: mend it"),
        (lambda path: path.write_text("text"), "holds pickled objects|is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged or of another format: mend it"),
        (pickled, "holds pickled objects, which are never loaded: mend it"),
        (lambda path: save_npz(path, y=np.eye(2)), r"has no x \(it has y\): mend it"),
        (lambda path: path.mkdir(), "cannot read .*a.npz .Is a directory.: mend it"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path, make, said):
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(UserError, match=said):
        load_npz(path, ["x"], "mend it")


def test_one_array_where_an_archive_is_expected(tmp_path):
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, np.eye(2))
    with pytest.raises(UserError, match="holds one array, not an .npz archive"):
        load_npz(tmp_path / "a.npz", ["x"], "mend it")


def test_an_npy_with_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match="pickled"):
        load_npy(tmp_path / "a.npy", "mend it")


def test_what_a_dead_process_left_of_a_file_goes_when_it_is_written_again(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive = (tmp_path / f".a.json.{number}.tmp.json" for number in (process.pid, os.getppid()))
    for stray in (dead, alive, tmp_path / ".a.json.x.tmp.json"):
        stray.write_text("half")
    save_json(tmp_path / "a.json", {"a": 1})
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, ".a.json.x.tmp.json", "a.json"])
