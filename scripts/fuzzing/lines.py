"""Command lines at the edge: options of the real parsers with values that nobody should give, within this process."""

import contextlib
import os
import re
import shutil
import sys
from importlib import import_module

import config
from fuzzing.children import Ended, ended, forked, left_behind

SECONDS = 12.0  # after which a command that is still at work counts as accepted
MODULES = {  # the functions of the commands, with arguments by which each has little to do
    "models.Xgboost.train": "",
    "models.CNN.train": "--dataset digits --num_of_samples 20 --epochs 1 --weights none",
    "models.RNN.train": "--dataset snippets --use_pretrained False --num_of_samples 20 --max_length 5 --hidden_dim 2",
    "models.CDEP.train": "--dataset decoydigits --epochs 1 --steps 1",
    "models.CDEP.experiment": "--epochs 1",
    "models.CNN.data.prepare": "--dataset digits",
    "models.CNN.pretrain": "--num_of_samples 20 --epochs 1",
    "models.RNN.predict": "",
    "explainer.calculate_ours_weights": "--model CNN",
    "explainer.calculate_influence": "--model Xgboost",
    "explainer.calculate_representer_weights": "--model RNN",
    "explainer.explain": "--model CNN --dataset digits",
    "dataset_debugging.find_label_errors": "--csv models/Xgboost/data/german_credit.csv --target good",
    "dataset_debugging.memorization": "",
    "dataset_debugging.study_label_errors": "--sources wine --seeds 1",
    "dataset_debugging.experiment_dataset_debugging_Xgboost": "--num_of_run 1 --average_over_runs 1 --until train",
    "dataset_debugging.experiment_dataset_debugging_cnn": "--dataset digits --num_of_samples 20 --until train",
    "dataset_debugging.experiment_dataset_debugging_rnn": "--dataset snippets --use_pretrained False --until train",
}
EDGES = (
    "", " ", "0", "-1", "1", "2", "0.5", "1e-320", "nan", "inf", "-inf", "1e400", "9" * 23, "4294967296", "1000000",
    "100000000", "1_000", "٣", "0x10", "True", "none", "auto", "cuda", "cuda:99", "cpu:1", "mps", "meta", ".", "..",
    "/", "/dev/null", "/dev/zero", "/proc/self/mem", "/nonexistent/x", "~", "~nobody_there/x", "a/../../b", "...csv",
    "x" * 300, "x" * 5000, "\x1b[31mred", "line\nbreak", "\udcff", "\u202e", "=1+1", "--", "-", "%s%n", "{0}",
    "pyproject.toml", "models", "README.md",
)  # fmt: skip
PROGRESS = re.compile(r"\d+%\||it/s|s/it|\?(step|epoch|run|cell|refit| images?)")


class Stop(BaseException):
    """Raised where a parser would parse."""


def parser_of(main):
    """The parser that a command makes."""
    before, found = config.ArgumentParser.parse_args, []

    def caught(self, *arguments, **named):
        found.append(self)
        raise Stop

    config.ArgumentParser.parse_args = caught
    try:
        with contextlib.suppress(Stop):
            main()
    finally:
        config.ArgumentParser.parse_args = before
    return found[0]


def command(name):
    """The function of a command by its module."""
    module = import_module(name)
    if not hasattr(module, "EXPERIMENT"):
        return module.main
    from dataset_debugging import experiment

    script = str(config.CODE_ROOT / f"{name.replace('.', '/')}.py")
    return lambda: experiment._run_all(module.EXPERIMENT, *experiment._parse(module.EXPERIMENT, script))


def sampled(parser, rng):
    """Up to three options of a parser with values at the edge, as arguments."""
    found, actions = [], [action for action in parser._actions if action.dest != "help"]
    for _ in range(int(rng.integers(1, 4))):
        action = actions[int(rng.integers(len(actions)))]
        name = action.option_strings[-1] if action.option_strings else None
        count = {"+": 2, "*": 1, "?": 1, None: 1}.get(action.nargs, action.nargs)
        values = [_value(action, rng) for _ in range(count if isinstance(count, int) else 1)]
        values = values if rng.random() > 0.1 else values[:-1]  # too few
        if name is not None and len(values) == 1 and values[0].startswith("-"):
            found.append(f"{name}={values[0]}")
        else:
            found += ([] if name is None else [name]) + values
    return found


def _value(action, rng):
    usual = [str(v) for v in action.choices or ()] + ([] if action.default is None else [str(action.default)])
    if usual and rng.random() < 0.25:
        return usual[int(rng.integers(len(usual)))]
    return EDGES[int(rng.integers(len(EDGES)))]


def snapshot(root):
    """{path: size} below a folder; of folders None."""
    return {str(p): None if p.is_dir() else p.stat().st_size for p in sorted(root.rglob("*"))}


def outcome(name, main, arguments, root):
    """What a command line came to, (outcome, what, said), with results below an empty folder `root`."""
    what = f"{name} {' '.join(arguments)}"[:300]
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    output = root.with_name("printed")

    def work():
        os.chdir(config.CODE_ROOT)
        sys.argv = [name, *arguments]
        config.run_command(main)

    pid = forked(work, output)
    over = ended(pid, SECONDS)
    return _judged(over, output.read_text(errors="backslashreplace"), what, root, left_behind(pid))


def _judged(over: Ended, printed, what, root, left):
    lines = [
        line
        for line in re.split(r"[\r\n]", printed)
        if line.strip() and (line.startswith("error: ") or not PROGRESS.search(line))
    ]
    last = lines[-1] if lines else ""
    if left:
        return "left", what, f"{left} processes"
    if over.late:
        return "right", what, "at work"
    if over.signal:
        return "crash", what, f"signal {over.signal}: {last[:300]}"
    if "Traceback" in printed:
        return "foreign", what, f"a traceback: {last[:300]}"
    if over.status == 0:
        return "right", what, ""
    said = [line for line in lines if line.startswith("error: ")]
    if over.status != 2 or len(said) != 1:
        return "foreign", what, f"status {over.status}: {' / '.join(lines[-3:])[:300]}"
    if "\x1b" in said[0]:
        return "foreign", what, f"control characters: {said[0][:300]!r}"
    if there := snapshot(root):
        return "lost", what, f"made {', '.join(list(there)[:4])} and said {said[0][:200]}"
    return "refused", what, said[0]
