"""Try what may damage results: python scripts/fuzz.py --minutes 10

files     damaged bytes and contents of every format that is read, by its own reader
lines     command lines whose options have values at the edge
kills     a training and an experiment, killed before every event of writing, and at random moments
pairs     two processes at once in one folder

Prints a table, and each fault with what makes it again. Ends with status 1 where there is one.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked child has none of its parent's threads

import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(tempfile.mkdtemp(prefix="rps_lje_fuzz_"))
os.environ |= {"RPS_LJE_ROOT": str(ROOT / "root"), "RPS_LJE_DATA": str(ROOT / "root" / "data"), "MPLBACKEND": "Agg"}
os.environ |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")

import shutil  # noqa: E402

from fuzzing.tally import AREAS, Tally, report  # noqa: E402

from config import ArgumentParser, a_path, a_text, at_least_one, positive, run_command, whole  # noqa: E402
from models.files import save_text  # noqa: E402


def main():
    parser = ArgumentParser(description="Try what may damage results, and tell what became of it.")
    add = parser.add_argument
    add("--minutes", type=positive, default=10.0, help="time for all of it, but for kills before every event")
    add("--cases", type=at_least_one, help="damaged files of each format, in place of a time")
    add("--seed", type=whole, default=0, help="seed of everything that is drawn")
    add("--only", type=a_text, help="an area, or a format whose name has this in it")
    add("--case", type=whole, help="with --only: this number alone")
    add("--output", type=a_path, help="also write the table, in Markdown, to this file")
    options = parser.parse_args()
    tally, begun = Tally(), time.monotonic()
    try:
        chosen = [area for area in AREAS if options.only in (None, area)] or ["files"]
        for number, area in enumerate(chosen):
            rest = options.minutes * 60 - (time.monotonic() - begun)
            until = time.monotonic() + max(1.0, rest * _share(chosen[number:]))
            AREAS[area](tally, options, ROOT / "work", until)
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)
    text = report(tally, options, time.monotonic() - begun)
    print(text)
    if options.output:
        save_text(options.output, text + "\n")
    sys.exit(1 if tally.faults else 0)


def _share(areas):
    """What share of the time that is left the first of these areas gets."""
    weights = {"files": 6, "lines": 3, "kills": 3, "pairs": 1}
    return weights[areas[0]] / sum(weights[area] for area in areas)


if __name__ == "__main__":
    run_command(main)
