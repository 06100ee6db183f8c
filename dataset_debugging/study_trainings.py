"""The trainings of the study of label errors, kept in files, so that a new detector costs none."""

import time
from typing import NamedTuple

import numpy as np

from config import UserError, shown
from dataset_debugging.label_noise import with_noise
from explainer.label_errors import Moment
from models.arrays import Array
from models.files import load_npz, save_npz

ARRAYS = ("features", "weight", "bias", "left_out")  # of a moment; the last two where it has them
AGAIN = "delete that file, and the same command makes it again"
KEPT = {
    "labels": Array("i", (("n",),), 0),
    "times": Array("fi", (("moments",),), 0),
    "wrong": Array("i", (("k",),), 0),
    "seconds": Array("f", ((2,),), 0),
    "scale": Array("U", ((),)),
}


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
        read = load_npz(path, KEPT, AGAIN, optional={"out_of_fold": Array("f", (("n", "C"),), 0, 1)})
        n, wrong, seen = len(read["labels"]), read["wrong"], read.get("out_of_fold")
        each = [[f"{name}_{k}" for name in ARRAYS] for k in range(len(read["times"]))]
        what = {name: array for names in each for name, array in zip(names, _arrays(n), strict=True)}
        needed, more = ({name: what[name] for names in each for name in names[p]} for p in (slice(2), slice(2, None)))
        arrays = load_npz(path, needed, AGAIN, optional=more)
        C = max(2, len(arrays[each[0][1]])) if each else 0
        kinds = {tuple(name in arrays for name in names) for names in each}
        fits = len(kinds) == 1 and read["labels"].max(initial=-1) < C
        fits = fits and len(np.unique(wrong)) == len(wrong) and wrong.max(initial=-1) < n
        if not fits or (seen is not None and seen.shape[1] != C):
            raise UserError(f"{shown(path)} holds parts of different trainings: {AGAIN}")
        moments = [
            Moment(
                labels=read["labels"],
                time=float(time),
                **{name: arrays.get(key) for name, key in zip(ARRAYS, names, strict=True)},
            )
            for time, names in zip(read["times"], each, strict=True)
        ]
        return cls(moments, read["wrong"], read.get("out_of_fold"), read["seconds"], str(read["scale"]))


def _arrays(n):
    """What the `ARRAYS` of a moment of n points have to be; with letters for lengths that all moments share."""
    return (
        Array("f", ((n, "d"),)),
        Array("f", (("c", "d"),)),
        Array("f", (("c",),)),
        Array("f", ((n, "C"),)),
    )


def trained(source, noise, seed, folds):
    """A `Trained` of a source with this noise. folds: of cross-validation, 0 for none."""
    noisy, wrong = with_noise(source.y, source.C, noise, seed, source.clean if noise.kind == "boundary" else None)
    times = [time.perf_counter()]
    moments = source.train(noisy, seed)
    times.append(time.perf_counter())
    probability = source.out_of_fold(noisy, seed, folds) if folds else None
    times.append(time.perf_counter())
    return Trained(moments, wrong, probability, np.diff(times), source.scale)
