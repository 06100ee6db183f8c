"""Split: an activation as the sum of a relevant and an irrelevant part, and how torch's operations find their rules.

Every activation is a pair (b, g): b what the masked part of the input has brought about, g all the rest, b + g the
activation itself. A `Split` stands in for a tensor in the model's own forward: torch's functions and methods, called
with one, look up the rule of that name (`explainer.decomposition.registry`).
"""

import torch

from config import UserError
from explainer.decomposition import registry
from explainer.decomposition.held import written
from explainer.decomposition.views import RESHAPED, VIEWS, linked, reshaped, write

# What a tensor says of itself, the same for both parts.
QUERIES = ("size", "dim", "numel", "stride", "is_floating_point", "get_device", "is_contiguous", "element_size")
PROPERTIES = ("shape", "dtype", "device", "ndim", "is_cuda", "is_sparse", "is_quantized", "requires_grad", "layout")


class UnsupportedOp(UserError):
    """An operation that there is no rule for; the message names it and says how to add one."""


class Split:
    """An activation in two parts. b, g: tensors of one shape. rules: the `Rules` of this pass.

    w: the share of the input below an entry that the mask covers, in [0,1], broadcastable to b: 1 everywhere under a
    full mask and 0 under an empty one. A constant is shared out by it where both parts are 0 (`Rules.share`).
    """

    fixed = False  # `Fixed`, which has no parts
    root, steps, views = None, (), ()  # `explainer.decomposition.views`

    def __init__(self, b, g, w, rules):
        self.b, self.g, self.w, self.rules = b, g, w, rules

    @property
    def total(self):
        """b + g, the activation itself."""
        return self.b + self.g

    def like(self, b, g, w=None):
        """Other parts in the same pass; w the same where it is None."""
        return Split(b, g, self.w if w is None else w, self.rules)

    def each(self, function):
        """The parts of a linear function without a constant, which acts on the rows' layout alone."""
        return self.like(function(self.b), function(self.g), function(self.w.expand_as(self.b)))

    def become(self, other):
        """Take the parts of another: what an operation in place does. What shares memory with it changes as well."""
        return write(self, other)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})

    def __getattr__(self, name):
        if name in PROPERTIES:
            return getattr(self.b, name)
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(name)
        if name == "T":
            return dispatch(torch.permute, (self, tuple(range(self.ndim))[::-1]), {})
        if name in ("mT", "H", "mH"):
            return dispatch(torch.transpose, (self, -2, -1), {})
        method = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: dispatch(method, (self, *args), kwargs)

    @property
    def data(self):
        """As of a tensor: the same memory, without a gradient."""
        return dispatch(torch.Tensor.detach, (self,), {})

    @data.setter
    def data(self, value):
        dispatch(torch.Tensor.copy_, (self, value), {})

    def __len__(self):
        return len(self.b)

    def __iter__(self):
        return iter(dispatch(torch.unbind, (self,), {}))

    def _decide(self, *others):
        raise UnsupportedOp("the model's path depends on its activations: contextual decomposition needs a fixed one")

    __bool__ = __float__ = __int__ = _decide
    __hash__ = object.__hash__

    def __repr__(self):
        return f"Split{tuple(self.b.shape)}"


def _operator(name):
    def operate(self, *others):
        return dispatch(getattr(torch.Tensor, name), (self, *others), {})

    operate.__name__ = name
    return operate


for _name in (
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv neg abs pow rpow matmul rmatmul "
    "getitem setitem gt lt ge le eq ne and or invert"
).split():
    setattr(Split, f"__{_name}__", _operator(f"__{_name}__"))


def splits(value):
    """The Splits in arguments: tuples, lists and dictionaries of whatever."""
    if isinstance(value, Split):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from splits(item)
    elif isinstance(value, dict):
        yield from splits(list(value.values()))


def dispatch(function, args, kwargs):
    """What an operation gives for arguments with Splits among them. Raises UnsupportedOp where it has no rule."""
    name = registry.name_of(function)
    some, *others = splits((args, kwargs))
    for part in (some, *others):
        if part.fixed:
            return part.combine(function, name, args, kwargs)
    if name in QUERIES:
        return getattr(some.b, name)(*args[1:], **kwargs)
    rules = some.rules
    kwargs = dict(kwargs)
    out, inplace = kwargs.pop("out", None), kwargs.pop("inplace", False)
    rule, target = registry.function_rule(function), None
    if name == "__setitem__" or (rule is None and (rule := registry.base_of_inplace(name)) is not None):
        target = args[0]
    if rule is None:
        raise UnsupportedOp(
            f"contextual decomposition has no rule for {name}: add one with "
            f'@register_rule("{name}"), see docs/decomposition.md'
        )
    if inplace:
        target = args[0]
    if target is not None and not isinstance(target, Split):
        constant = name in ("add_", "sub_", "mul_") and rules.held.find(target) is None  # as constant + activation
        target = rules.held.parted(target, next(p for p in splits((args[1:], kwargs)) if not p.fixed))
        args = args if constant else (target, *args[1:])
    found = _apply(rule, name, rules, args, kwargs)
    if name in VIEWS and isinstance(args[0], Split):
        linked(found, args[0], function, *bare((args[1:], kwargs)))
    elif name in RESHAPED:
        found = reshaped(target, found, getattr(torch.Tensor, name[:-1]), *bare((args[1:], kwargs)))
    elif target is not None and found is not target:
        found = target.become(found)
    rules.record(name, found)
    if target is not None:
        rules.held.begin()
    return found if out is None else written(out, found)


def bare(value):
    """Arguments with one part of every Split in its place: what says no more than a shape or a kind."""
    if isinstance(value, Split):
        return value.b
    if type(value) in (tuple, list):
        return type(value)(bare(item) for item in value)
    return {key: bare(item) for key, item in value.items()} if type(value) is dict else value


def _apply(rule, name, rules, args, kwargs):
    """A rule's result. Raises UnsupportedOp for arguments that the rule does not cover."""
    try:
        found = rule(rules, *args, **kwargs)
        if found is None:
            raise TypeError("it returned None")
        return found
    except (AttributeError, TypeError) as error:
        raise UnsupportedOp(
            f"contextual decomposition's rule for {name} does not cover these arguments ({error}): write one that does "
            f'with @register_rule("{name}"), see docs/decomposition.md'
        ) from error
