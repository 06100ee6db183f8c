"""Which labels of a training set are probably wrong? A list, most suspicious first, and a page to look through it.

python dataset_debugging/find_label_errors.py --csv table.csv --target column
python dataset_debugging/find_label_errors.py --features F.npz
python dataset_debugging/find_label_errors.py --model CNN

--csv: any table with a header; boosted trees are trained on it, and every row is judged by its margin without its own
label. --features: an .npz file with features (n,d) and labels (n,), and moments (k,n,d), features of the same points
earlier in the training, where there are any. --model: a model of this repository, with the moments that its training
has kept. Writes label_errors.csv and label_errors.html below --output; see `explainer.label_errors`.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

from pathlib import Path

import numpy as np
from tqdm import tqdm

from config import (
    MODELS,
    ArgumentParser,
    UserError,
    a_data_folder,
    a_file,
    a_path,
    a_text,
    at_least_one,
    count,
    expanded,
    printable,
    run_command,
    run_name,
    script_relative,
    shown,
    to_write,
    whole,
)
from dataset_debugging.label_error_sources import Csv, Features, Model, run_folder, slug
from explainer.label_errors import find_label_errors
from explainer.label_errors.gallery import gallery
from explainer.label_errors.tables import Reading
from models.files import save_text
from models.tables import SAID, as_csv

CSV, PAGE = "label_errors.csv", "label_errors.html"
SHOWN = 200  # points on the page


def _folder(options):
    """Where to write, by default a folder of the file's or the model's name. Raises UserError where that cannot be."""
    name = (
        run_name(options.model, run_folder(options)) if options.model else slug(Path(options.csv or options.features))
    )
    usual = script_relative(f"label_errors/{name}", __file__)
    folder = usual if options.output is None else expanded(options.output).resolve()
    for file in (CSV, PAGE):
        to_write(folder / file)
    return to_write(folder, folder=True)


def main():
    parser = ArgumentParser(description="List the labels that are probably wrong, most suspicious first.")
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--csv", type=a_file, help="a table with a header; relative to the current folder, else to the repository"
    )
    what.add_argument(
        "--features",
        type=a_file,
        help="an .npz file with features (n,d), labels (n,), if any moments (k,n,d), and probabilities",
    )
    what.add_argument("--model", choices=list(MODELS), help="a model of this repository")
    add("--target", type=a_text, help="of --csv: the column of the labels")
    add(
        "--drop",
        type=a_text,
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="of --csv: columns to leave out, such as ids",
    )
    add(
        "--separator",
        type=a_text,
        help="of --csv: the sign between cells, such as ; or tab (default: found in the file)",
    )
    add(
        "--encoding",
        type=a_text,
        help="of --csv: how its letters are written, such as cp1252 (default: found in the file)",
    )
    add("--decimal", type=a_text, help="of --csv: the sign of decimals, . or , (default: found in each column)")
    add(
        "--thousands",
        type=a_text,
        help="of --csv: the sign between groups of digits, . , ' or a space (default: found)",
    )
    add(
        "--missing",
        type=a_text,
        nargs="+",
        default=[],
        metavar="MARK",
        help="of --csv: marks of missing values beside ?, NA, - ...",
    )
    add(
        "--texts",
        type=a_text,
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="of --csv: columns of names that look like numbers",
    )
    add("--seed", type=whole, default=0, help="of --csv: seed of the trees")
    add(
        "--saved_path",
        type=a_path,
        help="of --model: its run folder, relative to this script (default: its base model)",
    )
    add("--dataset", default="cifar", choices=["cifar", "digits"], help="of --model CNN: its images")
    add("--classes", type=a_text, nargs=2, metavar=("ZERO", "ONE"), help="of --model CNN: its two classes")
    add("--data_dir", type=a_data_folder, help="of --model: folder of its images or reviews")
    add("--neighbours", type=count(1, 1000), default=5, help="supporting and opposing points of each")
    add("--shown", type=at_least_one, default=SHOWN, help="points on the page")
    add(
        "--output",
        type=a_path,
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
    folder = _folder(options)
    source = kind(options)
    more = {
        "probabilities": source.probabilities,
        "explained_by": source.explained_by,
        "votes": source.votes,
        "duplicates": source.duplicates,
        "neighbours": min(options.neighbours, len(source.labels) - 1),
    }
    table = find_label_errors(source.features, source.labels, source.moments, **more)
    numbers = np.arange(len(table)) if source.numbers is None else source.numbers
    shown_points = table["index"].head(options.shown).tolist()
    items = {int(numbers[i]): source.item(i) for i in tqdm(shown_points, "page", disable=None, leave=False)}
    lists = {name: table[name].map(lambda points: numbers[points].tolist()) for name in ("supporting", "opposing")}
    table = table.assign(index=numbers[table["index"]], **lists)
    top = table.head(options.shown)
    doubted = int((table["given_label"] != table["proposed_label"]).sum())
    said = f"The {len(top)} most suspicious of {len(table):,} labels; of {doubted:,} another label is proposed."
    plain = {name: table[name].map(lambda points: " ".join(map(str, points))) for name in lists}
    text, marked = as_csv(table.assign(**plain))
    save_text(folder / CSV, text)
    save_text(
        folder / PAGE,
        gallery(top, items, f"Label errors: {source.name}", said, source.point, source.notes),
    )
    for note in source.notes:
        print(f"note: {printable(note)}")
    if marked:
        print(f"note: {SAID.format(where=CSV, count=marked)}")
    print(top.head(10).drop(columns=["supporting", "opposing"]).to_string(index=False, float_format="{:.3g}".format))
    print(said)
    print(f"written: {CSV} and {PAGE} in {shown(folder)}")


if __name__ == "__main__":
    run_command(main)
