"""Archives that are damaged, and such as unpack to more than they may."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from config import UserError
from explainer.decomposition import mnist
from models.archives import Broken, extract, gunzipped, unzip
from models.CDEP.text import phrases
from models.downloads import difference, download


def packed(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_every_flipped_bit_of_an_archive_is_refused(tmp_path):
    text = np.random.default_rng(0).integers(97, 123, 3000, np.uint8).tobytes()
    whole = packed(tmp_path / "a.tar.gz", {f"a/{i}.txt": text[i:] for i in range(3)}).read_bytes()
    for at in range(16, len(whole), len(whole) // 60):  # before that are the time and the name, of no meaning
        content = bytearray(whole)
        content[at] ^= 1 << at % 8
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match="cannot unpack .*: delete it"):
            extract(tmp_path / "a.tar.gz", tmp_path / "out", lambda path: True)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_archives_that_hold_too_much_are_refused(tmp_path):
    path = packed(tmp_path / "a.tar.gz", {"a/x.txt": bytes(10**6)})
    for most in (10**5, 10**6):
        with pytest.raises(UserError, match="cannot unpack .*(it holds more than|has 1,000,000 bytes)"):
            extract(path, tmp_path / "out", lambda path: True, most=most)
    with pytest.raises(Broken, match="it holds more than 100 bytes"):
        gunzipped(path, 100)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("x.txt", bytes(10**6))
    with pytest.raises(Broken, match="x.txt has 1,000,000 bytes, more than 100"):
        unzip(tmp_path / "a.zip", "x.txt", tmp_path / "x.txt", 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.zip"]


def test_a_header_that_announces_much_takes_no_memory(tmp_path):
    member = tarfile.TarInfo("long")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(UserError, match="a header announces 8,589,934,592 bytes"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out", lambda path: True)


def test_what_is_not_whole_does_not_appear(tmp_path):
    def incomplete(folder):
        raise UserError(f"{len(list(folder.iterdir()))} of 2: get it again")

    path = packed(tmp_path / "a.tar.gz", {"a/x.txt": b"1"})
    with pytest.raises(UserError, match="1 of 2"):
        extract(path, tmp_path / "out", lambda path: True, "a", check=incomplete)
    with pytest.raises(UserError, match="holds none of the files"):
        extract(path, tmp_path / "out", lambda path: True, "b")
    extract(path, tmp_path / "out", lambda path: True, "a")
    assert (tmp_path / "out" / "x.txt").read_bytes() == b"1"


@pytest.mark.parametrize(("known", "most"), [("md5:00", 100), (None, 5)])
def test_a_download_that_is_another_or_too_large_is_refused(tmp_path, monkeypatch, known, most):
    class Answer(io.BytesIO):
        headers = {}

    monkeypatch.setattr("urllib.request.urlopen", lambda url: Answer(b"0123456789"))
    with pytest.raises(OSError, match="https://example.org/f: it (is not the published file: its md5|has more than 5)"):
        download("https://example.org/f", tmp_path / "new" / "f", known, most)
    assert not list(tmp_path.iterdir())
    download("https://example.org/f", tmp_path / "f", "md5:781e5e245d69b566979b86e28d23f2c7", 10)
    assert difference(tmp_path / "f", "sha256:00").startswith("its sha256 is 84d89877")


def test_a_download_that_leaves_encryption_is_refused(tmp_path, monkeypatch):
    class Answer(io.BytesIO):
        headers, url = {}, "http://example.org/f"

    monkeypatch.setattr("urllib.request.urlopen", lambda url: Answer(b"0"))
    with pytest.raises(OSError, match="leads to http://example.org/f, which is not encrypted"):
        download("https://example.org/f", tmp_path / "f")


@pytest.mark.parametrize("end", ["", ".gz"])
def test_other_files_than_mnists_are_refused(tmp_path, end):
    (tmp_path / "mnist").mkdir()
    for name, shape in (("t10k-images-idx3-ubyte", (10000, 28, 28)), ("t10k-labels-idx1-ubyte", (10000,))):
        head = np.array([len(shape), *shape], ">i4").tobytes()
        content = b"\0\0\x08" + head[3:] + bytes(int(np.prod(shape)))
        (tmp_path / "mnist" / f"{name}{end}").write_bytes(gzip.compress(content) if end else content)
    with pytest.raises(UserError, match="is not MNIST's file .its sha256 is .*: get it again"):
        mnist.read(tmp_path)
    content = gzip.compress(bytes(2**25)) if end else bytes(2**25)
    (tmp_path / "mnist" / f"t10k-images-idx3-ubyte{end}").write_bytes(content)
    with pytest.raises(UserError, match="is damaged .it (holds|has) more than 16,777,216 bytes"):
        mnist.read(tmp_path)


@pytest.mark.parametrize(
    "line", ["((0 a) (1 b))", "(5 (1 a) (1 b))", "()", "(3 (1 a)", "(-1 a b)", "a) (3 b", "(3 a) )"]
)
def test_lines_that_are_no_trees(tmp_path, line):
    (tmp_path / "train.txt").write_text(line)
    with pytest.raises(UserError, match="holds something else than labelled trees"):
        phrases(tmp_path / "train.txt")
