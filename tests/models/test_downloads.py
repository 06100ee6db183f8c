import io
import tarfile

import pytest

from config import UserError
from models.downloads import download, extract


def archive(path, *members):
    """A .tar.gz of (name, content) files; content None makes a symbolic link."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_wanted_files_are_unpacked_and_others_are_not(tmp_path):
    path = archive(tmp_path / "a.tar.gz", ("a/x.txt", b"1"), ("a/y.bin", b"2"), ("a/z.txt", None))
    extract(path, tmp_path / "out", lambda p: p.suffix == ".txt")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["x.txt"]
    assert (tmp_path / "out/a/x.txt").read_bytes() == b"1" and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt"])
def test_a_path_outside_is_refused_and_nothing_is_left(tmp_path, name):
    path = archive(tmp_path / "a.tar.gz", ("a/x.txt", b"1"), (name, b"2"))
    with pytest.raises(UserError, match="names a path outside of itself"):
        extract(path, tmp_path / "out", lambda p: True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def test_damaged_and_empty_archives_are_named(tmp_path):
    path = archive(tmp_path / "a.tar.gz", ("a/x.txt", b"1" * 100000))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot unpack .*a.tar.gz .*delete it"):
        extract(path, tmp_path / "out", lambda p: True)
    archive(path, ("a/x.txt", b"1"))
    with pytest.raises(UserError, match="holds none of the files"):
        extract(path, tmp_path / "out", lambda p: False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_download_is_whole_or_not_there(tmp_path, monkeypatch):
    class Answer(io.BytesIO):
        headers = {"Content-Length": "10"}

    for content in (b"0123456789", b"01234"):
        monkeypatch.setattr("urllib.request.urlopen", lambda url, content=content: Answer(content))
        target = tmp_path / f"{len(content)}.bin"
        if len(content) == 10:
            download("https://example.org/f", target)
            assert target.read_bytes() == content
        else:
            with pytest.raises((OSError, UserError), match="ended after 5 of 10 bytes"):
                download("https://example.org/f", target)
            assert not target.exists() and len(list(tmp_path.iterdir())) == 1
