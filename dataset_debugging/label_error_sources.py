"""What a list of wrong labels is made of: a table of a file, features of a file, or a model of this repository."""

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from config import CODE_ROOT, MODELS, UserError, expanded, script_relative, shown
from config import base_folder as base
from explainer.label_errors import left_out_margins, table_duplicates
from explainer.label_errors.noise import VOTES
from explainer.label_errors.scores import own_probabilities
from explainer.label_errors.tables import Reading, boosted, read_table
from models.files import load_npz
from models.moments import load_moments
from models.outputs import load_outputs, outputs_path

CUT = 600  # letters of a text


class Source:
    """What is judged. features, labels, moments, probabilities, explained_by, votes, duplicates: `find_label_errors`'.

    name: of the page. point: what one is called. notes: what was done with the data. numbers (n,): the points' numbers
    in the data set, where some are left out.
    """

    point = "training point"
    moments, probabilities, explained_by, notes, numbers, votes = (), None, None, (), None, VOTES
    duplicates = None

    def item(self, i):
        """What the page shows of point i, as `gallery` takes it."""
        return {}


class Csv(Source):
    """A table of a file."""

    point = "row"

    def __init__(self, options):
        reading = Reading(**{name: getattr(options, name) for name in Reading._fields})
        table = read_table(_file(options.csv), options.target, options.drop, reading)
        self.table, self.numbers, self.notes, self.labels = table, table.numbers, table.notes, table.labels
        y = np.unique(self.labels, return_inverse=True)[1]
        self.duplicates = table_duplicates(table.codes)
        weights = 1 / np.bincount(self.duplicates)[self.duplicates]  # copies of a row count as one
        booster, self.explained_by = boosted(table.X, y, options.seed, weights)
        more = {"duplicates": self.duplicates, "weights": weights}
        self.features, self.votes = left_out_margins(booster, table.X, y, **more), ()
        self.name, self._target = f"{Path(options.csv).name}, column {options.target}", options.target.strip()

    def item(self, i):
        row = self.table.rows.iloc[i].drop(self._target)
        return {"row": {str(name): value for name, value in row.items()}}


class Features(Source):
    """Features of any classifier."""

    def __init__(self, options):
        path = _file(options.features)
        remedy = "give an .npz file with features (n,d) and labels (n,)"
        arrays = load_npz(path, ["features", "labels"], remedy, optional=["moments", "probabilities"])
        self.features, self.labels, self.name = arrays["features"], arrays["labels"], path.name
        if self.labels.ndim != 1:
            raise UserError(f"{shown(path)}: labels have the shape {self.labels.shape}: give one for each point, (n,)")
        moments = arrays.get("moments")
        if moments is not None and moments.ndim != 3:
            raise UserError(f"{shown(path)}: moments have the shape {moments.shape}: give (k, n, d)")
        self.moments = () if moments is None else tuple(moments)
        self.probabilities = arrays.get("probabilities")


class Model(Source):
    """A model of this repository."""

    def __init__(self, options):
        folder = run_folder(options)
        outputs = load_outputs(folder, options.model)
        *before, last = load_moments(folder, outputs)
        self.features, self.moments = last.features, [moment.features for moment in before]
        self.probabilities = own_probabilities([*before, last])
        self.name, self._item = f"the {options.model} in {shown(folder)}", None
        names = "0", "1"
        if options.model == "CNN":
            from models.CNN.utils_cifar import images_behind, load_network

            images = images_behind(outputs, load_network(folder), options.dataset, options.data_dir, options.classes)
            names, self._item = images.classes, lambda i: {"picture": _png(images.x_train[i])}
        elif options.model == "RNN":
            from models.RNN.saved import SavedModel
            from models.RNN.texts import CLASSES

            saved = SavedModel(folder, options.data_dir)
            names, self._item = CLASSES, lambda i: {"text": saved.text(i)[:CUT]}
        elif options.model == "Xgboost":
            from models.Xgboost.train import MODEL
            from models.Xgboost.trees import load_booster
            from models.Xgboost.utils_german import load

            data, path = load(), outputs_path(folder).with_name(MODEL)
            booster = load_booster(path, "run python models/Xgboost/train.py")
            self.explained_by, self.votes = last.features, ()
            self.duplicates = table_duplicates(data.X_train)
            self.features = left_out_margins(booster, data.X_train, outputs.labels_train)
            self._item = lambda i: {"row": {str(c): f"{v:g}" for c, v in zip(data.columns, data.X_train[i]) if v}}
        self.labels = np.array(names)[outputs.labels_train]
        if not self.moments and options.model != "Xgboost":
            self.notes = [
                "what the training has memorized cannot be seen without earlier moments: train --keep_moments"
            ]

    def item(self, i):
        return self._item(i)


def _file(given):
    """A file of the user's, relative to the current folder, or one of this repository."""
    path = expanded(given)
    return next((place for place in (path, CODE_ROOT / path) if place.exists()), path)


def run_folder(options):
    """The run folder of --model."""
    return base(options.model) if options.saved_path is None else script_relative(options.saved_path, __file__)


def slug(path):
    """A folder's name for a file of the user's: a name within its folder, and none that a model or the study has."""
    plain = (re.sub(r"[^\w.+ -]", "_", name).strip(". ") for name in (path.stem, path.name))
    found = next((name for name in plain if name), "")
    own = re.fullmatch(f"({'|'.join((*MODELS, 'study', 'file'))})?(_.*)?", found, re.IGNORECASE)
    return f"file_{found}" if own else found


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
