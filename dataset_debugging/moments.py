"""The moments of a run's training: what the last layer sees after some epochs, kept below <run>/epochs/<epoch>/model.

Memorization figures and the scores of `explainer.label_errors` read them. A network whose test points cost much keeps
only what belongs to its training points.
"""

from pathlib import Path

import numpy as np

from dataset_debugging.runs import REMAKE
from explainer.label_errors import Moment
from models.files import load_npz, save_npz
from models.outputs import SavedOutputs, outputs_path

KEPT_EPOCHS = (1, 2, 3, 5, 10, 20, 30)
_ARRAYS = ["features", "labels", "weight"]


def epoch_folder(folder, epoch):
    """Where a run keeps the saved outputs after an epoch of its training on flipped labels."""
    return Path(folder) / "epochs" / str(epoch)


def _moment_path(folder, epoch):
    return epoch_folder(folder, epoch) / "model" / "moment.npz"


def keep_moment(folder, epoch, moment):
    """Keep a `Moment` of the training points after an epoch."""
    arrays = {name: getattr(moment, name) for name in (*_ARRAYS, "bias") if getattr(moment, name) is not None}
    save_npz(_moment_path(folder, epoch), **arrays)


def load_moments(folder, last):
    """The kept moments of a run in order, those before the end and the end itself, as `Moment`s.

    last: the run's `SavedOutputs`. Raises UserError for a damaged file.
    """
    moments = []
    for epoch in KEPT_EPOCHS:
        whole, training = outputs_path(epoch_folder(folder, epoch)), _moment_path(folder, epoch)
        if whole.exists():
            moments.append(Moment.of(SavedOutputs.load(whole, REMAKE), epoch))
        elif training.exists():
            moments.append(Moment(**load_npz(training, _ARRAYS, REMAKE, optional=["bias"]), time=epoch))
    end = Moment.of(last, float("inf"))
    kept = moments and np.array_equal(moments[-1].features, end.features)  # as the last of the epochs
    return moments if kept else [*moments, end]
