"""Every option of every command at its edges: one line and status 2 before anything is read, taken or created."""

import argparse
import ast
import importlib
import os
import re
import sys

import pytest
from conftest import REPOSITORY

import config
from config import UserError

FOLDERS = "models", "explainer", "dataset_debugging", "scripts"
LONG, DEEP = "x" * 300, "d/" * 2000 + "x"
NUMBERS = (
    "", " ", "x", "-1", "0x10", "1_000", "1_000.0", "１", "٣", "1,5", "1 2", "nan", "-nan", "inf", "-inf", "infinity",
    "1e400", "-1e400", "9" * 5000, "99999999999999999999999", "1\n", "\x00", "--", "+", ".", "e5", "1e", "True",
    "\x1b[31m1",
)  # fmt: skip
BEYOND = {"float": ("9" * 5000,), "int": ("9" * 5000, "99999999999999999999999", "4294967296", "1e3", "1.0", "2.")}
HUGE_IS_FINE = "99999999999999999999999"  # for a float
PATHS = "", "a\0b", "a\nb", "a\x1b[2Jb", "a\udcffb", LONG, DEEP, "~nobody-here/x"
TEXTS = "", "a\0b", "\udcff"


def command_files():
    """The files that end in a call of run_command, or of the experiments' main."""
    found = []
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            tail = next(reversed(ast.parse(path.read_text(encoding="utf-8")).body), None)
            if isinstance(tail, ast.If) and re.search(r"run_command\(|EXPERIMENT", ast.unparse(tail)):
                found.append(path.relative_to(REPOSITORY))
    return found


class _Parsed(Exception):
    """Carries the parser that a command has made."""


@pytest.fixture(scope="module")
def parsers():
    """{name of a command: its parser}; those of subcommands by themselves."""
    before, found = config.ArgumentParser.parse_args, {}
    sys.path.insert(0, str(REPOSITORY / "scripts"))

    def caught(parser, *_):
        raise _Parsed(parser)

    config.ArgumentParser.parse_args = caught
    argv, sys.argv = sys.argv, ["command"]
    try:
        for path in command_files():
            name = ".".join(path.with_suffix("").parts).removeprefix("scripts.")
            module = importlib.import_module(name)
            try:
                if hasattr(module, "EXPERIMENT"):
                    importlib.import_module("dataset_debugging.experiment")._parse(module.EXPERIMENT, __file__)
                else:
                    module.main()
            except _Parsed as parsed:
                found[name] = parsed.args[0]
    finally:
        config.ArgumentParser.parse_args = before
        sys.argv = argv
        sys.path.remove(str(REPOSITORY / "scripts"))
    for name, parser in list(found.items()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                del found[name]
                found |= {f"{name} {word}": below for word, below in action.choices.items()}
    return found


def options(parser):
    """The options of a parser that take values."""
    return [a for a in parser._actions if a.nargs != 0 and not isinstance(a, argparse._HelpAction)]


def kind_of(action):
    """What an option takes: "choice", "int", "float", "path", "text" or "bool"."""
    if action.choices is not None:
        return "choice"
    for kind, value in (
        ("bool", "True"),
        ("int", "3"),
        ("float", "0.5"),
        ("path", "some/file"),
        ("text", "some\ntext"),
    ):
        try:
            found = action.type(value)
        except argparse.ArgumentTypeError:
            continue
        if type(found).__name__ == kind or (kind in ("path", "text") and isinstance(found, str)):
            if kind == "path" and _takes(action, "some\ntext"):
                continue
            return kind
    return "folder"  # which must be there


def _takes(action, value):
    try:
        action.type(value)
        return True
    except argparse.ArgumentTypeError:
        return False


def line_of(parser, action, value):
    """The arguments of a command with one value for an option and something for all that it needs."""
    groups = [a for group in parser._mutually_exclusive_groups if group.required for a in group._group_actions]
    needed = [a for a in parser._actions if a.required and a is not action]
    if groups and action not in groups:
        needed.append(groups[0])
    line = []
    for other in needed:
        usual = str(next(iter(other.choices))) if other.choices else {"int": "3"}.get(kind_of(other), "some")
        line += [f"{other.option_strings[0]}={usual}"] if other.option_strings else [usual]
    times = action.nargs if isinstance(action.nargs, int) else 1
    if not action.option_strings:
        return [*line, "--", value]
    if times == 1 and action.nargs is None:
        return [*line, f"{action.option_strings[0]}={value}"]
    return [*line, action.option_strings[0], *[value] * times]


def wrong_values(action):
    kind = kind_of(action)
    if kind in ("int", "float"):
        return [v for v in (*NUMBERS, *BEYOND[kind]) if not (kind == "float" and v == HUGE_IS_FINE)]
    return {"choice": ("", "nope", "\x1b"), "bool": ("", "1", "yes", "Ｔrue")}.get(kind) or (
        TEXTS if kind == "text" else PATHS
    )


def test_every_command_is_walked(parsers):
    names = {name.split()[0] for name in parsers}
    assert len(names) >= 21 and {"models.CNN.train", "benchmark", "explainer.explain"} <= names
    assert sum(len(options(parser)) for parser in parsers.values()) > 150


def test_every_option_says_what_it_takes(parsers):
    for name, parser in parsers.items():
        for action in options(parser):
            assert action.type is not None or action.choices is not None, f"{name} {action.dest}"


def test_values_at_the_edge_are_refused_in_one_line_where_they_are_read(parsers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = 0
    for name, parser in parsers.items():
        for action in options(parser):
            for value in wrong_values(action):
                if value in ("-1", "4294967296") and action.dest == "test_point":  # the data say how many there are
                    continue
                if value.startswith("-") and action.nargs is not None:
                    continue  # an option of its own to argparse
                where = f"{name} {action.dest} {value[:20]!r}"
                with pytest.raises(UserError) as refused:
                    parser.parse_args(line_of(parser, action, value))
                    pytest.fail(where)
                said = str(refused.value)
                assert said.isprintable() and len(said) < 1500, where
                assert (action.option_strings or [action.dest])[0] in said, f"{where}: {said}"
                tried += 1
    assert tried > 2000 and not list(tmp_path.iterdir())


def test_values_within_the_bounds_are_taken(parsers, tmp_path):
    for name, parser in parsers.items():
        for action in options(parser):
            usual = {
                "int": "3",
                "float": "0.5",
                "bool": "false",
                "path": "some/file",
                "text": "-x é",
                "folder": str(tmp_path),
            }
            kind = kind_of(action)
            value = str(next(iter(action.choices))) if kind == "choice" else usual[kind]
            if kind == "text" and action.nargs is not None:
                value = "é"
            found = getattr(parser.parse_args(line_of(parser, action, value)), action.dest)
            assert found is not None, f"{name} {action.dest}"


def test_devices_and_folders_are_no_files_and_files_no_folders(parsers, tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    csv, data_dir, vectors = (
        next(a for a in parsers[name]._actions if a.dest == dest)
        for name, dest in (
            ("dataset_debugging.find_label_errors", "csv"),
            ("models.CNN.train", "data_dir"),
            ("models.RNN.train", "vectors"),
        )
    )
    for action in (csv, vectors):
        for wrong in (tmp_path, tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(argparse.ArgumentTypeError, match="which is a folder or a device: give a file"):
                action.type(str(wrong))
    for wrong in (tmp_path / "file", tmp_path / "mistyped", "/dev/null"):
        with pytest.raises(argparse.ArgumentTypeError, match="there is no folder"):
            data_dir.type(str(wrong))
    assert not (tmp_path / "mistyped").exists()
