"""Files from the net: whole or not there, and archives that cannot write outside their folder."""

import contextlib
import shutil
import socket
import tarfile
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from config import UserError, shown
from models.files import replacing

PATIENCE = 20.0  # seconds without an answer after which a download counts as failed


@contextlib.contextmanager
def patience(seconds=PATIENCE):
    """Give up on a connection that says nothing for so long."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def reason(error):
    """Why something on the net failed, in one line."""
    return " ".join(str(getattr(error, "reason", error)).split())


def download(url, path):
    """Fetch `url` into the file `path`, with a progress bar. Raises OSError where it cannot be had whole."""
    with patience(), urllib.request.urlopen(url) as source, replacing(path) as temporary, open(temporary, "wb") as file:
        size = int(source.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc=Path(path).name, disable=None) as bar:
            while block := source.read(2**20):
                file.write(block)
                bar.update(len(block))
        if size and file.tell() != size:
            raise OSError(f"{url} ended after {file.tell()} of {size} bytes")


def extract(archive, folder, wanted):
    """Unpack the files of a .tar.gz for whose path `wanted` holds into `folder`, which appears when all are there.

    wanted(path): path is a PurePosixPath relative to the archive's root. Raises UserError, and leaves nothing behind,
    where the archive is damaged, holds none of them, or names a path outside of itself.
    """
    temporary = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(temporary, ignore_errors=True)
    found = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(
                        f"{shown(archive)} names a path outside of itself, {member.name}: delete the archive"
                    )
                if not (member.isfile() and wanted(path)):
                    continue  # a link is no file either
                target = temporary / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
                found += 1
        if not found:
            raise UserError(f"{shown(archive)} holds none of the files that it should: delete it")
        temporary.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"cannot unpack {shown(archive)} ({reason(error)}): delete it, so that it is fetched again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
