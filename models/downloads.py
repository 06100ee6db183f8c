"""Files from the net: whole, and what was published, or not there."""

import contextlib
import hashlib
import http.client
import re
import socket
import urllib.request
from pathlib import Path

from tqdm import tqdm

from config import UserError, shown
from models.archives import Broken, extract  # noqa: F401 - what is downloaded is unpacked
from models.files import replacing

PATIENCE = 20.0  # seconds without an answer after which a download counts as failed
MOST = 2**30  # bytes of a download
_HUB = re.compile(r"-([0-9a-f]{8,64})\.")  # the checksum in the name of a file of torch's hub


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
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__


def difference(path, known):
    """What tells a file from the published one, None for nothing. known: "md5:...", or another hash of hashlib's."""
    kind, _, expected = known.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    return None if found.startswith(expected) else f"its {kind} is {found}, expected {expected}"


def download(url, path, known=None, most=MOST):
    """Fetch `url` into the file `path`, with a progress bar. known: its published hash, as `difference` takes it.

    Leaves nothing behind where it raises: OSError where the file cannot be had whole, is not what was published or has
    more than `most` bytes, UserError where it cannot be written.
    """
    made = [folder for folder in Path(path).parents if not folder.exists()]
    try:
        with patience(), urllib.request.urlopen(url) as source, replacing(path) as temporary:
            if url.startswith("https:") and not getattr(source, "url", url).startswith("https:"):
                raise Broken(f"it leads to {source.url}, which is not encrypted")
            _fetch(source, temporary, Path(path).name, most)
            other = known and difference(temporary, known)
            if other:
                raise Broken(f"it is not the published file: {other}")
    except UserError:
        _removed(made)
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        _removed(made)
        raise OSError(f"{url}: {reason(error)}") from error


def _removed(folders):
    for folder in folders:
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


def _fetch(source, path, name, most):
    """Write what comes from an opened address, and no more than it may be. Raises Broken."""
    size = int(source.headers.get("Content-Length") or 0)
    with open(path, "wb") as file, tqdm(total=size or None, unit="B", unit_scale=True, desc=name, disable=None) as bar:
        while file.tell() <= most >= size and (block := _read(source)):
            file.write(block)
            bar.update(len(block))
        if max(file.tell(), size) > most:
            raise Broken(f"it has more than {most:,} bytes")
        if size and file.tell() != size:
            raise Broken(f"it ended after {file.tell()} of {size} bytes")


def _read(source):
    try:
        return source.read(2**20)
    except OSError as error:  # so that it is not taken for one of writing
        raise Broken(reason(error)) from error


def hub_state(url, seconds=PATIENCE):
    """The state dict at an address whose name ends in its checksum, from torch's cache or downloaded into it.

    Only tensors are built. Raises UserError where the file of the cache is another one than its name says; what torch
    raises where there is none and it cannot be downloaded.
    """
    import torch  # here, so that who downloads no weights starts fast

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.exists():
        try:
            other = difference(path, f"sha256:{_HUB.search(path.name)[1]}")
        except OSError as error:
            other = error.strerror or str(error)
        if other:
            raise UserError(f"{shown(path)} is not {url} ({other}): delete it, so that it is fetched again")
    settings = {"map_location": "cpu", "progress": False}
    with patience(seconds):
        return torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True, **settings)
