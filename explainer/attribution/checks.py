"""What is given to the library, as numbers and arrays; what cannot be is a UserError, a ValueError of one line."""

import math
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch

from config import UserError


def number(name, value, least=-math.inf, above=-math.inf, most=math.inf, below=math.inf, whole=False):
    """Raise UserError unless `value` is a finite (whole) number within bounds, `least` and `most` included."""
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)
    if fits and value >= least and value > above and value <= most and value < below:
        return
    lower = f" from {least}" if least > -math.inf else f" above {above}" if above > -math.inf else ""
    upper = f" to {most}" if most < math.inf else f" to below {below}" if below < math.inf else ""
    upper = upper or (" up" if least > -math.inf else "")
    raise UserError(f"{name} is {value!r}: give a {'whole ' if whole else ''}number{lower}{upper}")


def flag(name, value):
    """Raise UserError unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise UserError(f"{name} is {value!r}: give True or False")


def settings(name, value):
    """A dictionary of settings, empty for None. Raises UserError for anything else."""
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{name} is {value!r}: give a dictionary")
    return dict(value or {})


def path(name, value):
    """A path, or None. Raises UserError for anything else, the empty string included."""
    if value is not None and (not isinstance(value, (str, os.PathLike)) or not str(value)):
        raise UserError(f"{name} is {value!r}: give a path")
    return None if value is None else Path(value)


def array(source, name):
    """A tensor or NumPy array of what holds real numbers, a memmap left on the disk. Raises UserError for others."""
    if isinstance(source, torch.Tensor) and source.layout == torch.strided and not source.is_complex():
        return source.detach()
    if isinstance(source, torch.Tensor) or hasattr(source, "toarray"):
        what = "complex numbers" if getattr(source, "dtype", None) in (torch.complex64, torch.complex128) else "sparse"
        raise UserError(f"{name}: got {type(source).__name__}, {what}; give an array, such as its .toarray()")
    try:
        found = np.asanyarray(source)
    except ValueError as error:  # rows of different lengths
        raise UserError(f"{name}: got {type(source).__name__} of parts that differ in shape; give an array") from error
    if isinstance(found, np.ma.MaskedArray):
        raise UserError(f"{name}: got a masked array; fill or leave out what is masked")
    if not found.dtype.isnative and not isinstance(found, np.memmap):
        found = found.astype(found.dtype.newbyteorder("="))
    try:
        complex_numbers = torch.from_numpy(np.empty(0, found.dtype)).is_complex()
    except (TypeError, ValueError):
        complex_numbers = True
    if complex_numbers:
        raise UserError(f"{name}: got {type(source).__name__} of {found.dtype}; give real numbers torch can hold")
    return found


def tensor(source, name):
    """A tensor, which may share the memory of an array. Raises UserError as `array`."""
    found = array(source, name)
    if isinstance(found, torch.Tensor):
        return found
    backwards = any(stride < 0 for stride in found.strides)
    return torch.from_numpy(found if found.flags.writeable and not backwards else np.array(found, order="C"))


def first_line(error):
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
