"""Seconds and bytes that a call needs."""

import time
from pathlib import Path


def seconds(function, *arguments):
    """How long a call takes, and what it returns."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def peak_memory(function, *arguments):
    """The most memory that a call needs on top of what is there already, in bytes; None where Linux does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is resident now
    except OSError:
        return None

    before = resident("VmRSS")
    function(*arguments)
    return resident("VmHWM") - before


def resident(key):
    """VmRSS, the memory of this process now, or VmHWM, its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
