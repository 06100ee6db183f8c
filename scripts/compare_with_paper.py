"""Published numbers beside ours, for every experiment that has been run.

python scripts/compare_with_paper.py            print the comparison and write dataset_debugging/REPRODUCTION.md
python scripts/compare_with_paper.py --export   first make the runs of this project the committed results; of the same
                                                runs, methods and stages that lie there already are kept
python scripts/compare_with_paper.py --readme   also renew the results table of the README
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import numpy as np

from config import CODE_ROOT, PROJECT_ROOT, ArgumentParser, UserError, run_command, shown
from dataset_debugging.results import (
    ACCURACY,
    FOLDERS,
    IDENTIFIED,
    LABELS,
    OTHERS,
    NoOrders,
    NoRuns,
    OtherData,
    committed,
    describe,
    export,
    load,
    published,
    summary,
)
from models.files import markdown_table, save_text

TITLES = {
    "cnn": "ResNet-20 on CIFAR-10 automobile / horse",
    "cnn_bfloat16": "ResNet-20 on CIFAR-10 automobile / horse, in bfloat16",
    "cnn_small": "ResNet-20 on CIFAR-10 automobile / horse, small scale",
    "cnn_fixed_random_split": "ResNet-20 on CIFAR-10, the same flips in every run",
    "rnn": "Bidirectional LSTM on IMDB",
    "rnn_small": "Bidirectional LSTM on IMDB, small scale",
    "xgboost": "XGBoost on German Credit",
}
NAMES = {IDENTIFIED: "Share of mislabelled data identified", ACCURACY: "Test accuracy"}
SHORT = (IDENTIFIED, 0.1), (IDENTIFIED, 0.2), (IDENTIFIED, 0.4), (ACCURACY, 0.2), (ACCURACY, 0.4)
STUDIES = "sensitivity", "memorization", "refits"  # results/<experiment>_<study>.md, sections of the report
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def beside(experiment):
    """Our summary with the published mean and sd of the same quantity, method and checkpoint in mean_p and sd_p."""
    results = load(experiment)
    on = ["quantity", "method", "fraction_checked"]
    theirs = published(experiment).rename(columns={"mean": "mean_p", "sd": "sd_p"})[[*on, "mean_p", "sd_p"]]
    return results, summary(results.table).merge(theirs, on=on, how="left")


def number(mean, sd, runs=2):
    """`mean (sd)` as a cell; the sd only where there is one."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.3f}" if np.isnan(sd) or runs < 2 else f"{mean:.3f} ({sd:.3f})"


def full_table(rows, quantity):
    """Every checkpoint of one quantity: published mean (sd) and ours for each method."""
    rows = rows[rows["quantity"] == quantity]
    methods = [label for label in LABELS.values() if (rows["method"] == label).any()]
    header = ["checked"] + [f"{method}, {who}" for method in methods for who in ("published", "ours")]
    lines = []
    for share, group in rows.groupby("fraction_checked"):
        cells, by_method = [f"{share:.0%}"], group.set_index("method")
        for method in methods:
            row = by_method.loc[method] if method in by_method.index else None
            cells += (
                ["–", "–"] if row is None else [number(row.mean_p, row.sd_p), number(row["mean"], row.sd, row.runs)]
            )
        lines.append(cells)
    return markdown_table(header, lines)


def verdicts(rows):
    """One row per quantity and method: how far ours is from the published curve, and where."""
    lines = []
    for (quantity, method), group in rows.dropna(subset="mean_p").groupby(["quantity", "method"], sort=False):
        difference = group["mean"] - group["mean_p"]
        worst = difference.abs().idxmax()
        cells = [NAMES[quantity], method, f"{difference[worst]:+.3f} at {group['fraction_checked'][worst]:.0%} checked"]
        if quantity == ACCURACY:
            outside = group[difference.abs() > 2 * group["sd_p"] + 5e-4]  # the published means have four digits
            shares = ", ".join(f"{share:.0%}" for share in outside["fraction_checked"])
            inside = f"{len(group) - len(outside)} of {len(group)} checkpoints within two published sd"
            cells.append(inside + (f"; outside at {shares}" if shares else ""))
        else:
            cells.append(f"mean absolute difference {difference.abs().mean():.3f}")
        lines.append(cells)
    if not lines:
        return "There are no published numbers of it."
    return markdown_table(["quantity", "method", "largest difference, ours − published", "agreement"], lines)


