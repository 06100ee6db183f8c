"""The rules of contextual decomposition, by kind of operation; importing this registers them all."""

from explainer.decomposition.rules import activations, arithmetic, layouts, linear, pooling, recurrent

__all__ = ["activations", "arithmetic", "layouts", "linear", "pooling", "recurrent"]
