"""Which detector finds wrong labels best: three models and eight linear heads, seven kinds of noise, twelve detectors.

python dataset_debugging/study_label_errors.py                   all of it; needs the images and reviews
python dataset_debugging/study_label_errors.py --sources Xgboost cancer wine

The trainings of every combination of source, noise and seed are a file below --path, written when they are done, so
that a study that was stopped goes on, and another detector costs no training. Writes label_errors.csv (area and share
found of each), label_errors.md (their means) and the figure label_errors below dataset_debugging/results and figs, or
below --output. The same defaults everywhere; no detector knows which labels are wrong. See docs/label_errors.md.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import re
import warnings

import pandas as pd
from tqdm import tqdm

from config import (
    PROJECT_ROOT,
    ArgumentParser,
    a_data_folder,
    a_file,
    a_path,
    at_least_one,
    device,
    given_folder,
    passes,
    run_command,
    several,
    shown,
    to_write,
)
from dataset_debugging.label_noise import NOISES
from dataset_debugging.study_detectors import FOLDS, all_scores, area, found_at
from dataset_debugging.study_sources import SOURCES, USUAL
from dataset_debugging.study_tables import draw, summary
from dataset_debugging.study_trainings import Trained, trained
from models.files import save_text

COLUMNS = ["source", "noise", "seed", "detector", "area", "found", "trainings", "seconds", "n", "wrong", "scale"]


def judged(kept, seed):
    """One row for each detector, COLUMNS from `detector` on, of a `Trained`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of singular Hessians and unfinished descents, as published
        found = all_scores(kept.moments, kept.out_of_fold, seed)
    seconds = {0: 0.0, 1: kept.seconds[0], FOLDS: kept.seconds[1]}
    wrong, n, rows = kept.wrong, len(kept.moments[-1].labels), []
    for name, (score, trainings, own) in found.items():
        values = round(area(score, wrong), 5), round(found_at(score, wrong, len(wrong) / n), 5)
        rows.append([name, *values, trainings, round(seconds[trainings] + own, 2), n, len(wrong), kept.scale])
    return rows


def main():
    options = _parsed()
    folder = given_folder(options.path, __file__)
    output = given_folder(options.output, __file__) or to_write(PROJECT_ROOT / "dataset_debugging", folder=True)
    table = pd.DataFrame(_all(options, folder), columns=COLUMNS)
    path = output / "results" / "label_errors.csv"
    save_text(path, table.drop(columns="seconds").to_csv(index=False, lineterminator="\n"))
    text = summary(table)
    save_text(path.with_suffix(".md"), text)
    print(text)
    print(f"written: {shown(path)} and .md, {shown(draw(table, output / 'figs'))}")


def _parsed():
    parser = ArgumentParser(description="Compare detectors of wrong labels; goes on where it was stopped.")
    add, noises = parser.add_argument, [noise.name for noise in NOISES]
    known = ", ".join(noises).replace("%", "%%")
    add("--sources", nargs="+", choices=list(SOURCES), default=USUAL, metavar="NAME", help="of " + ", ".join(SOURCES))
    add("--noises", nargs="+", choices=noises, default=noises, metavar="NOISE", help=f"of {known}")
    add("--seeds", type=several, default=5, help="of the noise, the training and the folds")
    add("--no_folds", action="store_true", help="leave out cleanlab's five folds, which cost five trainings each")
    add("--path", type=a_path, default="label_errors/study", help="folder of the trainings, relative to this script")
    add("--output", type=a_path, help="folder of results/ and figs/, relative to this script (default: its own)")
    add(
        "--data_dir",
        type=a_data_folder,
        help="folder of the images and the reviews (default: $RPS_LJE_DATA, else data/)",
    )
    add("--vectors", type=a_file, help="file of word vectors of the RNN (default: glove.6B.100d.txt of --data_dir)")
    add("--epochs", type=passes, help="of the networks (default: 20 of the CNN, 10 of the RNN)")
    add("--num_of_samples", type=at_least_one, help="training points of the networks (default: 300 and 2,000)")
    parser.add_device()
    options = parser.parse_args()
    options.device = device(options.device)
    given = {name: getattr(options, name) for name in ("epochs", "num_of_samples")}
    options.size = {name: value for name, value in given.items() if value is not None}
    return options


def _all(options, folder):
    """The rows of every combination; its trainings from their file where there is one."""
    noises = [noise for noise in NOISES if noise.name in options.noises]
    jobs = [(name, noise, seed) for name in options.sources for noise in noises for seed in range(options.seeds)]
    rows, opened = [], {}
    with tqdm(total=len(jobs), unit="step", smoothing=0.05) as bar:
        for name, noise, seed in jobs:
            bar.set_description(f"{name}, {noise.name}")
            settings = {"source": name, "noise": noise.name, "seed": seed, "folds": not options.no_folds}
            path = _path(folder, settings | options.size)
            if path.exists():
                kept = Trained.load(path)
            else:
                if name not in opened:
                    opened = {name: SOURCES[name](options)}  # one at a time in memory
                kept = trained(opened[name], noise, seed, FOLDS if settings["folds"] else 0)
                kept.save(path)
            rows += [[name, noise.name, seed, *row] for row in judged(kept, seed)]
            bar.update()
    return rows


def _path(folder, settings):
    """The file of one combination: settings that differ have another."""
    words = [str(value) for name, value in settings.items() if name not in ("source", "folds")]
    name = "_".join([*words, *([] if settings["folds"] else ["no_folds"])])
    return folder / re.sub(r"[ ,]+", "_", settings["source"]) / f"{re.sub(r'[ %_]+', '_', name)}.npz"


if __name__ == "__main__":
    run_command(main)
