"""Train a network on images that lie in memory, and read its last layer off.

Letters: n images, b of them in a batch, d = 64 features, k outputs.
"""

import contextlib
import ctypes
import io
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from config import UserError, seed, shown
from models.files import replacing

MOMENTUM, WEIGHT_DECAY, BATCH_SIZE = 0.9, 5e-4, 128  # of the paper's SGD


class Schedule(NamedTuple):
    """How a network is trained: SGD with momentum, `epochs` passes over shuffled batches.

    lr: learning rate, or a function of the share of the training that is done, in [0, 1).
    """

    epochs: int
    lr: float | Callable[[float], float]
    batch_size: int = BATCH_SIZE
    nesterov: bool = False
    bfloat16: bool = False


def fit(
    network, batch, labels, loss, schedule, number, *, checkpoint=None, identity="", after_epoch=None, progress=None
):
    """Train `network` in place.

    batch(indices (b,), generator, done) -> images (b,3,h,w), done being the share of the training that lies behind;
    labels (n,...) on the network's device; loss(outputs, labels).
    number: the seed of the shuffling and of `batch`; each epoch draws from one of its own, so an interrupted training
    goes on as if nothing had happened. checkpoint: file of the training so far, written after each epoch and removed by
    the caller; identity: what else must be the same to go on with it, such as the images' fingerprint.
    after_epoch(network, epoch), from 1. progress: title of a tqdm bar over the epochs, None for none.
    Raises UserError where the loss is no longer finite or the memory does not suffice.
    """
    keep_freed_memory()
    device, n = labels.device, len(labels)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.0, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=schedule.nesterov
    )
    settings = (
        f"{identity} {number} {schedule._replace(lr=schedule.lr if isinstance(schedule.lr, float) else None)} {n}"
    )
    start = _resume(checkpoint, settings, network, optimizer)
    steps = math.ceil(n / schedule.batch_size)
    generator = torch.Generator()
    shown_as = {"desc": progress, "disable": progress is None, "unit": "epoch", "leave": False}
    bar = tqdm(range(start, schedule.epochs), total=schedule.epochs, initial=start, **shown_as)
    for epoch in bar:
        generator.manual_seed(seed("epoch", number, epoch))
        order = torch.randperm(n, generator=generator).to(device, non_blocking=True)
        total = torch.zeros((), device=device)
        network.train()
        for step in range(steps):
            done = (epoch * steps + step) / (schedule.epochs * steps)
            optimizer.param_groups[0]["lr"] = schedule.lr(done) if callable(schedule.lr) else schedule.lr
            rows = order[step * schedule.batch_size : (step + 1) * schedule.batch_size]
            with _enough_memory(), torch.autocast(device.type, torch.bfloat16, enabled=schedule.bfloat16):
                value = loss(network(batch(rows, generator, done)).float(), labels[rows])
                optimizer.zero_grad()
                value.backward()
            optimizer.step()
            total += value.detach() * len(rows)
        mean = total.item() / n  # the only time in an epoch that the host waits for the device
        if not math.isfinite(mean):
            raise UserError(f"the loss is {mean} after epoch {epoch + 1}: give a lower --lr")
        bar.set_postfix(loss=f"{mean:.4f}")
        if after_epoch is not None:
            after_epoch(network, epoch + 1)
        if checkpoint is not None:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            save_tensors(checkpoint, {**state, "epoch": epoch + 1, "settings": settings})
    return network


def _resume(checkpoint, settings, network, optimizer):
    """Load what an interrupted training with the same settings has left; returns how many epochs that is."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    state = load_tensors(checkpoint, "delete it to start this training again")
    if state.get("settings") != settings:
        return 0
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"]


@torch.inference_mode()
def last_layer(network, images, batch_size=1000):
    """The features (n,d) and outputs (n,k) of images (n,32,32,3), in float32 and evaluation mode, on the CPU."""
    keep_freed_memory()
    network.eval()
    features, outputs = [], []
    for x in images.split(batch_size):
        with _enough_memory():
            f = network.features(as_channels_last(x))
            features.append(f)
            outputs.append(network.fc(f))
    return torch.cat(features).cpu(), torch.cat(outputs).cpu()


def as_channels_last(images: Tensor) -> Tensor:
    """Images (b,32,32,3) as the convolutions read them fastest: (b,3,32,32) over the same memory."""
    return images.permute(0, 3, 1, 2)


@contextlib.contextmanager
def _enough_memory():
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise UserError(
                "out of memory: give a smaller --batch_size, a smaller --num_of_samples or --device cpu"
            ) from error
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


# Of malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, to keep freed memory and as they are by default.
_MALLOC = (-4, 0, 65536), (-1, 2**31 - 1, 2**17), (-2, 2**28, 2**17)


def save_tensors(path, tensors):
    """Write a dictionary of tensors, numbers and strings as torch.save does: whole, and always the same bytes."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_tensors(path, remedy):
    """Read what save_tensors wrote, onto the CPU; only tensors and plain values are ever built.

    Raises UserError, ending in `remedy`, where the file is missing, damaged or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path.name} not found in {shown(path.parent)}: {remedy}") from None
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise UserError(f"{shown(path)} is damaged or holds more than tensors: {remedy}") from error
