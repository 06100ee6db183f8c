"""What contextual decomposition returns, and the checks of what it is given and of what it found."""

from typing import NamedTuple

import torch
from torch import Tensor

from config import UserError

TOLERANCES = {
    torch.float32: 1e-3,
    torch.float64: 1e-8,
    torch.float16: 5e-2,
    torch.bfloat16: 0.1,
}  # of the sum of both parts, against the largest logit


class Scores(NamedTuple):
    """rel (N,Q,K): what the masked part of each input adds to each logit, the score of the mask; irrel (N,Q,K): what
    all the rest does; logits (N,K): their sum, the model's output."""

    rel: Tensor
    irrel: Tensor
    logits: Tensor


def logits_of(output, model, read=None, rows=None):
    """The output (rows,K) as a tensor or Split. Raises UserError for outputs that are not logits of rows.

    read: a function that finds the logits in the output; else it is the output, its attribute .logits, or its item
    "logits". rows: how many there must be.
    """
    if read is not None:
        output = read(output)
    elif isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    else:
        output = getattr(output, "logits", output)
    if not hasattr(output, "ndim") or output.ndim not in (1, 2):
        shape = tuple(output.shape) if hasattr(output, "shape") else type(output).__name__
        raise UserError(
            f"{type(model).__name__} gives {shape}: it must give logits, (rows,) or (rows, classes); say where they "
            "are by logits=lambda output: ..."
        )
    if rows is not None and len(output) != rows:
        raise UserError(f"{type(model).__name__} gives {tuple(output.shape)} for {rows} rows: it must keep them")
    return output if output.ndim == 2 else output.unsqueeze(1)


def check_inputs(x, name="inputs"):
    """The inputs as they are. Raises UserError unless they are a tensor of finite numbers, a row for each input."""
    if not isinstance(x, torch.Tensor):
        raise UserError(f"the {name} are a {type(x).__name__}: give a tensor, torch.as_tensor(...)")
    if x.ndim < 2 or not len(x) or not x.numel():
        raise UserError(
            f"the {name} are {tuple(x.shape)}: give a tensor with one row at least, and a row for each input"
        )
    if x.is_floating_point() and not torch.isfinite(x.detach()).all():
        raise UserError(f"the {name} hold nan or infinite numbers: replace them")
    return x


def allowed(logits, tol, precision):
    """How far two ways to the same logits may differ; tol, precision: as for `check_sum`."""
    tol = max(TOLERANCES.get(kind, 0.0) for kind in (logits.dtype, precision)) if tol is None else tol
    return tol * max(1.0, float(logits.detach().abs().amax()))


def check_sum(rel, irrel, logits, tol, precision):
    """Raise UserError unless relevant + irrelevant is the model's output; tol: of TOLERANCES where it is None.

    precision: the model's, which may be lower than that of its output.
    """
    difference = float((rel + irrel - logits[:, None]).detach().abs().amax())
    if not difference <= allowed(logits, tol, precision):
        raise UserError(
            f"relevant + irrelevant differs from the model's output by {difference:.2g}: a rule does not sum to its "
            "operation, or the model's forward changes between calls; find the node with cd_layers, or raise tol"
        )


def check_masks(masks, x, name="masks"):
    """Masks as (N,Q,...) in the input's precision, for inputs x (N,...). Raises UserError for others."""
    try:
        masks = torch.as_tensor(masks)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} are a {type(masks).__name__}: give a tensor or array of 0 to 1") from error
    if masks.is_complex():
        raise UserError(f"{name} are complex: give 0 to 1")
    masks, inside = masks.to(x.device), x.shape[1:]
    shape = tuple(masks.shape)
    if masks.dtype != torch.bool and not ((masks >= 0) & (masks <= 1)).all():
        raise UserError(f"{name} hold {float(masks.min()):g} to {float(masks.max()):g}: give 0 to 1")
    spatial = inside[1:] if len(inside) > 1 else inside
    if shape[1:] == spatial:  # (Q,H,W) or (Q,F), the same for every input
        masks = masks[None]
    elif len(shape) < 3 or shape[0] not in (1, len(x)) or shape[2:] not in (spatial, inside):
        over = ", ".join(map(str, spatial))
        raise UserError(
            f"{name} have the shape {shape}: give (Q, {over}) or (N, Q, {over}) for inputs {tuple(x.shape)}"
        )
    if not masks.shape[1]:
        raise UserError(f"{name} are none: give one at least")
    if masks.ndim == x.ndim:  # no channels
        masks = masks.unsqueeze(2) if len(inside) > 1 else masks
    return masks.to(x.dtype).expand(len(x), *masks.shape[1:])
