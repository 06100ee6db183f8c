"""Explanations of a classifier's predictions by its training points.

For any classifier with a linear head: `RPSLJE`, `RPSL2`, `InfluenceFunction`, `TracIn` and `GroupInfluence`
(`explainer.attribution`). On one artefact, the saved outputs of a model of the paper: `rps_lje`, `rps_l2` and
`influence_function`, in the shapes of the official release. Which labels of the training points are probably wrong:
`find_label_errors` (`explainer.label_errors`). Nothing here knows which model it explains.
"""

from explainer.attribution import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TopK, TracIn
from explainer.influence import influence_function
from explainer.label_errors import DETECTORS, find_label_errors
from explainer.methods import METHODS
from explainer.rps_l2 import rps_l2
from explainer.rps_lje import rps_lje

__all__ = [
    "DETECTORS",
    "METHODS",
    "RPSL2",
    "RPSLJE",
    "GroupInfluence",
    "InfluenceFunction",
    "TopK",
    "TracIn",
    "find_label_errors",
    "influence_function",
    "rps_l2",
    "rps_lje",
]
