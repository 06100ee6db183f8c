"""How much memory there is, asked before it is taken."""

from pathlib import Path

from config import UserError

_GROUP = Path("/sys/fs/cgroup")


def available():
    """The bytes that this process may still take, by the system and by its group; None where nobody says."""
    found = []
    try:
        words = Path("/proc/meminfo").read_text().split()
        found.append(1024 * int(words[words.index("MemAvailable:") + 1]))
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            left = int((_GROUP / limit).read_text()) - int((_GROUP / used).read_text())
            found.append(max(0, left))
        except (OSError, ValueError):  # no group, or no limit
            continue
    return min(found, default=None)


def room(needed, what):
    """Raises UserError where `what`, such as an option with its value, needs more bytes than there are."""
    there = available()
    if there is not None and needed > there:
        raise UserError(f"{what} needs {needed / 1e9:,.1f} GB of memory, and {there / 1e9:,.1f} GB are free: give less")
