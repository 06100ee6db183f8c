"""The moments of a training: what the last layer sees after some epochs, kept below <folder>/epochs/<epoch>/model.

Memorization figures and the scores of `explainer.label_errors` read them. A training whose test points cost much keeps
only what belongs to its training points.
"""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np

from config import UserError, shown
from explainer.label_errors import Moment
from models.arrays import Array
from models.checksums import training_of
from models.files import load_npz, save_npz
from models.folders import replaced_together
from models.outputs import MODEL_FILES, SavedOutputs, outputs_path, same_training

BEFORE = 0  # the moment before the training, where a model keeps one
KEPT_EPOCHS = (1, 2, 3, 5, 10, 20, 30)
REMAKE = "delete that file, and train again"
_ARRAYS = {
    "features": Array("f", (("n", "d"),)),
    "labels": Array("ibf", (("n",),), 0, 1),
    "weight": Array("f", ((1, "d"),)),
}
_BIAS = {"bias": Array("f", ((1,),))}
OF_TRAININGS = {*MODEL_FILES.values(), "saved_outputs.npz", "vocabulary.txt", "reviews.json", "training.checkpoint"}


def epoch_folder(folder, epoch):
    """Where a training keeps what its last layer saw after an epoch."""
    return Path(folder) / "epochs" / str(epoch)


def running(folder):
    """Where a training that is not over keeps its moments, beside its checkpoint."""
    return Path(folder) / "model" / "training.epochs"


def _moment_path(folder, epoch):
    return _file(epoch_folder(folder, epoch))


def _file(epoch_folder):
    return epoch_folder / "model" / "moment.npz"


def keep_running(folder, epoch, moment, training):
    """Keep a `Moment` of a training that is not over; `finished_training` moves it in."""
    _save(running(folder) / str(epoch), moment, training)


def keep_moment(folder, epoch, moment, training=None):
    """Keep a `Moment` of the training points after an epoch. training: the fingerprint of the training."""
    _save(epoch_folder(folder, epoch), moment, training)


def _save(epoch_folder, moment, training):
    arrays = {name: getattr(moment, name) for name in (*_ARRAYS, "bias") if getattr(moment, name) is not None}
    save_npz(_file(epoch_folder), **arrays, training=training)


def begin_moments(folder, checkpoint):
    """Before a training: forget what one that left no checkpoint has kept; those of a finished one stay."""
    kept, finished = running(folder), Path(folder) / "epochs"
    if not checkpoint.exists():
        shutil.rmtree(kept, ignore_errors=True)
    elif not kept.exists() and finished.exists() and training_of(checkpoint) is None:  # both by an older version
        shutil.copytree(finished, kept, copy_function=_link)


@contextlib.contextmanager
def finished_training(folder):
    """Yield a folder for the files of a model; they, and the moments, replace the old ones in one step at the end.

    Until then all that is there stays, and so does what is not of a training.
    """
    folder = Path(folder)
    with replaced_together(folder) as staged:
        model, kept = staged / "model", running(folder)
        model.mkdir()
        for path in (folder / "model").iterdir() if (folder / "model").is_dir() else ():
            if path.is_file() and path.name not in OF_TRAININGS and not path.name.startswith("."):
                _link(path, model / path.name)
        yield model
        if kept.exists():
            shutil.copytree(kept, staged / "epochs", copy_function=_link, ignore=shutil.ignore_patterns(".*"))
        elif (folder / "epochs").exists():
            (staged / "epochs.gone").touch()


def _link(path, target):
    """Another name of a file, or a copy where the disk has no such names."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)


def add_moments_option(parser):
    """--keep_moments."""
    epochs = ", ".join(map(str, KEPT_EPOCHS))
    parser.add_argument(
        "--keep_moments",
        action="store_true",
        help=f"keep the features after epochs {epochs}, by which "
        "find_label_errors.py finds what the training has memorized",
    )


def add_overwrite(parser):
    """--overwrite."""
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew where a training with other settings was stopped"
    )


def begin_anew(folder, overwrite):
    """Forget a training that was stopped in a folder, if `overwrite`; a finished model stays until the next is."""
    if overwrite:
        outputs_path(folder).with_name("training.checkpoint").unlink(missing_ok=True)


def keeper(folder, epochs, points):
    """An after_epoch of `models.training.fit` that keeps the moments of KEPT_EPOCHS before the last of `epochs`.

    points(network) -> the features (n,d) and the labels (n,) of the training points, on the CPU. The last epoch is in
    the saved outputs.
    """

    def keep(network, epoch, kept):
        if epoch in KEPT_EPOCHS and epoch < epochs:
            moment = Moment.of_head(*points(network), network.fc, epoch)
            keep_running(folder, epoch, moment, kept["training"])

    return keep


def kept_moment(folder, epoch):
    """The `Moment` of a training that was kept after an epoch, or None. Raises UserError for a damaged file."""
    whole, training = outputs_path(epoch_folder(folder, epoch)), _moment_path(folder, epoch)
    if whole.exists():
        return Moment.of(SavedOutputs.load(whole, REMAKE), epoch)
    if training.exists():
        return Moment(**load_npz(training, _ARRAYS, REMAKE, optional=_BIAS), time=epoch)
    return None


def load_moments(folder, last):
    """The kept moments of a training in order, those before the end and the end itself, as `Moment`s.

    last: its `SavedOutputs`. Raises UserError for a damaged file, and for moments of another training.
    """
    moments, n = [], len(last.labels_train)
    for epoch in (BEFORE, *KEPT_EPOCHS):
        moment = kept_moment(folder, epoch)
        if moment is None:
            continue
        path = next(p for p in (outputs_path(epoch_folder(folder, epoch)), _moment_path(folder, epoch)) if p.exists())
        remedy = f"delete {shown(Path(folder) / 'epochs')}, or train again with --keep_moments"
        same_training(last.training, training_of(path), "moments", path, remedy)
        if len(moment.labels) != n:
            raise UserError(f"{shown(path)} has {len(moment.labels)} points, saved_outputs.npz {n}: {remedy}")
        moments.append(moment)
    end = Moment.of(last, float("inf"))
    kept = moments and np.array_equal(moments[-1].features, end.features)  # as the last of the epochs
    return moments if kept else [*moments, end]
