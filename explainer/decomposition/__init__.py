"""Which part of this input: contextual decomposition (CD) of any classifier, and its hierarchies (ACD)."""

from explainer.decomposition import rules as _rules  # noqa: F401  registers them
from explainer.decomposition.cd import cd, cd_layers, cd_text
from explainer.decomposition.registry import register_rule
from explainer.decomposition.scores import Scores
from explainer.decomposition.split import Split, UnsupportedOp

__all__ = ["Scores", "Split", "UnsupportedOp", "cd", "cd_layers", "cd_text", "register_rule"]
