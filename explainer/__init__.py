"""Explanations of a classifier's predictions by its training points.

Three methods on one artefact, the saved outputs of a model: RPS-LJE (`rps_lje`), RPS-l2 (`rps_l2`) and influence
functions (`influence`). Nothing here knows which model it explains.
"""

from explainer.influence import influence_function
from explainer.methods import METHODS
from explainer.rps_l2 import rps_l2
from explainer.rps_lje import rps_lje

__all__ = ["METHODS", "influence_function", "rps_l2", "rps_lje"]
