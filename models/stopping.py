"""How a command ends that is stopped: Ctrl-C, SIGTERM and SIGHUP are one line and the status 130, 143 and 129.

Every command calls `stoppable` in its first lines, before the seconds in which torch and others are imported. A signal
is then raised as `Stopped` within the command's main, so that whatever it has opened is closed and its temporary files
are removed, and ends the process on the spot anywhere else. Nothing is printed after the line; a command that does not
come to its end within PATIENCE is ended. Child processes leave these signals to their parent, and end with it.

Imports little, because a signal finds the interpreter's own traceback until `stoppable` is called.
"""

import _thread
import contextlib
import os
import signal
import sys
import time

PATIENCE = 3.0  # seconds for closing files, and for leaving code that holds an exception back
MESSAGE = "whatever is written is whole: the same command goes on, or begins again"

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}  # SIGHUP is not known everywhere
_SIGNALS = {getattr(signal, name): word for name, word in _WORDS.items() if hasattr(signal, name)}
_process = None  # that called `stoppable`
_stopped = []  # the signals that came
_temporaries = set()


class Stopped(KeyboardInterrupt):
    """A signal has stopped the command."""


def stoppable():
    """From here on a signal that stops this process is one line. A signal that it was begun to ignore stays ignored."""
    global _process
    if "IPython" in sys.modules:  # %run: the process is another's
        return
    _process = os.getpid()
    with contextlib.suppress(ValueError):  # of other threads than the main one
        for number in _SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_as_child)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # a line that is printed is not lost


def until_stopped(main):
    """Call main(), the one place where `Stopped` is raised; if it is, end the process."""
    try:
        main()
    except Stopped:
        _end(128 + _stopped[0])


@contextlib.contextmanager
def temporary(path):
    """Within the block, `path` is a temporary file, which goes when the process is stopped, whoever is writing it."""
    _temporaries.add(path)
    try:
        yield path
    finally:
        _temporaries.discard(path)


def end_with_parent():
    """In a process of `multiprocessing`: leave signals to the parent, and end when it ends, if only by SIGKILL."""
    import multiprocessing.connection

    _as_child()
    parent = multiprocessing.parent_process()

    def wait():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    _thread.start_new_thread(wait, ())


def _stop(number, frame):
    """The handler of the signals."""
    status = 128 + number
    if os.getpid() != _process:  # a child that has not yet left it to its parent
        os._exit(status)
    _stopped.append(number)
    if len(_stopped) > 1:
        return
    with contextlib.suppress(RuntimeError):  # the interpreter is at its own end
        _thread.start_new_thread(_end_later, (status,))
    _say(f"{_SIGNALS[number]}; {MESSAGE}")
    if _is_below(until_stopped, frame):
        raise Stopped
    _end(status)


def _is_below(function, frame):
    """Whether `frame` has been called, if not directly, by `function`."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is function.__code__:
            return True
    return False


def _say(line):
    """Print the last line on stderr, below a progress bar where there is one."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
        os.write(2, ("\n" * bool(len(bars)) + line + "\n").encode())
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _end_later(status):
    time.sleep(PATIENCE)
    _end(status)


def _end(status):
    """End the process with its temporary files and children, without waiting for its threads."""
    try:
        for path in tuple(_temporaries):
            with contextlib.suppress(OSError):
                os.unlink(path)
        if children := getattr(sys.modules.get("multiprocessing"), "active_children", None):
            for child in children():
                child.kill()
    finally:
        os._exit(status)


def _as_child():
    """A terminal sends Ctrl-C to children as well, but it is their parent that ends them."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
