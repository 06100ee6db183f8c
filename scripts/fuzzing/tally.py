"""The areas that are tried, how often each outcome came about, and the table of it."""

import os
import shutil
import signal
import sys
import time
import zlib
from collections import Counter

import numpy as np
from tqdm import tqdm

from config import PROJECT_ROOT, UserError
from dataset_debugging import figures  # noqa: F401 - slow to import in each child
from fuzzing import lines, of_networks, of_runs, of_users
from fuzzing.children import members
from fuzzing.judging import fuzz
from fuzzing.kills import SECONDS, Command, Killing, finished, started
from models.files import markdown_table

FORMATS = (*of_runs.FORMATS, *of_networks.FORMATS, *of_users.FORMATS)
COLUMNS = {
    "refused": "refused",
    "right": "right",
    "undetectable": "read as it stands",
    "foreign": "foreign errors",
    "crash": "crashes",
    "other": "silently other",
    "lost": "files lost or left",
    "left": "processes left",
}
FAULTS = list(COLUMNS)[3:]
SHOWN = 5  # faults of one kind and area that are told
STEP = 100  # damaged files of a format at a time
COMMANDS = (
    Command("CNN training", lines.command("models.CNN.train"),
            "--dataset digits --num_of_samples 20 --epochs 3 --weights none --keep_moments --saved_path {folder}",
            ("--lr", "0.02")),
    Command("XGBoost experiment", lines.command("dataset_debugging.experiment_dataset_debugging_Xgboost"),
            "--num_of_run 1 --average_over_runs 1 --methods ours --path {folder}",
            ("--lr", "0.1", "--overwrite")),
    Command("CDEP training", lines.command("models.CDEP.train"),
            "--dataset decoydigits --epochs 3 --steps 2 --saved_path {folder}", ()),
)  # fmt: skip
TOKENS = Command("tokenizing", lines.command("models.RNN.train"),
                 "--dataset snippets --use_pretrained False --num_of_samples 20 --max_length 4 --hidden_dim 2 "
                 "--epochs 1 --saved_path {folder}")  # fmt: skip


class Tally:
    """How often each outcome came about in each area, and the faults, in words."""

    def __init__(self):
        self.counts, self.faults = {}, []

    def add(self, area, outcome, again, said):
        """again: what makes it again."""
        self.counts.setdefault(area, Counter())[outcome] += 1
        if outcome in FAULTS:
            self.faults.append((area, outcome, again, said))


def files(tally, options, folder, until):
    """Damaged files, some of each format in turn, for as long as there is time."""
    chosen = [form for form in FORMATS if options.only in (None, "files") or options.only in form.name]
    if not chosen:
        raise UserError(f"--only: got {options.only}; give {', '.join(AREAS)}, or a part of a format's name")
    most = options.cases or 10**9
    numbers = dict.fromkeys(chosen, 0)
    folder.mkdir(parents=True, exist_ok=True)
    deadline = None if options.cases or options.case is not None else until
    with tqdm(desc="damaged files", unit=" files", disable=None, leave=False) as bar:
        while any(count < most for count in numbers.values()) and (deadline is None or time.monotonic() < deadline):
            for form in chosen:
                first, last = numbers[form], min(most, numbers[form] + STEP)
                wanted = range(first, last) if options.case is None else [options.case]
                for case in fuzz(form, options.seed, wanted, folder, deadline):
                    again = f'--only "{form.name}" --seed {options.seed} --case {case.number}'
                    tally.add(f"files: {form.name}", case.outcome, again, f"{case.what}: {case.said}")
                    bar.update()
                numbers[form] = last if options.case is None else most


def command_lines(tally, options, folder, until):
    """Options of every command with values at the edge."""
    mains = {name: lines.command(name) for name in lines.MODULES}
    sys.argv = ["fuzz"]
    parsers = {name: lines.parser_of(main) for name, main in mains.items()}
    number, names = 0, list(mains)
    with tqdm(desc="command lines", disable=None, leave=False) as bar:
        while time.monotonic() < until and (options.cases is None or number < options.cases):
            rng, name = np.random.default_rng([options.seed, number]), names[number % len(names)]
            arguments = [*lines.MODULES[name].split(), *lines.sampled(parsers[name], rng)]
            found, what, said = lines.outcome(name, mains[name], arguments, PROJECT_ROOT)
            tally.add("command lines", found, what, said)
            number += 1
            bar.update()


def kills(tally, options, folder, until):
    """Kills before every event of writing, then at random moments; of tokenizing, for its workers' sake."""
    for command in COMMANDS[:2]:
        killing = Killing(command, _empty(folder))
        step = 1 if options.cases is None else max(1, killing.events // options.cases)
        for event in tqdm(range(1, killing.events + 1, step), f"kills of {command.name}", disable=None, leave=False):
            found, what, said = killing.before(event)
            tally.add(f"kills before events: {command.name}", found, what, said)
        for number in range(options.cases or 30):
            rng = np.random.default_rng([options.seed, zlib.crc32(command.name.encode()), number])
            found, what, said = killing.at_random(rng)
            tally.add(f"kills at random: {command.name}", found, what, said)

    _tokenizing(tally, options, _empty(folder))


def _tokenizing(tally, options, folder):
    """Kill a command whose workers are at work, and look whether they end."""
    cache = PROJECT_ROOT / "models" / "RNN" / "data" / "cache"
    for number in range(min(3, options.cases or 3)):
        shutil.rmtree(cache, ignore_errors=True)
        pid = started(TOKENS, folder / "tokens")
        deadline = time.monotonic() + SECONDS
        while len(members(pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3 * number)
        os.kill(pid, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        left = finished(pid, folder / "tokens").left
        tally.add("kills of tokenizing", "left" if left else "right", f"{0.3 * number} s", f"{left} processes")


def pairs(tally, options, folder, until):
    """Two processes at once, with the same arguments and with others."""
    for command in COMMANDS:
        killing = Killing(command, _empty(folder))
        for number in range(min(10, options.cases or 10)):
            rng = np.random.default_rng([options.seed, zlib.crc32(command.name.encode()), number])
            more = command.named if number % 2 else ()
            found, what, said = killing.two(rng, more)
            tally.add(f"two processes: {command.name}", found, what, said)


def _empty(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


AREAS = {"files": files, "lines": command_lines, "kills": kills, "pairs": pairs}


def report(tally, options, seconds):
    """The table in Markdown, and the faults."""
    header, rows = ["area", "tried", *COLUMNS.values()], []
    for area, counts in tally.counts.items():
        rows.append([area, f"{sum(counts.values()):,}", *(f"{counts[outcome]:,}" for outcome in COLUMNS)])
    total = sum(tally.counts.values(), Counter())
    rows.append(["all", f"{sum(total.values()):,}", *(f"{total[outcome]:,}" for outcome in COLUMNS)])
    parts = [f"Seed {options.seed}, {seconds / 60:.1f} minutes.", markdown_table(header, rows)]
    seen = Counter()
    for area, outcome, again, said in tally.faults:
        seen[area, outcome] += 1
        if seen[area, outcome] <= SHOWN:
            parts.append(f"{area} [{outcome}] {again}\n    {said}")
    return "\n\n".join(parts)
