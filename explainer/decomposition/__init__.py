"""Which part of this input: contextual decomposition (CD) of any classifier, and its hierarchies (ACD)."""

from explainer.decomposition import rules as _rules  # noqa: F401  registers them
from explainer.decomposition.agglomerate import agglomerate_image, agglomerate_text, superpixels, tiles
from explainer.decomposition.baselines import build_up, gradient_times_input, integrated_gradients, occlusion
from explainer.decomposition.cd import cd, cd_layers, cd_parts, cd_text
from explainer.decomposition.hierarchy import Hierarchy
from explainer.decomposition.pictures import draw_image, draw_layers, draw_methods, draw_sentence, draw_words
from explainer.decomposition.registry import register_rule
from explainer.decomposition.scores import Scores
from explainer.decomposition.scoring import image_scores, text_scores
from explainer.decomposition.split import Split, UnsupportedOp

__all__ = [
    "Hierarchy",
    "Scores",
    "Split",
    "UnsupportedOp",
    "agglomerate_image",
    "agglomerate_text",
    "build_up",
    "cd",
    "cd_layers",
    "cd_parts",
    "cd_text",
    "draw_image",
    "draw_layers",
    "draw_methods",
    "draw_sentence",
    "draw_words",
    "gradient_times_input",
    "image_scores",
    "integrated_gradients",
    "occlusion",
    "register_rule",
    "superpixels",
    "text_scores",
    "tiles",
]
