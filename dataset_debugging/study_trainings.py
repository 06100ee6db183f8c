"""The trainings of the study of label errors, kept in files, so that a new detector costs none."""

import time
from typing import NamedTuple

import numpy as np

from dataset_debugging.label_noise import with_noise
from explainer.label_errors import Moment
from models.files import load_npz, save_npz

ARRAYS = ("features", "weight", "bias", "left_out")  # of a moment; the last two where it has them
AGAIN = "delete that file, and the same command makes it again"


class Trained(NamedTuple):
    """What detectors judge: one training on labels with noise, and five on folds of them.

    moments: of the one training. wrong (k,): indices of the wrong labels. out_of_fold (n,C): probabilities of the
    points by the trainings on the other folds, or None. seconds (2,): of the one training, and of the five.
    scale: what was trained, in words.
    """

    moments: list
    wrong: np.ndarray
    out_of_fold: np.ndarray | None
    seconds: np.ndarray
    scale: str

    def save(self, path):
        """Write an .npz file; arrays of moment k end in _k."""
        arrays = {"labels": self.moments[-1].labels, "times": [moment.time for moment in self.moments]}
        arrays |= {"wrong": self.wrong, "seconds": self.seconds, "scale": self.scale}
        if self.out_of_fold is not None:
            arrays["out_of_fold"] = self.out_of_fold
        for k, moment in enumerate(self.moments):
            kept = {f"{name}_{k}": getattr(moment, name) for name in ARRAYS}
            arrays |= {name: array for name, array in kept.items() if array is not None}
        save_npz(path, **arrays)

    @classmethod
    def load(cls, path):
        """From such a file. Raises UserError where it is damaged or another one."""
        read = load_npz(path, ["labels", "times", "wrong", "seconds", "scale"], AGAIN, optional=["out_of_fold"])
        each = [[f"{name}_{k}" for name in ARRAYS] for k in range(len(read["times"]))]
        needed, more = ([name for names in each for name in names[part]] for part in (slice(2), slice(2, None)))
        arrays = load_npz(path, needed, AGAIN, optional=more)
        moments = [
            Moment(
                labels=read["labels"],
                time=float(time),
                **{name: arrays.get(key) for name, key in zip(ARRAYS, names, strict=True)},
            )
            for time, names in zip(read["times"], each, strict=True)
        ]
        return cls(moments, read["wrong"], read.get("out_of_fold"), read["seconds"], str(read["scale"]))


def trained(source, noise, seed, folds):
    """A `Trained` of a source with this noise. folds: of cross-validation, 0 for none."""
    noisy, wrong = with_noise(source.y, source.C, noise, seed, source.clean if noise.kind == "boundary" else None)
    times = [time.perf_counter()]
    moments = source.train(noisy, seed)
    times.append(time.perf_counter())
    probability = source.out_of_fold(noisy, seed, folds) if folds else None
    times.append(time.perf_counter())
    return Trained(moments, wrong, probability, np.diff(times), source.scale)
