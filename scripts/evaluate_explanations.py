"""How good the explanations of a model's last layer are, by refits of it: one table for all methods.

python scripts/evaluate_explanations.py     the CNN's base model; writes explainer/results/evaluation_cnn.md and .csv

The head is fitted to its minimum on the saved features first, so that a refit without a point has something to differ
from. docs/attribution.md and `explainer.evaluation` say what is measured.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import time

import numpy as np

from config import MODELS, PROJECT_ROOT, ArgumentParser, at_least_one, positive, run_command, several, shown, whole
from config import base_folder as base
from explainer.attribution import RPSL2, RPSLJE, InfluenceFunction, TracIn
from explainer.evaluation import Evaluation
from models.files import markdown_table, save_text
from models.outputs import load_outputs

METHODS = {
    "RPS-LJE": (RPSLJE, {"lr": 0.01}),
    "Influence function": (InfluenceFunction, {}),
    "RPS-l2": (RPSL2, {"lmbd": 0.003}),
    "TracIn, last layer": (TracIn, {}),
}
GAMMAS, LAMBDAS = (5e-4, 1e-3, 5e-3, 1e-2), (1e-4, 1e-3, 0.01, 0.1)


def stabilities(n):
    """Over which settings the best explanations are compared."""
    halves = [{"n_samples_for_hessian": n // 2, "seed": seed} for seed in range(4)]
    return {
        "stability over γ or λ": {
            "RPS-LJE": [{"lr": lr} for lr in GAMMAS],
            "RPS-l2": [{"lmbd": lmbd} for lmbd in LAMBDAS],
        },
        "stability over halves for H": {"RPS-LJE": halves, "Influence function": halves},
    }


def main():
    parser = ArgumentParser(description="Evaluate the explanations of a model's last layer by refits.")
    parser.add_argument("--model", default="CNN", choices=list(MODELS), help="whose base model")
    parser.add_argument("--decay", type=positive, default=1e-3, help="weight decay of the fitted head")
    parser.add_argument("--tests", type=at_least_one, default=200, help="test points, drawn by seed")
    parser.add_argument("--number", type=several, default=100, help="points, and groups of 1 %%, that are left out")
    parser.add_argument("--halves", type=several, default=50, help="random halves of the datamodeling score")
    parser.add_argument("--seed", type=whole, default=0, help="seed of every draw")
    options = parser.parse_args()
    o, began = load_outputs(base(options.model), options.model), time.perf_counter()
    m = len(o.labels_test)
    tests = np.sort(np.random.default_rng(options.seed).choice(m, min(options.tests, m), replace=False))
    evaluation = Evaluation(
        o.intermediate_train, o.labels_train, o.intermediate_test[tests], o.labels_test[tests], options.decay
    )
    more = {"seed": options.seed, "number": options.number, "halves": options.halves}
    table = evaluation.table(METHODS, stabilities(evaluation.n), **more)
    seconds = time.perf_counter() - began
    n, d = o.intermediate_train.shape
    scale = (
        f"{options.model}: n = {n:,}, d = {d} and the bias, {len(tests)} test points, decay {options.decay:g}, "
        f"{options.number} removals, {options.halves} halves, seed {options.seed}"
    )
    rows = [[name, *("–" if np.isnan(x) else f"{x:.3f}" for x in row)] for name, row in table.iterrows()]
    text = markdown_table(["method", *table.columns], rows)
    folder = PROJECT_ROOT / "explainer" / "results"
    path = folder / f"evaluation_{options.model.lower()}.md"
    save_text(path, f"{text}\n\n{scale}.\n")
    save_text(path.with_suffix(".csv"), table.to_csv(lineterminator="\n"))
    print(f"{text}\n\n{scale}\ntime: {seconds:.1f} s\nwritten: {shown(path)}")


if __name__ == "__main__":
    run_command(main)