def report(experiments):
    """REPRODUCTION.md as text."""
    parts = [
        "# Reproduction\n\nWritten by `python scripts/compare_with_paper.py`. Published: mean (sd over runs) as in "
        "`published_curves.csv` (Sui, Wu, Sanner, NeurIPS 2021); identified shares were read off the figures, good to "
        "±0.002. Ours: mean (sd over runs, n − 1)."
    ]
    for experiment, (results, rows) in experiments.items():
        packages = results.scale["packages"].items()
        versions = ", ".join([results.scale["device"], f"Python {results.scale['python']}", *map(" ".join, packages)])
        parts += [
            f"## {TITLES[experiment]}",
            f"Scale of ours: {describe(results)}; {versions}.",
            verdicts(rows),
        ]
        notes = (committed(f"{experiment}_{study}.md") for study in STUDIES)
        parts += [path.read_text(encoding="utf-8").strip() for path in notes if path]
        parts += [f"### {NAMES[q]}\n\n{full_table(rows, q)}" for q in NAMES if (rows["quantity"] == q).any()]
    return "\n\n".join(parts) + "\n"


def short(experiments):
    """The README's table: one row per experiment and method."""
    lines = []
    for experiment, (_, rows) in experiments.items():
        for method in LABELS.values():
            row = rows[rows["method"] == method].set_index(["quantity", "fraction_checked"])
            if not len(row):
                continue
            cells = [TITLES[experiment], method]
            for quantity, share in SHORT:
                at = row.loc[(quantity, share)] if (quantity, share) in row.index else None
                cells.append("–" if at is None else f"{number(at.mean_p, np.nan)} / **{number(at['mean'], np.nan)}**")
            lines.append(cells)
    header = ["published / **ours**", "method", "found at 10 %", "found at 20 %", "found at 40 %"]
    header += ["accuracy at 20 %", "accuracy at 40 %"]
    scales = [f"{TITLES[name]}: {describe(results)}." for name, (results, _) in experiments.items()]
    return markdown_table(header, lines) + "\n\n" + "\n".join(scales)


def _export(experiment, folder):
    """Make the runs below a folder the committed results, where there are any; say which of those are dropped."""
    if not any((PROJECT_ROOT / folder).glob("*/run.json")):
        return
    try:
        dropped = export(experiment)
    except (OtherData, NoOrders) as error:
        print(f"not exported: {error}")
        return
    for name, (rows, why) in dropped.items():
        print(f"{name}: {rows} committed rows that these runs lack are gone, since they are of other runs, {why}")


def main():
    options = ArgumentParser(description="Compare the label-flip experiments with the published curves.")
    options.add_argument("--export", action="store_true", help="make this project's runs the committed results")
    options.add_argument("--readme", action="store_true", help="renew the results table of the README")
    options = options.parse_args()
    experiments, missing = {}, []
    for experiment, folder in FOLDERS.items():
        if options.export:
            _export(experiment, folder)
        try:
            experiments[experiment] = beside(experiment)
        except NoRuns:
            missing.append(experiment)
    for experiment, folder in OTHERS.items():
        if options.export:
            _export(experiment, folder)
    if missing:
        print(f"not run yet: {', '.join(missing)}")
    if not experiments:
        raise UserError("there are no results to compare: run an experiment below dataset_debugging/ first")
    for experiment, (results, rows) in experiments.items():
        print(f"\n{TITLES[experiment]} ({describe(results)}; {results.source})\n\n{verdicts(rows)}")
    path = PROJECT_ROOT / "dataset_debugging" / "REPRODUCTION.md"
    save_text(path, report(experiments))
    print(f"\nevery checkpoint: {shown(path)}")
    if options.readme:
        readme = CODE_ROOT / "README.md"
        text = readme.read_text(encoding="utf-8")
        if not 0 <= text.find(BEGIN) < text.find(END):
            raise UserError(f"README.md has no lines {BEGIN} and {END}: put them where the table is to stand")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        save_text(readme, f"{before}{BEGIN}\n{short(experiments)}\n{END}{after}")


if __name__ == "__main__":
    run_command(main)
