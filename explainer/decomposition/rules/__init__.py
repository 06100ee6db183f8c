"""The rules of contextual decomposition, by kind of operation; importing this registers them all."""

from explainer.decomposition.rules import (
    activations,
    arithmetic,
    attention,
    held,
    layouts,
    linear,
    orders,
    pooling,
    products,
    recurrent,
    writes,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "held",
    "layouts",
    "linear",
    "orders",
    "pooling",
    "products",
    "recurrent",
    "writes",
]
