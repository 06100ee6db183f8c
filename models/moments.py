"""The moments of a training: what the last layer sees after some epochs, kept below <folder>/epochs/<epoch>/model.

Memorization figures and the scores of `explainer.label_errors` read them. A training whose test points cost much keeps
only what belongs to its training points.
"""

import shutil
from pathlib import Path

import numpy as np

from explainer.label_errors import Moment
from models.files import load_npz, save_npz
from models.outputs import SavedOutputs, outputs_path

BEFORE = 0  # the moment before the training, where a model keeps one
KEPT_EPOCHS = (1, 2, 3, 5, 10, 20, 30)
REMAKE = "delete that file, and train again"
_ARRAYS = ["features", "labels", "weight"]


def epoch_folder(folder, epoch):
    """Where a training keeps what its last layer saw after an epoch."""
    return Path(folder) / "epochs" / str(epoch)


def _moment_path(folder, epoch):
    return epoch_folder(folder, epoch) / "model" / "moment.npz"


def keep_moment(folder, epoch, moment):
    """Keep a `Moment` of the training points after an epoch."""
    arrays = {name: getattr(moment, name) for name in (*_ARRAYS, "bias") if getattr(moment, name) is not None}
    save_npz(_moment_path(folder, epoch), **arrays)


def begin_moments(folder, keep):
    """Forget the moments of an earlier training in a folder; keep: unless one that keeps its own may go on there."""
    if not (keep and outputs_path(folder).with_name("training.checkpoint").exists()):
        shutil.rmtree(Path(folder) / "epochs", ignore_errors=True)


def add_moments_option(parser):
    """--keep_moments."""
    epochs = ", ".join(map(str, KEPT_EPOCHS))
    parser.add_argument(
        "--keep_moments",
        action="store_true",
        help=f"keep the features after epochs {epochs}, by which "
        "find_label_errors.py finds what the training has memorized",
    )


def keeper(folder, epochs, points):
    """An after_epoch of `models.training.fit` that keeps the moments of KEPT_EPOCHS before the last of `epochs`.

    points(network) -> the features (n,d) and the labels (n,) of the training points, on the CPU. The last epoch is in
    the saved outputs.
    """

    def keep(network, epoch, kept):
        if epoch == 1:  # a training from its beginning: those of another one that was stopped here are not its own
            for later in KEPT_EPOCHS:
                shutil.rmtree(epoch_folder(folder, later), ignore_errors=True)
        if epoch in KEPT_EPOCHS and epoch < epochs:
            keep_moment(folder, epoch, Moment.of_head(*points(network), network.fc, epoch))

    return keep


def kept_moment(folder, epoch):
    """The `Moment` of a training that was kept after an epoch, or None. Raises UserError for a damaged file."""
    whole, training = outputs_path(epoch_folder(folder, epoch)), _moment_path(folder, epoch)
    if whole.exists():
        return Moment.of(SavedOutputs.load(whole, REMAKE), epoch)
    if training.exists():
        return Moment(**load_npz(training, _ARRAYS, REMAKE, optional=["bias"]), time=epoch)
    return None


def load_moments(folder, last):
    """The kept moments of a training in order, those before the end and the end itself, as `Moment`s.

    last: its `SavedOutputs`. Raises UserError for a damaged file.
    """
    moments = [moment for epoch in (BEFORE, *KEPT_EPOCHS) if (moment := kept_moment(folder, epoch)) is not None]
    end = Moment.of(last, float("inf"))
    kept = moments and np.array_equal(moments[-1].features, end.features)  # as the last of the epochs
    return moments if kept else [*moments, end]
