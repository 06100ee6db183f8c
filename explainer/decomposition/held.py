"""Constant tensors that a forward writes activations to, as in out[:, 0] = h: they have parts from then on."""

import torch
from torch.overrides import TorchFunctionMode

from explainer.decomposition import views


class Held(TorchFunctionMode):
    """Of one pass: a Split for each such tensor, which torch's functions are given in its place.

    The mode is entered with the first of them, so that a pass without any does not pay for it.
    """

    def __init__(self, rules):
        super().__init__()
        self.rules, self.known, self.entered = rules, {}, False

    def close(self):
        if self.entered:
            self.__exit__(None, None, None)
        self.known, self.entered = {}, False

    def find(self, tensor):
        """The Split of a tensor, or None."""
        if id(tensor) in self.known:
            return self.known[id(tensor)][1]
        base = tensor._base
        if base is None or id(base) not in self.known:
            base = self._alias(tensor)
        if base is None:
            return None
        size, stride, offset = tensor.shape, tensor.stride(), tensor.storage_offset() - base.storage_offset()
        root = self.known[id(base)][1]
        found = root.like(*(part.as_strided(size, stride, offset) for part in (root.b, root.g, views.full(root))))
        views.linked(found, root, torch.as_strided, (size, stride, offset), {})
        return self._keep(tensor, found)

    def _alias(self, tensor):
        """The known tensor whose memory this one shares without being its view, as detach() and .data do; or None."""
        place = tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided and self.known else 0
        own = (t for t, _ in self.known.values() if t._base is None)
        return next((t for t in own if t.untyped_storage().data_ptr() == place), None) if place else None

    def parted(self, tensor, source):
        """The Split of a tensor that an activation, `source`, is written to."""
        found = self.find(tensor)
        if found is None:
            base = tensor if tensor._base is None else tensor._base
            self._keep(base, self._split(base, source))
            found = self.find(tensor)
        return found

    def _split(self, tensor, source):
        """What the tensor holds is shared out as a constant, by the share of the rows that are written."""
        from explainer.decomposition.split import UnsupportedOp

        if not tensor.is_floating_point():
            raise UnsupportedOp(f"the model writes an activation to a tensor of {tensor.dtype}: give it one of floats")
        rows = source.w.shape[0] if source.w.ndim else 1
        shares = source.w.reshape(rows, -1).mean(1)
        place = next((d for d, size in enumerate(tensor.shape) if size == rows), None)
        if place is None and not shares.eq(shares[:1]).all():
            raise UnsupportedOp(
                f"the model writes an activation of {rows} rows to a tensor {tuple(tensor.shape)}: give it one that "
                "has a row for each input, as x.new_zeros(len(x), ...)"
            )
        w = shares.mean().detach() if place is None else shares.reshape(-1, *[1] * (tensor.ndim - place - 1))
        zero, w = torch.zeros_like(tensor), w.to(tensor.dtype).expand(tensor.shape)
        return self.rules.bias(source.like(zero, zero, w), tensor)

    def _keep(self, tensor, found):
        self.known[id(tensor)] = tensor, found  # the tensor, so that no other takes its id
        return found

    def begin(self):
        """Enter the mode if there is such a tensor: after the operation that wrote to it."""
        if self.known and not self.entered:
            self.__enter__()
            self.entered = True

    def swapped(self, value):
        """Arguments with the Splits of such tensors in their place."""
        if isinstance(value, torch.Tensor):
            found = self.find(value)
            return value if found is None else found
        if type(value) in (tuple, list):
            return type(value)(self.swapped(item) for item in value)
        if type(value) is dict:
            return {key: self.swapped(item) for key, item in value.items()}
        return value

    def __torch_function__(self, function, types, args=(), kwargs=None):
        from explainer.decomposition.split import dispatch, splits

        args, kwargs = self.swapped(args), self.swapped(kwargs or {})
        if next(splits((args, kwargs)), None) is None:
            return function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        if name == "__get__":
            return getattr(args[0], function.__self__.__name__)
        if name == "__len__":
            return len(args[0])
        return dispatch(function, args, kwargs)


def written(out, found):
    """The result of an operation that was told where to write it."""
    target = found.rules.held.parted(out, found) if isinstance(out, torch.Tensor) else out
    found = target.become(found)
    found.rules.held.begin()
    return found
