"""Loaders under several ranks: those that are a rank's share of a data set, and ranks that must read the same."""

import hashlib

import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.positions import Part

SAME = 1e-3  # of a row's length, by which the ranks' features may differ
ADVICE = "give every rank the same loader, or one with a DistributedSampler that does not shuffle"


def sharded(indices, n, device="cpu"):
    """Whether the ranks' loaders are shares of a data set of n points; indices: what `check_order` says, or None.

    Raises UserError on every rank where some are and some are not, or where they leave points out.
    """
    if ranks.size() == 1:
        return False
    kinds = ranks.gathered(torch.tensor([indices is not None], dtype=torch.int32, device=device))
    if not kinds.any():
        return False
    if not kinds.all():
        raise UserError(f"the loaders of some ranks are shares and those of others whole: {ADVICE}")
    lengths = ranks.gathered(torch.tensor([n], device=device))
    if len(set(lengths.tolist())) > 1:
        raise UserError(f"the ranks have data sets of {sorted(set(lengths.tolist()))} points: {ADVICE}")
    held = set(ranks.gathered(torch.tensor(indices, dtype=torch.long, device=device)).tolist())
    if held != set(range(n)):
        missing = min(set(range(n)) - held, default=max(held))
        raise UserError(f"the loaders of all ranks leave out point {missing} of {n}: {ADVICE}")
    return True


def merged(part, indices, device="cpu"):
    """The `Part` of all ranks in the order of the data set, each point once. indices: of this rank's points there."""
    _alike(part, device)
    local = torch.arange(len(indices)) if part.groups is None else part.groups
    indices = torch.tensor(indices)
    first = torch.tensor([k == 0 for k in _repeats(indices.tolist())])
    kept = first[local]
    own = indices[local][kept].to(device)
    features = ranks.gathered(part.features[kept.to(part.features.device)].to(device))
    labels = None if part.labels is None else ranks.gathered(part.labels[kept].to(device)).cpu()
    owner = ranks.gathered(torch.full_like(own, ranks.rank())).cpu()
    point = ranks.gathered(own).cpu()
    lowest = torch.full((int(point.max()) + 1,), ranks.size()).scatter_reduce(0, point, owner, "amin")
    rows = torch.nonzero(owner == lowest[point]).reshape(-1)
    rows = rows[torch.argsort(point[rows], stable=True)]
    labels = None if labels is None else labels[rows]
    return Part(features[rows.to(device)], labels, None if part.groups is None else point[rows])


def _alike(part, device):
    """Raise UserError, on every rank, unless the parts of all have the same columns and types."""
    kind = f"{part.features.shape[1]} features"
    kind += " without labels" if part.labels is None else f", labels {part.labels.dtype} {tuple(part.labels.shape[1:])}"
    kind += "" if part.groups is None else ", several rows for each point"
    kinds = ranks.told(kind, device)
    if len(set(kinds)) > 1:
        raise UserError(f"the ranks read different data, {' and '.join(sorted(set(kinds)))}: {ADVICE}")


def _repeats(values):
    """How often each value was there before."""
    seen = {}
    for value in values:
        seen[value] = seen.get(value, -1) + 1
        yield seen[value]


def agree(part, device="cpu"):
    """Raise UserError, on every rank, unless all have read the same labels and rows of features, in the same order."""
    if ranks.size() == 1:
        return
    _alike(part, device)
    F = part.features
    n = len(F)
    every = ranks.gathered(torch.tensor([n], device=device)).tolist()
    if len(set(every)) > 1:
        raise UserError(f"the ranks read different data, {every} points: {ADVICE}")
    with torch.no_grad():
        direction = torch.cos(torch.arange(1, F.shape[1] + 1, device=F.device, dtype=torch.float64))
        seen = torch.cat([F.double() @ direction, F.double().norm(dim=1)])[None].to(device)
    seen = ranks.gathered(seen.nan_to_num(1e30, 1e30, -1e30))
    other = (seen[:, :n] - seen[0, :n]).abs() > SAME * (seen[:, n:] + seen[0, n:])
    if other.any():
        rank, row = (int(i) for i in other.nonzero()[0])
        raise UserError(f"the ranks read different data, from row {row} on rank {rank} on: {ADVICE}")
    digest = hashlib.sha256(b"" if part.labels is None else part.labels.cpu().double().numpy().tobytes())
    number = torch.tensor([int.from_bytes(digest.digest()[:7], "big")], device=device)
    if len(set(ranks.gathered(number).tolist())) > 1:
        raise UserError(f"the ranks read different labels: {ADVICE}")
