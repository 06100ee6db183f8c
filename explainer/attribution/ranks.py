"""One process or many: each rank holds its own rows, and these sums and gatherings make them one.

Under `torchrun`, after `torch.distributed.init_process_group` (see `begin`), the functions speak with the other ranks;
otherwise there is one rank, 0, and they return what they are given.
"""

import contextlib
import hashlib
import os
from datetime import timedelta

import torch
import torch.distributed as dist

from config import UserError
from explainer.attribution.checks import first_line

LONGEST_WAIT = timedelta(hours=12)  # for the rank that fills a cache; torchrun ends all where one has died


def begin(device="cpu"):
    """Join the other ranks where `torchrun` started this process; a context that leaves them at its end.

    Raises UserError where the environment says no number of ranks.
    """
    ranks = os.environ.get("WORLD_SIZE", "1")
    if not (ranks.isascii() and ranks.isdigit() and int(ranks)):
        raise UserError(f"WORLD_SIZE is {ranks!r}: start the command by torchrun, or unset it")
    if int(ranks) == 1 or dist.is_initialized():
        return contextlib.nullcontext()
    backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    return contextlib.closing(_Group())


class _Group:
    def close(self):
        dist.destroy_process_group()


def size():
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank():
    """The number of this one."""
    return dist.get_rank() if size() > 1 else 0


def place():
    """The device that the ranks speak with each other from."""
    return "cuda" if size() > 1 and dist.get_backend() == "nccl" else "cpu"


def share(n):
    """The rows of n that this rank holds: (first, last), contiguous, in the order of the ranks."""
    return n * rank() // size(), n * (rank() + 1) // size()


def total(tensor):
    """The sum of a tensor over all ranks, in place."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def gathered(tensor):
    """The tensors of all ranks, one after the other along the first dimension; the lengths of it may differ."""
    if size() == 1:
        return tensor
    lengths = torch.zeros(size(), dtype=torch.long, device=tensor.device)
    lengths[rank()] = len(tensor)
    total(lengths)
    padded = tensor.new_zeros(int(lengths.max()), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths.tolist())])


def told(text, device="cpu"):
    """What every rank says, strings in the order of the ranks."""
    if size() == 1:
        return [text]
    content = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
    lengths = gathered(torch.tensor([len(content)], device=device)).tolist()
    parts = gathered(content).split(lengths)
    return [bytes(part.tolist()).decode() for part in parts]


def every(work, device="cpu"):
    """What work() returns on this rank, once it has succeeded on all; it must not speak with the other ranks.

    Raises UserError on every rank where one has failed, so that none waits for it.
    """
    if size() == 1:
        return work()
    found = error = None
    try:
        found = work()
    except Exception as failed:  # told to the others first
        error = failed
    messages = told("" if error is None else first_line(error), device)
    if error is not None:
        raise error
    for number, message in enumerate(messages):
        if message:
            raise UserError(f"rank {number} could not do its part: {message}")
    return found


def first_alone(work, device="cpu"):
    """What work() returns on this rank; the first rank has done it before the others begin, as they may read its files.

    Raises UserError on the others where one has failed.
    """
    if size() == 1:
        return work()
    failed = torch.full((1,), rank() == 0, dtype=torch.int32, device=device)
    try:
        found = work() if rank() == 0 else None
        failed.zero_()
    finally:
        total(failed)
    if failed.any():
        raise UserError("the first rank could not do its part: see its message")
    return every(lambda: found if rank() == 0 else work(), device)


def agree(what, device="cpu"):
    """Raise UserError unless every rank says the same, a string such as the settings."""
    number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")
    every = gathered(torch.tensor([number], device=device))
    if len(set(every.tolist())) > 1:
        raise UserError(f"the ranks disagree: rank {rank()} has {what}; give every rank the same model and arguments")
