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
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is resident now
    except OSError:
        return None

    def resident(key):
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(key))

    before = resident("VmRSS")
    function(*arguments)
    return resident("VmHWM") - before
