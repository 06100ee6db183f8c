"""The README's commands and notebooks: what each needs, what takes its place, and how it is made small for tests."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

SNIPPETS = "--dataset snippets --use_pretrained False"
TRAIN_CNN = "--num_of_samples 200 --epochs 1 --weights carried"
TRAIN_RNN = "--num_of_samples 200 --max_length 60 --hidden_dim 8 --epochs 2"
RUN_CNN = "--num_of_run 1 --num_of_samples 200 --epochs 1 --retrain_epochs 1 --epoch 100 --weights carried"
RUN_RNN = (
    "--num_of_run 1 --num_of_samples 60 --max_length 30 --hidden_dim 4 --epochs 1 --retrain_epochs 1 "
    "--average_over_runs 1"
)
CNN_RUNS = "--path ../models/CNN/saved_models/experiment_dataset_debugging"


@dataclass(frozen=True)
class Command:
    """A command of the README, or several that differ only in what follows `start`.

    start: the beginning of the line after "python "
    small: arguments at a scale for tests
    data: the real data that it, or the run that it reads, is of: "images" (CIFAR-10), "reviews" (IMDB), "MNIST"; or ""
    carried: arguments by which data that this repository carries take their place; None where nothing does
    """

    start: str
    small: str = ""
    data: str = ""
    carried: str | None = ""

    def matches(self, line):
        return f"{line} ".startswith(f"python {self.start} ")

    def runs(self, real):
        """Whether it can run on the real data (True), or with nothing but this repository (False)."""
        return real or not self.data or self.carried is not None


MANIFEST = (
    Command("models/Xgboost/train.py"),
    Command("models/CNN/train.py --lr", TRAIN_CNN, "images", "--dataset digits"),
    Command("models/CNN/train.py --dataset digits", TRAIN_CNN),
    Command("models/RNN/train.py --lr", TRAIN_RNN, "reviews", SNIPPETS),
    Command("models/RNN/train.py --dataset snippets", TRAIN_RNN),
    Command("explainer/calculate_ours_weights.py --model Xgboost"),
    Command("explainer/calculate_influence.py --model Xgboost"),
    Command("explainer/calculate_representer_weights.py --model Xgboost"),
    Command("explainer/calculate_ours_weights.py --model CNN", data="images"),
    Command("explainer/calculate_influence.py --model CNN", data="images"),
    Command("explainer/calculate_representer_weights.py --model CNN", data="images"),
    Command("explainer/calculate_ours_weights.py --model RNN", data="reviews"),
    Command("explainer/calculate_influence.py --model RNN", data="reviews"),
    Command("explainer/calculate_representer_weights.py --model RNN", data="reviews"),
    Command("models/RNN/predict.py", data="reviews"),
    Command(
        "dataset_debugging/experiment_dataset_debugging_Xgboost.py --num_of_run", "--num_of_run 1 --average_over_runs 1"
    ),
    Command("dataset_debugging/experiment_dataset_debugging_cnn.py", RUN_CNN, "images", "--dataset digits"),
    Command("dataset_debugging/experiment_dataset_debugging_rnn.py", RUN_RNN, "reviews", SNIPPETS),
    Command("dataset_debugging/memorization.py", data="images", carried=CNN_RUNS),
    Command("scripts/compare_with_paper.py"),
    Command("dataset_debugging/find_label_errors.py --csv"),
    Command("dataset_debugging/find_label_errors.py --model CNN", data="images", carried="--dataset digits"),
    Command("dataset_debugging/find_label_errors.py --model RNN", data="reviews"),
    Command("explainer/explain.py --model CNN", data="images", carried="--dataset digits"),
    Command("explainer/explain.py --model RNN", data="reviews"),
    Command("models/CDEP/train.py --dataset decoydigits", "--epochs 1 --steps 2"),
    Command("models/CDEP/train.py --dataset text_gender", "--epochs 1 --steps 2", "reviews", "--texts snippets"),
    Command("models/CDEP/experiment.py", "--epochs 1"),
    Command("models/Xgboost/data/prepare.py"),
    Command("models/CNN/data/prepare.py --dataset", data="images", carried="--dataset digits"),
    Command("models/CNN/pretrain.py", "--num_of_samples 200 --epochs 1 --output {root}/ten.pt", "images", None),
    Command("scripts/benchmark.py cnn", "--num_of_samples 60 --epochs 1 --seeds 1", "images", "--dataset digits"),
    Command(
        "scripts/benchmark.py rnn",
        "--num_of_samples 100 --max_length 30 --hidden_dim 8 --seconds 0.2 --evaluated 10",
        "reviews",
        SNIPPETS,
    ),
    Command("scripts/benchmark.py explainers", "--n 500 --d 16 --repeats 1"),
    Command("scripts/benchmark.py attribution", "--n 1000 --d 16 --m 50 --repeats 1"),
    Command("scripts/benchmark.py scale", "--n 3000 --d 16 --m 50 --repeats 1"),
    Command("scripts/evaluate_explanations.py", "--tests 20 --number 5 --halves 5"),
    Command("scripts/check_leave_one_out.py", "--points 10"),
    Command("dataset_debugging/study_label_errors.py", "--sources wine --seeds 1"),
    Command("explainer/decomposition/experiments/adversarial.py --model MNIST", "--number 2", "MNIST", None),
    Command("explainer/decomposition/experiments/adversarial.py --model CNN", "--number 2", "images", None),
    Command("scripts/xgboost_sensitivity.py", "--num_of_run 1"),
)
NOTEBOOKS = sorted(
    path for path in REPOSITORY.glob("*/**/*.ipynb") if not {".venv", ".ipynb_checkpoints"} & {*path.parts}
)
ON_REAL_DATA = "models/CNN/", "models/RNN/", "experiments/images.ipynb", "experiments/adversarial.ipynb"


def readme_commands():
    """Every `python <script> ...` of the README: the lines of its code blocks, then those within its sentences."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python [^`\n]+)`", text)
    return [line for line in dict.fromkeys(lines) if re.match(r"python \w+/\S+\.py", line)]


def entry(line):
    """The one entry of the manifest for a command of the README."""
    (found,) = (command for command in MANIFEST if command.matches(line))
    return found


def notebooks(real):
    """The notebooks that show real data (True), and those that need none (False)."""
    chosen = ((path, path.relative_to(REPOSITORY).as_posix()) for path in NOTEBOOKS)
    return [path for path, name in chosen if any(part in name for part in ON_REAL_DATA) == real]
