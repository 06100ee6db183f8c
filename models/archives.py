"""Archives, read to their very end, where their checksums are, and never further than a size that is said before.

Nothing of an archive is moved in before all of it has been read: a gzip file has its checksum after its content, a zip
file one for each member. Sizes count what comes out, not what an archive says of itself.
"""

import contextlib
import gzip
import shutil
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath

from config import UserError, shown
from models.files import replacing

PIECE = 2**20  # bytes that are read at once
HEADER = 2**24  # bytes that tarfile may ask for at once; a header's size is what the archive says
MOST = 2**31  # bytes that an archive may hold
MEMBERS = 10**6  # files, folders and links of an archive
AGAIN = "delete it, so that it is fetched again"


class Broken(ValueError):
    """An archive that cannot be read to its end, or holds more than it may."""


def gunzipped(source, most=MOST):
    """The content (bytes) of a gzip file, given by its path or opened. Raises Broken."""
    with _gzip(source) as file:
        reader = Reader(file, most)
        return b"".join(iter(lambda: reader.read(PIECE), b""))


@contextlib.contextmanager
def _gzip(source):
    try:
        file = gzip.open(source)
    except OSError as error:
        raise Broken(error.strerror or str(error)) from error
    with file:
        yield file


class Reader:
    """A gzip file's content from its beginning to its end, as tarfile reads it. Raises Broken."""

    def __init__(self, file, most):
        self.file, self.most, self.at, self.last = file, most, 0, b""

    def tell(self):
        return self.at

    def read(self, size):
        if size > HEADER:
            raise Broken(f"a header announces {size:,} bytes")
        try:
            self.last = self.file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise Broken(" ".join(str(error).split())) from error
        self.at += len(self.last)
        if self.at > self.most:
            raise Broken(f"it holds more than {self.most:,} bytes")
        return self.last

    def seek(self, place):
        if place < self.at:
            raise Broken("a header points back")
        while self.at < place and self.read(min(PIECE, place - self.at)):
            pass

    def finish(self):
        """Read on to the checksum, after the last member of a tar archive."""
        if self.last.strip(b"\0"):
            raise Broken("a header is damaged")
        while self.read(PIECE):
            if self.last.strip(b"\0"):
                raise Broken("something else follows the archive")


def extract(archive, folder, wanted, root=None, most=MOST, check=None):
    """Unpack the files of a .tar.gz for whose path `wanted` holds into `folder`, which appears when all are there.

    wanted(path): path is a PurePosixPath relative to the archive's root. root: the archive's folder that becomes
    `folder`; None: all of it. check(folder): called before it appears; raises UserError where something is missing.
    Raises UserError, and leaves nothing behind, where the archive is damaged, holds none of them or more than `most`
    bytes, or names a path outside of itself.
    """
    temporary = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _gzip(archive) as file:
            reader = Reader(file, most)
            with tarfile.open(fileobj=reader, mode="r:") as tar:
                found = sum(_unpacked(tar, member, temporary, wanted, most) for member in _members(tar, archive))
            reader.finish()
        ready = temporary if root is None else temporary / root
        if not found or not ready.is_dir():
            raise UserError(f"{shown(archive)} holds none of the files that it should: delete it")
        if check is not None:
            check(ready)
        ready.rename(folder)
    except UserError:
        raise
    except OSError as error:  # of writing: what is read raises Broken
        why = error.strerror or error
        raise UserError(f"cannot write {shown(folder)}: {why}; free the folder or choose another one") from error
    except Exception as error:  # of a damaged header nearly any
        raise UserError(f"cannot unpack {shown(archive)} ({' '.join(str(error).split())}): {AGAIN}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(tar, archive):
    """The members, none of which lies outside of the archive."""
    for _ in range(MEMBERS):
        member = tar.next()
        if member is None:
            return
        tar.members.clear()  # it would keep all of them
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{shown(archive)} names a path outside of itself, {member.name}: delete the archive")
        yield member
    raise Broken(f"it has more than {MEMBERS:,} members")


def _unpacked(tar, member, folder, wanted, most):
    """Write a member that is wanted, and say whether it is. A link is no file."""
    path = PurePosixPath(member.name)
    if not (member.isreg() and wanted(path)):
        return False
    if member.issparse() or member.size > most:
        raise Broken(f"{member.name} has {member.size:,} bytes, or holes")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with tar.extractfile(member) as source, open(target, "wb") as file:
        while block := source.read(PIECE):
            file.write(block)
        if file.tell() != member.size:
            raise Broken(f"{member.name} ends early")
    return True


def unzip(archive, name, path, most=MOST):
    """Write the member `name` of a zip file to `path`, which appears when its checksum is right. Raises Broken."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            size = zipped.getinfo(name).file_size
            if size > most:
                raise Broken(f"{name} has {size:,} bytes, more than {most:,}")
            with zipped.open(name) as source, replacing(path) as temporary, open(temporary, "wb") as file:
                while block := source.read(PIECE):
                    file.write(block)
                if file.tell() != size:
                    raise Broken(f"{name} ends early")
    except UserError:
        raise
    except Exception as error:  # of a damaged directory nearly any
        raise Broken(" ".join(str(error).split()) or type(error).__name__) from error
