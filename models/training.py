"""Train a network on data that lie in memory, epoch by epoch, and go on where it was stopped."""

import contextlib
import ctypes
import hashlib
import io
import math
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from config import UserError, seed, shown
from models import checksums
from models.files import save_bytes
from models.states import difference, is_state_of, load_state

# Gradients that vanish over a long review end in denormal numbers, on which a CPU is 10 to 100 times slower. Said here
# because it holds for the threads that are begun later.
torch.set_flush_denormal(True)

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of the paper's SGD
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.0, MOMENTUM, weight_decay=WEIGHT_DECAY),
    "nesterov": lambda p: torch.optim.SGD(p, 0.0, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.0),
    "fused adam": lambda p: torch.optim.Adam(p, 0.0, fused=True),  # one pass over a large vocabulary; rounds otherwise
}


class Schedule(NamedTuple):
    """How a network is trained: `epochs` passes over shuffled batches.

    lr: learning rate, or a function of the share of the training that is done, in [0, 1). optimizer: of OPTIMIZERS.
    lower: the option that a message names where the training diverges; no part of what is trained.
    """

    epochs: int
    lr: float | Callable[[float], float]
    batch_size: int
    optimizer: str = "sgd"
    bfloat16: bool = False
    lower: str = "--lr"


class Batches(Protocol):
    """Training data in memory. device: where.

    One more is optional. parts(rows): a batch's rows in parts whose gradients are added, so that a batch of large
    inputs needs no more memory than others; the loss is a mean over rows.
    """

    device: torch.device

    def rows(self, size: int, generator: torch.Generator) -> list[Tensor]:
        """The batches of one epoch: each row number once, about `size` in each."""

    def batch(self, rows: Tensor, generator: torch.Generator, done: float) -> tuple[tuple, Tensor]:
        """What the network takes for these rows, and their labels. done: the share of the training that is done."""


def fit(
    network, data, loss, schedule, number, *, checkpoint=None, identity="", after_epoch=None, kept=None, progress=None
):
    """Train `network` in place on `data`, a `Batches`; returns it.

    loss(outputs, labels). number: the seed of the batches; each epoch draws from one of its own, so an interrupted
    training goes on as if nothing had happened. checkpoint: file of the training so far, written after each epoch and
    removed by the caller; identity: what else must be the same to go on with it, such as the data's fingerprint.
    after_epoch(network, epoch, kept), from 1; kept: a dictionary of tensors and numbers that is part of the checkpoint,
    and is read from there; its "training" is the fingerprint that what comes of this training carries.
    progress: title of a tqdm bar over the epochs, None for none.
    Raises UserError where the loss is no longer finite, the memory does not suffice, or the checkpoint is another's.
    """
    keep_freed_memory()
    optimizer = OPTIMIZERS[schedule.optimizer](network.parameters())
    known = tuple(None if callable(value) else value for value in schedule[:-1])
    kept = {} if kept is None else kept
    settings = f"{identity} {number} {known}"
    start, before = _resume(checkpoint, settings, network, optimizer, schedule.epochs)
    kept.update(before, training=hashlib.sha256(settings.encode()).hexdigest()[:16])
    generator = torch.Generator()
    shown_as = {"desc": progress, "disable": progress is None, "unit": "epoch", "leave": False}
    bar = tqdm(range(start, schedule.epochs), total=schedule.epochs, initial=start, **shown_as)
    for epoch in bar:
        generator.manual_seed(seed("epoch", number, epoch))
        mean = _epoch(network, data, loss, schedule, epoch, optimizer, generator)
        if not math.isfinite(mean):
            raise UserError(f"the loss is {mean} after epoch {epoch + 1}: give a lower {schedule.lower}")
        if not all(torch.isfinite(p).all() for p in network.parameters()):
            raise UserError(f"parameters are not finite after epoch {epoch + 1}: give a lower {schedule.lower}")
        bar.set_postfix(loss=f"{mean:.4f}")
        if hasattr(data, "parts"):  # inputs of many shapes leave gaps, which add up over the epochs
            return_freed_memory()
        if after_epoch is not None:
            after_epoch(network, epoch + 1, kept)
        if checkpoint is not None:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "kept": kept}
            save_tensors(checkpoint, {**state, "epoch": epoch + 1, "settings": settings}, kept["training"])
    return network


