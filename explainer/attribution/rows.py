"""The rows f_i of the last hidden layer, from memory or from disk, in blocks of a bounded size.

A source is a tensor, a NumPy array, a memmap, a sparse matrix of SciPy, the path of a .npy file, or a folder of .npy
files (shards) whose rows follow one another in the order of their names, 2.npy before 10.npy. A sparse matrix stays
one: its blocks alone are dense. Under `torchrun` each rank reads its own share of the rows.
"""

import mmap
import re
from bisect import bisect_right
from pathlib import Path

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.checks import array, first_line, number, tensor

MEMORY = 2**28  # bytes that a block and what is calculated from it may need
BLOCK = 2**22  # entries of a block on the CPU, and of what is calculated from it: larger ones leave its caches


class Rows:
    """Rows (n,d), or (n,d+1) with a constant 1 for the head's bias.

    n: rows of this rank, the rows first:first+n of all `total`. D: their width, the constant included. dtype: of the
    blocks, and of the matrix products on them.
    """

    def __init__(self, source, bias=False, dtype=None, device="cpu", memory_limit=MEMORY, whole=False):
        """whole: every rank reads all rows."""
        self.parts, self.starts = _parts(source)
        self.total, width = self.starts[-1], self.parts[0].shape[1]
        if not self.total:
            raise UserError("got 0 rows of features: give at least one")
        kinds = [part.dtype if isinstance(part, torch.Tensor) else _kind(part.dtype) for part in self.parts]
        for kind in kinds:
            if not kind.is_floating_point:
                raise UserError(f"features are {kind}: give float32 or float64")
        kind = torch.float64 if torch.float64 in kinds else kinds[0]
        self.dtype = dtype or (torch.float64 if kind == torch.float64 else torch.float32)
        number("memory_limit", memory_limit, above=0)
        self.bias, self.device, self.memory_limit = bias, torch.device(device), memory_limit
        self.first, last = (0, self.total) if whole else ranks.share(self.total)
        self.n, self.D = last - self.first, width + bias

    def __len__(self):
        return self.n

    @property
    def itemsize(self):
        return torch.empty(0, dtype=self.dtype).element_size()

    def blocks(self, more=0):
        """(slice, block (b,D)) over the rows of this rank. more: entries per row that the caller needs beside them."""
        size = block_size(self, more)
        for start in range(0, self.n, size):
            rows = slice(start, min(start + size, self.n))
            yield rows, self.block(rows)

    def block(self, rows):
        """The rows of a slice of this rank's, (b,D)."""
        return self._finished(self._read(self.first + rows.start, self.first + rows.stop))

    def take(self, indices):
        """Some of this rank's rows, (k,D), in the order of `indices`."""
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1) + self.first
        taken = torch.empty(len(wanted), self.D - self.bias, dtype=self.dtype)
        for part, start, end in zip(self.parts, self.starts, self.starts[1:]):
            inside = np.flatnonzero((wanted >= start) & (wanted < end))
            if len(inside):
                taken[inside] = _torch(part[wanted[inside] - start]).to("cpu", self.dtype)
                if isinstance(part, np.memmap):
                    _let_go(part)
        return self._finished(taken)

    def _finished(self, block):
        block = block.to(self.device, self.dtype)
        return torch.cat([block, block.new_ones(len(block), 1)], 1) if self.bias else block

    def _read(self, start, stop):
        """Rows start:stop of all, copied off the disk."""
        blocks, part = [], bisect_right(self.starts, start) - 1
        while start < stop:
            end = min(stop, self.starts[part + 1])
            piece = self.parts[part][start - self.starts[part] : end - self.starts[part]]
            blocks.append(_torch(piece))
            if isinstance(piece, np.memmap):
                _let_go(self.parts[part])
            start, part = end, part + 1
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def block_size(rows, more):
    """Rows in a block; more: entries per row that are calculated from it."""
    most = max(1, int(rows.memory_limit / (rows.itemsize * (2 * rows.D + more))))
    return most if rows.device.type != "cpu" else min(most, max(256, BLOCK // max(rows.D, more)))


def _natural(path):
    """Names in the order in which people count: 2.npy before 10.npy."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def _torch(piece):
    """Some of a part's rows as a tensor; it may share the memory of an array that can be written."""
    if isinstance(piece, torch.Tensor):
        return piece
    if hasattr(piece, "toarray"):
        return torch.from_numpy(piece.toarray())
    piece = piece if piece.dtype.isnative else piece.astype(piece.dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(piece) if piece.flags.writeable else np.array(piece, order="C"))


def _kind(dtype):
    """The torch dtype of a NumPy one."""
    return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype


def _let_go(mapped):
    """Give the pages of a memmap that have been read back to the system; they would count as this process's memory.

    Not of mode "c", whose pages hold what its owner has written and the file does not.
    """
    inner = getattr(mapped, "_mmap", None)
    if inner is not None and mapped.mode in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        inner.madvise(mmap.MADV_DONTNEED)


def opened(source, name="features"):
    """An array or tensor, a CSR matrix of a sparse one, or the memmap behind the path of a .npy file.

    Raises UserError where it cannot be read, or holds no real numbers.
    """
    if isinstance(source, (str, Path)):
        try:
            source, name = np.load(source, mmap_mode="r", allow_pickle=False), str(source)
        except Exception as error:  # a damaged header can end in nearly any exception of NumPy's parser
            raise UserError(f"cannot read {source} ({first_line(error)}): give a .npy file of numbers") from error
    if hasattr(source, "tocsr") and hasattr(source, "toarray"):
        return _sparse(source, name)
    if isinstance(source, np.memmap) and not source.dtype.isnative and source.dtype.kind in "iuf":
        return source  # its blocks are turned
    if isinstance(source, np.ndarray) and not isinstance(source, np.ma.MaskedArray):
        source = _typed(source, name)
    return array(source, name)


def floating(source, dtype):
    """As `opened`; whole numbers as floats of the torch dtype."""
    source = opened(source)
    if isinstance(source, torch.Tensor):
        return source if source.is_floating_point() else source.to(dtype)
    return source if source.dtype.kind == "f" else source.astype(str(dtype).removeprefix("torch."))


def _sparse(source, name):
    if source.dtype.kind not in "biuf" or source.ndim != 2:
        raise UserError(f"{name}: got a sparse matrix of {source.dtype} {source.shape}; give rows of real numbers")
    source = source.tocsr()
    return source.astype(np.float32) if source.dtype == np.float16 else source


def _typed(source, name):
    """An array of objects that are numbers as float64, one of another package's bfloat16 as float32, or it as it is."""
    if source.dtype.kind == "O":
        try:
            return source.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: got an array of objects ({first_line(error)}); give real numbers") from error
    return source.astype(np.float32) if "float" in source.dtype.name and source.dtype.kind == "V" else source


def numbers(labels):
    """Labels as a tensor of their own, from whatever holds numbers. Raises UserError for what does not."""
    labels = tensor(opened(labels, "labels"), "labels").clone()
    if not labels.ndim:
        raise UserError("got one label: give one for each point, (n,)")
    return labels if labels.is_floating_point() else labels.long()


def _parts(source):
    """The arrays of a source, and where each begins, with the end at last."""
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        paths = sorted(Path(source).glob("*.npy"), key=_natural)
        if not paths:
            raise UserError(f"{source} holds no .npy files: give the folder of the shards")
        parts, names = [opened(path) for path in paths], [path.name for path in paths]
    else:
        parts, names = [opened(source)], ["features"]
    for part, name in zip(parts, names):
        if part.ndim != 2:
            raise UserError(f"{name} has the shape {tuple(part.shape)}: give rows of features, (n, d)")
        if part.shape[1] != parts[0].shape[1]:
            widths = f"{part.shape[1]} features, {names[0]} has {parts[0].shape[1]}"
            raise UserError(f"{name} has {widths}: make every shard of one width")
    return parts, np.cumsum([0, *(part.shape[0] for part in parts)]).tolist()


class Taken:
    """Some of the rows, held in memory, as `Rows` gives them."""

    def __init__(self, rows, indices):
        self.F, self.dtype, self.D = rows.take(indices), rows.dtype, rows.D
        self.memory_limit, self.itemsize, self.device = rows.memory_limit, rows.itemsize, rows.device

    def __len__(self):
        return len(self.F)

    def blocks(self, more=0):
        """As `Rows.blocks`."""
        size = block_size(self, more)
        for start in range(0, len(self.F), size):
            yield slice(start, start + size), self.F[start : start + size]

    def take(self, indices):
        """As `Rows.take`."""
        return self.F[torch.as_tensor(indices)]
