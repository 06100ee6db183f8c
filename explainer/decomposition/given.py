"""What a model is given: several inputs and keyword arguments, one of which the masks are over."""

import torch

from config import UserError
from explainer.decomposition import passes
from explainer.decomposition.scores import allowed, logits_of


class Given:
    """The arguments of a model. x: a tensor, or a tuple of inputs; kwargs: by keyword; masked: the place of the input
    that the masks are over, or its name. Tensors with a row for each input are taken row by row; the rest as it is."""

    def __init__(self, x, kwargs=None, masked=0):
        self.args = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        self.kwargs, self.masked = dict(kwargs or {}), masked
        if isinstance(x, list) and not all(isinstance(v, torch.Tensor) for v in x):
            raise UserError("the inputs are a list: give a tensor, torch.as_tensor(...), or a tuple of inputs")
        places = self.kwargs if isinstance(masked, str) else range(len(self.args))
        if masked not in places:
            raise UserError(f"masked is {masked!r}: give one of {', '.join(map(repr, places))}")

    @property
    def x(self):
        """The input that the masks are over."""
        return self.kwargs[self.masked] if isinstance(self.masked, str) else self.args[self.masked]

    def rows(self, rows, x):
        """(args, kwargs) of some rows of the inputs, with x (R,...) in the masked input's place."""
        N = len(self.x)
        args, kwargs = _rows(self.args, rows, N), _rows(self.kwargs, rows, N)
        if isinstance(self.masked, str):
            return args, {**kwargs, self.masked: x}
        return (*args[: self.masked], x, *args[self.masked + 1 :]), kwargs


def _rows(value, rows, N):
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)] if value.ndim and len(value) == N else value
    if type(value) in (tuple, list):
        return type(value)(_rows(item, rows, N) for item in value)
    return {key: _rows(item, rows, N) for key, item in value.items()} if isinstance(value, dict) else value


@torch.no_grad()
def check_rows(model, given, read, logits, tol, precision):
    """Raise UserError where the output for an input depends on the inputs beside it, which masks would mix.

    The first input is put among changed copies of itself. read, tol, precision: as for `cd` and `check_sum`.
    """
    x = given.x[:1].detach()
    changed = x.flip(-1) * 0.5 + 0.25 * x.roll(1, -1) if x.is_floating_point() else x.flip(-1)
    args, kwargs = given.rows(torch.zeros(4, dtype=torch.long), torch.cat([changed, x, changed, changed]))
    with passes.unfused():
        found = logits_of(passes.called(model, args, kwargs), model, read, 4)
    difference = float((found[1] - logits[0]).abs().amax())
    if not difference <= allowed(logits, tol, precision):
        raise UserError(
            f"the output for an input changes by {difference:.2g} with the inputs beside it: the model mixes the rows "
            "of a batch; give one whose rows do not depend on one another"
        )
