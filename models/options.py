"""What an option may be: numbers with bounds, texts, and paths that files can have; checked before anything is done."""

import argparse
import os
import re
import unicodedata
from pathlib import Path

from models.screen import UserError, cut

MOST = 10**9  # of a whole number, where an option says nothing else
LONGEST_NAME, LONGEST_PATH = 200, 3000  # bytes; systems take 255 and 4,095, and temporary names are longer
_WRITTEN = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|nan)", re.ASCII)


def number(kind, condition, wanted):
    """An argparse type: a number of `kind` for which `condition` holds, else an error that says what is `wanted`.

    Numbers are written in plain digits: no 1_000, no 0x10, no digits of other scripts.
    """

    def parse(text):
        try:
            value = kind(text) if _WRITTEN.fullmatch(text) else None
        except ValueError:
            value = None
        if value is None or not condition(value):
            raise argparse.ArgumentTypeError(f"got {cut(text)}; give {wanted}")
        return value

    return parse


def count(least, most=MOST):
    """An argparse type: a whole number from `least` to `most`."""
    return number(int, lambda x: least <= x <= most, f"a whole number of at least {least}, at most {most:,}")


positive = number(float, lambda x: 0 < x < float("inf"), "a number above 0")
not_negative = number(float, lambda x: 0 <= x < float("inf"), "0 or a number above it")
share = number(float, lambda x: 0 < x < 1, "a number between 0 and 1")
portion = number(float, lambda x: 0 <= x < 1, "a number in [0, 1)")
at_least_one = count(1)
at_least_two = count(2)
several = count(1, 10_000)  # runs, seeds, measurements: each of them costs memory or a file
passes = count(1, 1_000_000)  # over the data
workers = count(1, 1024)
any_whole = number(int, lambda x: abs(x) < 10**18, "a whole number")  # whose bounds the data say
whole = number(int, lambda x: 0 <= x < 2**32, "a whole number in [0, 2**32)")


def expanded(path):
    """`path` with a leading ~ or ~name written out.

    Raises UserError where there is no such user, and for what no file of ours can be called: nothing, control
    characters, what is no UTF-8, and names that are too long.
    """
    text = os.fspath(path)
    if not text:
        raise UserError("got an empty path: give a folder or a file, or leave the option out")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise UserError(f"got the path {cut(text)}, with a control character or what is no UTF-8: give another name")
    if len(text.encode()) > LONGEST_PATH or max(len(part.encode()) for part in text.split(os.sep)) > LONGEST_NAME:
        raise UserError(f"got the path {cut(text)}, which is too long: give a shorter one")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"got the path {path}: {error}; write it out") from None


def checked(check):
    """An argparse type: a text for which `check` raises no UserError."""

    def parse(text):
        try:
            check(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return parse


def _plain_text(text):
    if not text or any(unicodedata.category(letter) == "Cs" or letter == "\0" for letter in text):
        raise UserError(f"got {cut(text)!r}; give a text in UTF-8")


def _no_device(text):
    if os.path.exists(expanded(text)) and not os.path.isfile(expanded(text)):
        raise UserError(f"got {text}, which is a folder or a device: give a file")


a_text = checked(_plain_text)
a_path = checked(expanded)
a_file = checked(_no_device)


def a_file_or(*words):
    """An argparse type: a file, or one of some words."""
    return lambda text: text if text in words else a_file(text)


def boolean(text):
    """An argparse type: True or False, as the published commands write it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"got {text}; give True or False")
    return text.lower() == "true"