def _epoch(network, data, loss, schedule, epoch, optimizer, generator):
    """One pass over the data; returns the mean loss."""
    batches = data.rows(schedule.batch_size, generator)
    total, n = torch.zeros((), device=data.device), 0
    split = getattr(data, "parts", lambda rows: [rows])
    network.train()
    for step, rows in enumerate(batches):
        done = (epoch * len(batches) + step) / (schedule.epochs * len(batches))
        optimizer.param_groups[0]["lr"] = schedule.lr(done) if callable(schedule.lr) else schedule.lr
        optimizer.zero_grad()
        for part in split(rows):
            with enough_memory(), torch.autocast(data.device.type, torch.bfloat16, enabled=schedule.bfloat16):
                inputs, labels = data.batch(part, generator, done)
                value = loss(network(*inputs).float(), labels)
                (value * (len(part) / len(rows))).backward()
            total += value.detach() * len(part)
        optimizer.step()
        n += len(rows)
    return total.item() / n  # the only time in an epoch that the host waits for the device


_STATE = {"settings": str, "network": dict, "optimizer": dict, "epoch": int, "kept": dict}  # of a checkpoint


def _resume(checkpoint, settings, network, optimizer, epochs):
    """Load what an interrupted training with the same settings has left; returns its epochs and what it kept.

    Raises UserError where it is of other settings, which says what differs as far as that is known.
    """
    if checkpoint is None or not checkpoint.exists():
        return 0, {}
    remedy = "delete it to start this training again"
    state = load_tensors(checkpoint, remedy)
    if not all(isinstance(state.get(name), kind) for name, kind in _STATE.items()):
        raise UserError(f"{shown(checkpoint)} is no training that was stopped: {remedy}")
    if state["settings"] != settings:
        found = difference(state["settings"], settings, Schedule._fields)
        raise UserError(
            f"{shown(checkpoint)} is a training that was stopped, {found}: "
            "run its command to go on, or give --overwrite, or delete that file, to begin anew"
        )
    if not 0 < state["epoch"] <= epochs or not is_state_of(optimizer, state["optimizer"]):
        raise UserError(f"{shown(checkpoint)} is of another training: {remedy}")
    load_state(network, state["network"], checkpoint, remedy)
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"], state["kept"]


def initialized(make, *names):
    """What `make()` builds, its parameters drawn from the seed called `names`; torch's own generator stays as it was.

    One at a time: initializations of trainings side by side would draw from each other's seeds.
    """
    with _INITIALIZING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed("initialization", *names))
        return make()


_INITIALIZING = threading.Lock()


def binary_loss(outputs, labels):
    """Mean binary cross-entropy of logits (b,1) and labels (b,)."""
    return binary_cross_entropy_with_logits(outputs[:, 0], labels)


def out_of_memory(error):
    """Whether an error of torch says that the memory does not suffice, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


@contextlib.contextmanager
def enough_memory(less="give a smaller --batch_size, a smaller --num_of_samples or --device cpu"):
    """Turn running out of memory into a UserError that says what lowers it."""
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise UserError(f"out of memory: {less}") from error
        raise


def keep_freed_memory(keep=True):
    """Let glibc keep the memory of freed tensors for the next ones; False: as it is by default.

    By default it returns blocks of this size to the kernel, which hands them back page by page, filled with zeros:
    a tenth of the time of a training step on the CPU. Does nothing on other systems.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            for option, kept, default in _MALLOC:
                mallopt(option, kept if keep else default)


def return_freed_memory():
    """Give the memory of freed tensors back to the system, once. Does nothing on other systems than glibc's."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


# Of malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, to keep freed memory and as they are by default.
_MALLOC = (-4, 0, 65536), (-1, 2**31 - 1, 2**17), (-2, 2**28, 2**17)


def save_tensors(path, tensors, training=None):
    """Write a dictionary of tensors, numbers and strings as torch.save does: whole, always the same bytes, and with a
    checksum. training: the fingerprint of the training that it belongs to."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    save_bytes(path, checksums.sealed_archive(buffer.getvalue(), training))


def save_network(path, network, training=None):
    """Write the state dict of a network, on the CPU."""
    save_tensors(path, {name: value.cpu().contiguous() for name, value in network.state_dict().items()}, training)


def load_tensors(path, remedy):
    """Read the dictionary that save_tensors wrote, onto the CPU; only tensors and plain values are ever built.

    Raises UserError, ending in `remedy`, where the file is missing, damaged or holds anything else.
    """
    if path.is_dir():
        raise UserError(f"{shown(path)} is a folder: {remedy}")
    try:
        with checksums.content(path) as content:
            if not content.checked:
                _check_archive(path, content.data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a file that it refuses
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path.name} not found in {shown(path.parent)}: {remedy}") from None
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise UserError(f"{shown(path)} is damaged or holds more than tensors: {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{shown(path)} holds a {type(found).__name__}, no tensors by name: {remedy}")
    return found


def _check_archive(path, data):
    """Raise Damaged for a zip archive whose members differ from the checksums of the format, which torch ignores."""
    if bytes(data[:2]) == b"PK":
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None or not checksums.archive_unbroken(data):
                raise checksums.Damaged("a part of it has another checksum")
