"""What is given to the library, as numbers and arrays; what cannot be is a UserError, a ValueError of one line."""

import math
from numbers import Integral, Real

import numpy as np
import torch

from config import UserError


def number(name, value, least=None, above=None, most=math.inf, below=math.inf, whole=False):
    """Raise UserError unless `value` is a finite (whole) number, `least` or more (more than `above`), within bounds."""
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)
    if fits and (value > above if least is None else value >= least) and value <= most and value < below:
        return
    wanted = f"above {above}" if least is None else f"from {least}"
    wanted += f" to {most}" if most < math.inf else f" to below {below}" if below < math.inf else ""
    wanted += " up" if wanted == f"from {least}" else ""
    raise UserError(f"{name} is {value!r}: give a {'whole ' if whole else ''}number {wanted}")


def array(source, name):
    """A tensor or NumPy array of what holds numbers, a memmap left on the disk. Raises UserError for others."""
    if isinstance(source, torch.Tensor):
        return source.detach()
    if hasattr(source, "toarray"):
        raise UserError(f"{name}: got a sparse matrix; give an array, such as its .toarray()")
    found = np.asanyarray(source)
    if not found.dtype.isnative and not isinstance(found, np.memmap):
        found = found.astype(found.dtype.newbyteorder("="))
    try:
        torch.from_numpy(np.empty(0, found.dtype))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: got {type(source).__name__} of {found.dtype}; give numbers torch can hold") from error
    return found


def tensor(source, name):
    """A tensor, which may share the memory of an array. Raises UserError as `array`."""
    found = array(source, name)
    if isinstance(found, torch.Tensor):
        return found
    return torch.from_numpy(found if found.flags.writeable else np.array(found))
