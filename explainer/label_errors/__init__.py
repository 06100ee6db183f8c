"""Wrong labels among the training points of a classifier: scores of suspicion, from one training and without refits."""

from explainer.label_errors.find import find_label_errors
from explainer.label_errors.noise import Judgement, judged
from explainer.label_errors.scores import DETECTORS, Detector, Moment, proposed, scored
from explainer.label_errors.trees import left_out_margins, table_duplicates

__all__ = [
    "DETECTORS",
    "Detector",
    "Judgement",
    "Moment",
    "find_label_errors",
    "judged",
    "left_out_margins",
    "proposed",
    "scored",
    "table_duplicates",
]
