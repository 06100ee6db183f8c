"""Leave-one-out probabilities in closed form against real refits of the head without each point.

python scripts/check_leave_one_out.py     the base models that are there; writes explainer/results/leave_one_out.md,
                                          where the lines of models that are not there stay as they are

The head is fitted to its minimum on a model's saved features, with a weight decay. For points drawn by seed it is
fitted again without each, and the probability of their label is compared with `explainer.attribution`'s closed form,
one Cholesky factorization for all. Half of the points are drawn from the 2 % whose probability the closed form changes
most: for most points nothing changes, and any formula is right.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import time

import numpy as np
import torch
from tqdm import tqdm

from config import MODELS, PROJECT_ROOT, ArgumentParser, UserError, at_least_one, positive, run_command, shown, whole
from config import base_folder as base
from explainer.attribution import InfluenceFunction
from explainer.attribution.fitting import fit_head
from explainer.attribution.heads import Head
from explainer.attribution.rows import Rows
from models.files import markdown_table, save_text
from models.outputs import load_outputs, outputs_path

MOVED = 0.02
SAME = 1e-12  # changes below it are rounding
COLUMNS = [
    "model",
    "n",
    "d",
    "points",
    "Pearson",
    "Pearson of the changes",
    "largest difference",
    "largest change by the removal",
    "closed form",
    "refits",
]


def compared(F, y, decay, points, seed, progress):
    """The probabilities (k,) of k points' labels: by the head, in closed form, by refits; and both times in seconds."""
    n, F, y = len(y), torch.as_tensor(F).double(), torch.as_tensor(y).long()
    head = Head.of(torch.zeros(1, F.shape[1]), torch.zeros(1), y)
    Y = head.targets(y)
    head = fit_head(Rows(F, bias=True), Y, head, decay)
    weight, bias = head.weight[:-1].T.numpy(), head.weight[-1].numpy()
    began = time.perf_counter()
    explainer = InfluenceFunction.from_arrays(F, y, weight, bias, decay=decay)
    without = explainer.leave_one_out().probabilities
    seconds = time.perf_counter() - began
    rows = torch.cat([F, F.new_ones(n, 1)], 1)
    whole_head = head.probabilities(head.logits(rows)).numpy()[:, 0]
    generator = np.random.default_rng(seed)
    moved = np.argsort(-np.abs(without - whole_head))[: max(points, int(MOVED * n))]
    first = generator.choice(moved, points // 2, replace=False)
    others = np.setdiff1d(np.arange(n), first)
    drawn = np.concatenate([first, generator.choice(others, points - len(first), replace=False)])
    refits, began = [], time.perf_counter()
    for i in tqdm(drawn, f"refits, {progress}", unit="step", leave=False):
        kept = torch.arange(n) != i
        refit = fit_head(Rows(F[kept], bias=True), Y[kept], head, decay * n / (n - 1))  # the same penalty on the sum
        refits.append(float(refit.probabilities(refit.logits(rows[i][None]))[0, 0]))
    label = y.numpy()[drawn] == 1
    found = (np.where(label, p, 1 - p) for p in (whole_head[drawn], without[drawn], np.array(refits)))
    return *found, seconds, time.perf_counter() - began


def _known(path, scale):
    """The lines of an earlier table of the same scale: {model: cells}."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text.rstrip().endswith(scale):
        return {}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells for cells in rows if cells[0] in MODELS and len(cells) == len(COLUMNS)}


def main():
    parser = ArgumentParser(description="Compare leave-one-out probabilities with real refits of the head.")
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        choices=list(MODELS),
        default=list(MODELS),
        help="whose base models, of those that are there",
    )
    add("--decay", type=positive, default=1e-5, help="weight decay of the fitted head")
    add("--points", type=at_least_one, default=200, help="points that are left out, one at a time")
    add("--seed", type=whole, default=0, help="seed of the draw")
    options = parser.parse_args()
    path = PROJECT_ROOT / "explainer" / "results" / "leave_one_out.md"
    scale = f"Decay {options.decay:g}, seed {options.seed}; half of the points from the {MOVED:.0%} that move most."
    lines = _known(path, scale)
    for name in options.models:
        if not outputs_path(base(name)).exists():
            print(f"left out: {name} has no base model")
            continue
        o = load_outputs(base(name), name)
        n, d = o.intermediate_train.shape
        k = min(options.points, n // 2)
        by_head, closed, refits, *seconds = compared(
            o.intermediate_train, o.labels_train, options.decay, k, options.seed, name
        )
        moved = np.abs(refits - by_head).max() > SAME
        changes = np.corrcoef(closed - by_head, refits - by_head)[0, 1] if moved else np.nan
        values = f"{np.corrcoef(closed, refits)[0, 1]:.6f}", f"{changes:.6f}", f"{np.abs(closed - refits).max():.2g}"
        change = f"{np.abs(refits - by_head).max():.2g}"
        lines[name] = [name, f"{n:,}", str(d), str(k), *values, change, *(f"{s:.2f} s" for s in seconds)]
    if not any(outputs_path(base(name)).exists() for name in options.models):
        raise UserError("none of these models is there: train one first")
    text = f"{markdown_table(COLUMNS, [lines[name] for name in MODELS if name in lines])}\n\n{scale}\n"
    save_text(path, text)
    print(f"{text}\nwritten: {shown(path)}")


if __name__ == "__main__":
    run_command(main)
