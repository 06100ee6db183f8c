"""The detectors of the study of label errors: ours, the published ones, and what practitioners use.

Each gives a score (n,), the larger the more suspicious, from the moments of one training (`explainer.label_errors`), or
from the probabilities of classifiers that have not seen the point (cleanlab's five folds).
"""

import time
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from explainer.attribution import RPSL2, RPSLJE, InfluenceFunction, TracIn
from explainer.label_errors import DETECTORS
from explainer.label_errors.noise import standardized
from explainer.label_errors.scores import probabilities

FOLDS = 5
NEIGHBOURS = 10
RANDOM, FIVE_FOLDS = "Random", f"cleanlab, {FOLDS} folds"
OURS = DETECTORS["noise"].label
WITHOUT = f"{OURS}, not before it"  # of networks that keep a moment before the training


class Scored(NamedTuple):
    """score (n,). trainings: of the model. seconds: of the score alone, the trainings aside."""

    score: np.ndarray
    trainings: int
    seconds: float


def tracin(moments):
    """TracIn's score of a point for itself over the kept moments that have a head, equal learning rates."""
    *_, last = heads = [moment for moment in moments if moment.has_head]
    parts = ([getattr(moment, name) for moment in heads] for name in ("features", "weight", "bias"))
    features, weights, biases = parts
    return TracIn.from_arrays(features, last.labels, weights, biases).suspicion()


def neighbours(moments):
    """The share of the nearest points, by features of the last moment, with another label; nearer ones count more."""
    last = moments[-1]
    F = standardized(last.features).numpy()
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(F).kneighbors(return_distance=False)  # without the point
    weights = 1 / np.arange(1, NEIGHBOURS + 1)
    return (last.labels[nearest] != last.labels[:, None]) @ (weights / weights.sum())


def confidence(labels, probability):
    """One minus cleanlab's label quality (self-confidence), from the probabilities (n,C)."""
    from cleanlab.rank import get_label_quality_scores  # imports slowly

    return 1 - get_label_quality_scores(labels, probability)


def in_sample(moments):
    """cleanlab on the probabilities of the model that was trained on these labels."""
    return confidence(moments[-1].labels, probabilities(moments[-1]))


def published(method, **settings):
    """The suspicion of one of the paper's methods at the last moment."""
    return lambda moments: moments[-1].explainer(method, **settings).suspicion()


ONE_TRAINING = {
    OURS: DETECTORS["noise"].score,
    DETECTORS["loo"].label: DETECTORS["loo"].score,
    DETECTORS["loss"].label: DETECTORS["loss"].score,
    DETECTORS["ours_signed"].label: DETECTORS["ours_signed"].score,
    "RPS-LJE": published(RPSLJE, lr=1e-5),
    "Influence function": published(InfluenceFunction),
    "RPS-l2": published(RPSL2, lmbd=0.003),
    "TracIn": tracin,
    "cleanlab, in sample": in_sample,
    f"{NEIGHBOURS} nearest neighbours": neighbours,
}
NAMES = (OURS, WITHOUT, *list(ONE_TRAINING)[1:], FIVE_FOLDS, RANDOM)


def all_scores(moments, out_of_fold, seed):
    """{name: `Scored`} of every detector. out_of_fold: probabilities (n,C) by five folds, or None to leave it out."""
    found, labels = {}, moments[-1].labels
    trained = [moment for moment in moments if moment.has_head]
    todo = {name: (score, moments) for name, score in ONE_TRAINING.items()}
    if len(trained) < len(moments):
        todo[WITHOUT] = ONE_TRAINING[OURS], trained
    for name, (score, seen) in todo.items():
        began = time.perf_counter()
        found[name] = Scored(np.asarray(score(seen), float), 1, time.perf_counter() - began)
    if out_of_fold is not None:
        began = time.perf_counter()
        found[FIVE_FOLDS] = Scored(confidence(labels, out_of_fold), FOLDS, time.perf_counter() - began)
    found[RANDOM] = Scored(np.random.default_rng(seed).random(len(labels)), 0, 0.0)
    return found


def area(score, wrong):
    """The area under "share of the wrong labels found" against "share checked", in the order of the score.

    A random order has 0.5 on average, a perfect one 1 - k/2n.
    """
    rank = np.empty(len(score))
    rank[np.argsort(-score, kind="stable")] = np.arange(len(score))
    return float(1 - (rank[wrong].mean() + 0.5) / len(score))


def found_at(score, wrong, share):
    """The share of the wrong labels among the `share` of all points that the score finds most suspicious."""
    checked = np.argsort(-score, kind="stable")[: int(round(share * len(score)))]
    return float(np.isin(wrong, checked).mean())
