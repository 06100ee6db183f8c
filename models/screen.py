"""What a terminal and a page show of texts from outside: control characters are written out, never obeyed.

Names of files, columns, classes and labels, cells and texts come from whoever made them. A control sequence among them
would move a terminal's cursor or set its title, and a mark of direction would show a text in another order than it has.
"""

import contextlib
import re
import sys
import unicodedata

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format and direction, halves of letters, ends of lines
HARMLESS = "\u00ad\u200c\u200d"  # where a word may be cut, and how letters join
BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
CURSOR = re.compile(r"(\n|\x1b\[A)*")  # all that tqdm writes where it has several bars


def printable(text, keep=""):
    r"""A text with what cannot be seen written out, such as \x1b or \u202e, but for the characters of `keep`."""
    text = str(text)
    if text.isprintable():
        return text
    kept = HARMLESS + keep
    return "".join(c if c in kept or unicodedata.category(c) not in UNSEEN else _written(c) for c in text)


def one_line(text):
    """The same in one line."""
    return printable(BREAKS.sub(" ", str(text)).strip())


def cut(text, most=60):
    """A text as a message shows it, its end left out where it is long."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text):,} letters)"


class UserError(ValueError):
    """A mistake that the user can mend; its message says what, got what, do what, in one line that can be printed."""

    def __init__(self, message=""):
        super().__init__(one_line(message))


def _written(letter):
    return letter.encode("unicode_escape").decode()


class _Screened:
    """A stream that writes nothing but what `printable` lets through; else it is the stream itself."""

    def __init__(self, stream, keep, cursor=None):
        self._stream, self._keep, self._cursor = stream, keep, cursor

    def write(self, text):
        self._stream.write(text if self._cursor and self._cursor.fullmatch(text) else printable(text, self._keep))
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._stream, name)


@contextlib.contextmanager
def screened():
    """All that is printed within the block goes through `printable`; a progress bar may go back to its line's begin."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Screened(streams[0], "\n\t"), _Screened(streams[1], "\n\t\r", CURSOR)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
