"""Explain any classifier with a linear head by its training points: two classes, many or many labels, at any size."""

from explainer.attribution.group import GroupInfluence
from explainer.attribution.influence_function import InfluenceFunction
from explainer.attribution.rps_l2 import RPSL2
from explainer.attribution.rps_lje import RPSLJE
from explainer.attribution.solvers import SOLVERS, Solver
from explainer.attribution.topk import TopK
from explainer.attribution.tracin import TracIn

__all__ = ["RPSL2", "RPSLJE", "SOLVERS", "GroupInfluence", "InfluenceFunction", "Solver", "TopK", "TracIn"]
