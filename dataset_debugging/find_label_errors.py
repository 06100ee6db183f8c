"""Which labels of a training set are probably wrong? A list, most suspicious first, and a page to look through it.

python dataset_debugging/find_label_errors.py --csv table.csv --target column
python dataset_debugging/find_label_errors.py --features F.npz
python dataset_debugging/find_label_errors.py --model CNN

--csv: any table with a header; boosted trees are trained on it, and every row is judged by its margin without its own
label. --features: an .npz file with features (n,d) and labels (n,), and moments (k,n,d), features of the same points
earlier in the training, where there are any. --model: a model of this repository, with the moments that its training
has kept. Writes label_errors.csv and label_errors.html below --output; see `explainer.label_errors`.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from config import (
    CODE_ROOT,
    MODELS,
    ArgumentParser,
    UserError,
    at_least_one,
    expanded,
    run_command,
    run_name,
    script_relative,
    shown,
    whole,
)
from config import base_folder as base
from explainer.label_errors import find_label_errors, left_out_margins, table_duplicates
from explainer.label_errors.gallery import gallery
from explainer.label_errors.noise import VOTES
from explainer.label_errors.scores import own_probabilities
from explainer.label_errors.tables import Reading, boosted, read_table
from models.files import load_npz, save_text
from models.moments import load_moments
from models.outputs import load_outputs, outputs_path

SHOWN, CUT = 200, 600  # points on the page; letters of a text


class Source:
    """What is judged. features, labels, moments, probabilities, explained_by, votes, duplicates: `find_label_errors`'.

    name: of the page. slug: of its folder. point: what one is called. notes: what was done with the data. numbers
    (n,): the points' numbers in the data set, where some are left out.
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
        self.slug = Path(options.csv).stem
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
        self.features, self.labels, self.name, self.slug = arrays["features"], arrays["labels"], path.name, path.stem
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
        given = options.saved_path
        folder = base(options.model) if given is None else script_relative(given, __file__)
        outputs = load_outputs(folder, options.model)
        *before, last = load_moments(folder, outputs)
        self.features, self.moments = last.features, [moment.features for moment in before]
        self.probabilities = own_probabilities([*before, last])
        self.name, self._item = f"the {options.model} in {shown(folder)}", None
        self.slug = run_name(options.model, folder)
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
    return next((path for path in (Path(given), CODE_ROOT / given) if path.exists()), Path(given))


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def main():
    parser = ArgumentParser(description="List the labels that are probably wrong, most suspicious first.")
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--csv", help="a table with a header; relative to the current folder, else to the repository")
    what.add_argument(
        "--features", help="an .npz file with features (n,d), labels (n,), if any moments (k,n,d), and probabilities"
    )
    what.add_argument("--model", choices=list(MODELS), help="a model of this repository")
    add("--target", help="of --csv: the column of the labels")
    add("--drop", nargs="+", default=[], metavar="COLUMN", help="of --csv: columns to leave out, such as ids")
    add("--separator", help="of --csv: the sign between cells, such as ; or tab (default: found in the file)")
    add("--encoding", help="of --csv: how its letters are written, such as cp1252 (default: found in the file)")
    add("--decimal", help="of --csv: the sign of decimals, . or , (default: found in each column)")
    add("--thousands", help="of --csv: the sign between groups of digits, . , ' or a space (default: found)")
    add(
        "--missing", nargs="+", default=[], metavar="MARK", help="of --csv: marks of missing values beside ?, NA, - ..."
    )
    add("--texts", nargs="+", default=[], metavar="COLUMN", help="of --csv: columns of names that look like numbers")
    add("--seed", type=whole, default=0, help="of --csv: seed of the trees")
    add("--saved_path", help="of --model: its run folder, relative to this script (default: its base model)")
    add("--dataset", default="cifar", choices=["cifar", "digits"], help="of --model CNN: its images")
    add("--classes", nargs=2, metavar=("ZERO", "ONE"), help="of --model CNN: its two classes")
    add("--data_dir", help="of --model: folder of its images or reviews")
    add("--neighbours", type=at_least_one, default=5, help="supporting and opposing points of each")
    add("--shown", type=at_least_one, default=SHOWN, help="points on the page")
    add(
        "--output",
        help="folder to write to (default: label_errors/NAME beside this script)",
    )
    options = parser.parse_args()
    if options.csv and not options.target:
        raise UserError("--csv: give the column of the labels as --target")
    if not options.csv and (options.target or options.drop):
        raise UserError("--target and --drop are columns of --csv: leave them out, or give a table as --csv")
    given = [name for name in Reading._fields if getattr(options, name)]
    if not options.csv and given:
        raise UserError(f"--{given[0]} is of --csv: leave it out, or give a table as --csv")
    kind = Csv if options.csv else Features if options.features else Model
    source = kind(options)
    more = {
        "probabilities": source.probabilities,
        "explained_by": source.explained_by,
        "votes": source.votes,
        "duplicates": source.duplicates,
        "neighbours": min(options.neighbours, len(source.labels) - 1),
    }
    table = find_label_errors(source.features, source.labels, source.moments, **more)
    usual = script_relative(f"label_errors/{source.slug}", __file__)
    folder = usual if options.output is None else expanded(options.output).resolve()
    numbers = np.arange(len(table)) if source.numbers is None else source.numbers
    shown_points = table["index"].head(options.shown).tolist()
    items = {int(numbers[i]): source.item(i) for i in tqdm(shown_points, "page", disable=None, leave=False)}
    lists = {name: table[name].map(lambda points: numbers[points].tolist()) for name in ("supporting", "opposing")}
    table = table.assign(index=numbers[table["index"]], **lists)
    top = table.head(options.shown)
    doubted = int((table["given_label"] != table["proposed_label"]).sum())
    said = f"The {len(top)} most suspicious of {len(table):,} labels; of {doubted:,} another label is proposed."
    plain = {name: table[name].map(lambda points: " ".join(map(str, points))) for name in lists}
    save_text(folder / "label_errors.csv", table.assign(**plain).to_csv(index=False, lineterminator="\n"))
    save_text(
        folder / "label_errors.html",
        gallery(top, items, f"Label errors: {source.name}", said, source.point, source.notes),
    )
    for note in source.notes:
        print(f"note: {note}")
    print(top.head(10).drop(columns=["supporting", "opposing"]).to_string(index=False, float_format="{:.3g}".format))
    print(said)
    print(f"written: label_errors.csv and label_errors.html in {shown(folder)}")


if __name__ == "__main__":
    run_command(main)
