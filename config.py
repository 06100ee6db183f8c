"""Where things are, which device computes, which seeds are drawn, and how a command line ends.

Everything that a user may want to move is an environment variable:
RPS_LJE_ROOT   the folder below which results are written (default: this repository)
RPS_LJE_DATA   the folder of downloaded or unpacked data sets (default: <root>/data)
"""

import argparse
import hashlib
import os
import sys
import warnings
from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parent
PROJECT_ROOT = Path(os.environ.get("RPS_LJE_ROOT") or CODE_ROOT).expanduser().resolve()
DATA_ROOT = Path(os.environ.get("RPS_LJE_DATA") or PROJECT_ROOT / "data").expanduser().resolve()

# The models of the paper, and the published command that trains each.
MODELS = {
    "CNN": "python models/CNN/train.py --lr 0.01 --epochs 10 --saved_path saved_models/base",
    "RNN": "python models/RNN/train.py --lr 1e-3 --epochs 10 --saved_path saved_models/base --use_pretrained True",
    "Xgboost": "python models/Xgboost/train.py",
}


class UserError(ValueError):
    """A mistake that the user can mend; its message says what, got what, do what, in one line."""


def usual_run(*own):
    """A training's default --saved_path: the base run, or one named by what is the user's own (falsy: nothing)."""
    return "_".join(["saved_models/base", *(str(name) for name in own if name)])


def base_folder(model):
    """The folder of a model's base run: `model/` and `calculated_weights/` lie below it."""
    return PROJECT_ROOT / "models" / model / "saved_models" / "base"


def run_name(model, folder):
    """A name for what is made of a run: the model's, with that of its folder where this is not the base run."""
    return model if Path(folder) == base_folder(model) else f"{model}_{Path(folder).name}"


def script_relative(path, script):
    """`path` as the published commands mean it: relative to the folder of `script` (its `__file__`)."""
    if not str(path):
        raise UserError("got an empty path: give a folder or leave the option out")
    script = Path(script).resolve()
    if not script.is_relative_to(CODE_ROOT):
        raise UserError(f"{script} is not of the installed copy, {CODE_ROOT}: run pip install -e . in the one you use")
    return Path(os.path.normpath(PROJECT_ROOT / script.parent.relative_to(CODE_ROOT) / expanded(path)))


def expanded(path):
    """`path` with a leading ~ or ~name written out. Raises UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"got the path {path}: {error}; write it out") from None


def shown(path):
    """`path` as a message shows it: relative to the project's root where it lies below it."""
    path = Path(path)
    return str(path.relative_to(PROJECT_ROOT)) if path.is_relative_to(PROJECT_ROOT) else str(path)


def device(name="auto"):
    """The torch device called `name`; "auto" is CUDA where there is one, else the CPU."""
    import torch  # here, so that commands that need no tensors start fast

    if name == "auto":  # under torchrun each process has a GPU of its own
        index = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise UserError(f"--device: got {name!r}; give auto, cpu, cuda or cuda:<number>")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return chosen


def seed(*names):
    """A seed in [0, 2**31) that depends on its names alone: `seed("refit", run, checkpoint, repeat)`."""
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there are any."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit status 2."""

    def __init__(self, **settings):
        super().__init__(formatter_class=_Help, allow_abbrev=False, **settings)

    def error(self, message):
        raise UserError(f"{message} (see {self.prog} --help)")

    def add_device(self):
        self.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda or cuda:<number>")


def number(kind, condition, wanted):
    """An argparse type: a number of `kind` for which `condition` holds, else an error that says what is `wanted`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not condition(value):
            raise argparse.ArgumentTypeError(f"got {text}; give {wanted}")
        return value

    return parse


positive = number(float, lambda x: 0 < x < float("inf"), "a number above 0")
not_negative = number(float, lambda x: 0 <= x < float("inf"), "0 or a number above it")
share = number(float, lambda x: 0 < x < 1, "a number between 0 and 1")
portion = number(float, lambda x: 0 <= x < 1, "a number in [0, 1)")
at_least_one = number(int, lambda x: x >= 1, "a whole number of at least 1")
at_least_two = number(int, lambda x: x >= 2, "a whole number of at least 2")
whole = number(int, lambda x: 0 <= x < 2**32, "a whole number in [0, 2**32)")


def boolean(text):
    """An argparse type: True or False, as the published commands write it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"got {text}; give True or False")
    return text.lower() == "true"


def run_command(main):
    """Run a command line: a user's mistake or an unusable file ends in one line and status 2; a warning is one line."""
    warnings.showwarning = lambda message, *_, **__: print(f"\rwarning: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for terminals that are no UTF-8
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # of a reader, such as head, that has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: cannot use {error.filename}: {error.strerror or error}; give another path", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; whatever is written is whole", file=sys.stderr)
        sys.exit(130)
