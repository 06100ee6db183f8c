"""Wrong labels among the training points of a classifier: scores of suspicion, from one training and without refits."""

from explainer.label_errors.noise import Judgement, judged
from explainer.label_errors.scores import DETECTORS, Detector, Moment, scored

__all__ = ["DETECTORS", "Detector", "Judgement", "Moment", "judged", "scored"]
