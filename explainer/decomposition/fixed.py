"""Fixed: what depends on the input and is held at the whole activation's value, as the weights of an attention are.

A softmax, a norm, a standard deviation and a comparison have no parts that sum to them. What they give scales, weighs
or picks activations, and there they act as constants: LRP for transformers holds attention so (Ali et al., 2022), and
the rule of LayerNorm its statistics. Whatever else is done with one is refused, so that nothing which depends on the
input goes undecomposed: a model's output, a sum with an activation, or a layer over both.
"""

import torch

from explainer.decomposition.registry import FUNCTIONS
from explainer.decomposition.split import QUERIES, Split, UnsupportedOp, dispatch, splits

# The arguments that may be fixed beside activations: those by which the activations are scaled, weighed or picked.
HELD = {
    "mul": (0, 1, "input", "other"),
    "div": (1, "other"),
    "matmul": (0, 1, "input", "other"),
    "bmm": (0, 1, "input", "mat2"),
    "mm": (0, 1, "input", "mat2"),
    "baddbmm": (1, 2, "batch1", "batch2"),
    "where": (0, "condition"),
    "masked_fill": (1, "mask"),
    "gather": (2, "index"),
    "take_along_dim": (1, "indices"),
    "scaled_dot_product_attention": (0, 1, 3, "query", "key", "attn_mask"),
}
BY_NUMBER = "nonzero", "argwhere", "masked_select", "unique", "bincount", "histc"  # what they give depends on all rows


class Fixed(Split):
    """A value of the whole activation, without parts. source: the operation that it comes from."""

    fixed = True

    def __init__(self, value, rules, source):
        self.value, self.rules, self.source = value, rules, source

    def _no_parts(self):
        if "softmax" in self.source:
            raise UnsupportedOp(
                f"the model uses what its {self.source} gives other than to weigh activations: contextual "
                "decomposition explains logits; give the model without its softmax"
            )
        raise UnsupportedOp(
            f"{self.source} has a rule only where its result scales or picks activations: give the module that uses "
            "it otherwise a rule by register_rule"
        )

    b = g = w = total = property(_no_parts)

    def __getattr__(self, name):
        if name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad"):
            return getattr(self.value, name)
        return super().__getattr__(name)

    def __len__(self):
        return len(self.value)

    def __repr__(self):
        return f"Fixed{tuple(self.value.shape)} of {self.source}"

    def combine(self, function, name, args, kwargs):
        """What an operation gives for arguments with this among them."""
        if all(part.fixed for part in splits((args, kwargs))):
            return self._wrapped(_bare(args), _bare(kwargs), function, name)
        base = name.removesuffix("_") if not name.startswith("__") else name
        if function is torch.Tensor.where:  # x.where(condition, y)
            function, args = torch.where, (args[1], args[0], *args[2:])
        if base == "einsum":
            return dispatch(function, _bare(args), kwargs)
        given = {**dict(enumerate(args)), **kwargs}
        held = HELD.get(base, ())
        for part in splits([value for key, value in given.items() if key not in held]):
            if part.fixed:
                part._no_parts()
        return dispatch(function, _bare(args), _bare(kwargs))

    def _wrapped(self, args, kwargs, function, name):
        if "dropout" in name:
            FUNCTIONS[name](self.rules, *args, **kwargs)  # refuses one that draws
        if name in BY_NUMBER or (name == "where" and len(args) + len(kwargs) < 2):
            self._no_parts()
        found = function(*args, **kwargs)
        if name in QUERIES or found is None:
            return found
        if isinstance(found, torch.Tensor):
            return Fixed(found, self.rules, self.source)
        if isinstance(found, (tuple, list)):
            kept = [Fixed(v, self.rules, self.source) if isinstance(v, torch.Tensor) else v for v in found]
            return type(found)(kept) if type(found) in (tuple, list) else tuple(kept)
        return found if isinstance(found, torch.Size) else self._no_parts()


def _bare(value):
    """Arguments with the values of what is fixed in its place."""
    if isinstance(value, Split):
        return value.value if value.fixed else value
    if type(value) in (tuple, list):
        return type(value)(_bare(item) for item in value)
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    return value


def whole(value):
    """The whole activation, or a constant as it is."""
    if isinstance(value, Split):
        return value.value if value.fixed else value.total
    return value
