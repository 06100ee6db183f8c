"""Where things are, which device computes, which seeds are drawn, and how a command line ends.

Everything that a user may want to move is an environment variable:
RPS_LJE_ROOT   the folder below which results are written (default: this repository)
RPS_LJE_DATA   the folder of downloaded or unpacked data sets (default: <root>/data)
"""

# ruff: noqa: F401 - commands take all of these from here

import argparse
import hashlib
import os
import re
import sys
import warnings
from pathlib import Path

from models.options import (
    a_file,
    a_file_or,
    a_path,
    a_text,
    any_whole,
    at_least_one,
    at_least_two,
    boolean,
    checked,
    count,
    expanded,
    not_negative,
    number,
    passes,
    portion,
    positive,
    several,
    share,
    whole,
    workers,
)
from models.screen import UserError, cut, one_line, printable, screened
from models.stopping import MESSAGE, until_stopped

CODE_ROOT = Path(__file__).resolve().parent
COMMANDS = "models", "explainer", "dataset_debugging", "scripts"  # the folders of the commands

# The models of the paper, and the published command that trains each.
MODELS = {
    "CNN": "python models/CNN/train.py --lr 0.01 --epochs 10 --saved_path saved_models/base",
    "RNN": "python models/RNN/train.py --lr 1e-3 --epochs 10 --saved_path saved_models/base --use_pretrained True",
    "Xgboost": "python models/Xgboost/train.py",
}


def to_write(path, folder=False):
    """The path of a file, or folder, that can be written as far as can be told before. Raises UserError for others."""
    path = expanded(path)
    if folder and os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{shown(path)} is a file: give a folder")
    if not folder and os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{shown(path)} is a {'folder' if os.path.isdir(path) else 'device'}: give a file")
    above = next(place for place in (path, *path.parents) if os.path.lexists(place) and (folder or place != path))
    if not os.path.isdir(above):
        raise UserError(f"cannot write {shown(path)}: {shown(above)} is a file; choose another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {shown(path)}: {shown(above)} is not writable; choose another folder")
    return path


def _root(name, usual):
    """The folder that an environment variable names. Raises UserError for what can be none."""
    given = os.environ.get(name)
    if given is None:
        return usual
    remedy = f"set {name} to a folder's absolute path, or unset it"
    try:
        folder = expanded(given)
        if not folder.is_absolute():
            raise UserError(f"got {cut(given)}, which is relative")
        above = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        if not os.path.isdir(above):
            raise UserError(f"{above} is no folder")
        if above != folder and not os.access(above, os.W_OK | os.X_OK):
            raise UserError(f"{folder} is not there and cannot be made")
        return folder.resolve()
    except (UserError, OSError, RuntimeError) as error:
        problem = re.split("[:;] (give|write) ", str(error))[0]
        raise UserError(f"{name}: {problem}: {remedy}") from None


def _roots():
    """Where results and data are. In a command a mistake ends the process, in one line and with status 2."""
    try:
        root = _root("RPS_LJE_ROOT", CODE_ROOT)
        return root, _root("RPS_LJE_DATA", root / "data")
    except UserError as error:
        command = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "-").resolve()
        if not any(command.is_relative_to(CODE_ROOT / name) for name in COMMANDS):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


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
    script = Path(script).resolve()
    if not script.is_relative_to(CODE_ROOT):
        raise UserError(f"{script} is not of the installed copy, {CODE_ROOT}: run pip install -e . in the one you use")
    return Path(os.path.normpath(PROJECT_ROOT / script.parent.relative_to(CODE_ROOT) / expanded(path)))


def given_folder(path, script):
    """A run's folder as it is given, which can be written, or None. Called before data are read."""
    return None if path is None else to_write(script_relative(path, script), folder=True)


def data_folder(given=None):
    """The folder of the data sets: the usual one, or `given`. Raises UserError where that one is not there."""
    if given is None:
        return DATA_ROOT
    folder = expanded(given)
    if not os.path.isdir(folder):
        raise UserError(f"there is no folder {shown(folder)}: give the one of the data as --data_dir, or make it")
    return folder


a_data_folder = checked(data_folder)


def shown(path):
    """`path` as a message shows it: relative to the project's root where it lies below it."""
    path = Path(path)
    return printable(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


PROJECT_ROOT, DATA_ROOT = _roots()


def device(name="auto"):
    """The torch device called `name`; "auto" is CUDA where there is one, else the CPU."""
    import torch  # here, so that commands that need no tensors start fast

    if name == "auto":  # under torchrun each process has a GPU of its own
        local = os.environ.get("LOCAL_RANK", "0")
        if not re.fullmatch(r"\d{1,4}", local, re.ASCII):
            raise UserError(f"LOCAL_RANK is {cut(local)}, no number: unset it, or start by torchrun")
        index = int(local)
        return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(name)
    except (RuntimeError, ValueError, OverflowError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise UserError(f"--device: got {cut(name)!r}; give auto, cpu, cuda or cuda:<number>")
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

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, which takes --option=-- for an option without a value and makes it an empty list."""
        args = sys.argv[1:] if args is None else list(args)
        if empty := next((text for text in args if re.fullmatch(r"--\w+=--", text)), None):
            self.error(f"argument {empty[:-3]}: got --; give a value")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        raise UserError(f"{message} (see {self.prog} --help)")

    def add_device(self):
        self.add_argument(
            "--device", type=a_text, default="auto", help="auto (CUDA where there is one), cpu, cuda or cuda:<number>"
        )


@screened()
def run_command(main):
    """Run a command line: a user's mistake or an unusable file ends in one line and status 2; a warning is one line."""
    warnings.showwarning = lambda message, *_, **__: print(f"\rwarning: {one_line(message)}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for terminals that are no UTF-8
    try:
        until_stopped(main)
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
    except KeyboardInterrupt:  # of a process that is not the command's own
        print(f"interrupted; {MESSAGE}", file=sys.stderr)
        sys.exit(130)
