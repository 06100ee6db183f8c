"""Damaged files, read by this project's own readers in forked children, and what became of each."""

import json
import os
import select
import shutil
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import UserError
from fuzzing import damage, mutations
from fuzzing.children import ended, forked
from fuzzing.formats import Format, same
from models import checksums, files, training

SECONDS = 20.0  # for one file
BATCH = 200  # files that one child reads
SOUND = "refused", "right", "undetectable"
FAULTS = "foreign", "crash", "other", "lost"


class Case(NamedTuple):
    """One damaged file. what: was damaged, in words. outcome: of SOUND or FAULTS. said: by the reader."""

    name: str
    seed: int
    number: int
    what: str
    outcome: str
    said: str


def generator(name, seed, number):
    """The random numbers of a case."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


def damaged(form: Format, path, rng):
    """Damage a file in its place: what was done in words, and whether its reader must notice."""
    if form.kind and rng.random() < 0.5:
        return _changed(form, path, rng)
    words, data = damage.of_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    return words, form.checked


def _changed(form, path, rng):
    """A well-formed file that holds something else, as our writers write it."""
    mine = {"training": checksums.training_of(path)} if form.checked and form.kind in ("npz", "tensors") else {}
    if form.kind == "npz":
        with np.load(path, allow_pickle=False) as file:
            words, strict, arrays = mutations.of_arrays(dict(file), rng, form.loose, form.nan)
        _write_arrays(path, arrays, mine)
    elif form.kind == "npy":
        words, strict, array = mutations.of_array(np.load(path, allow_pickle=False), rng, bool(form.nan))
        if array.dtype.kind == "O":
            np.save(path, array, allow_pickle=True)
        else:
            files.save_npy(path, array)
    elif form.kind == "json":
        words, strict = _write_json(form, path, rng)
    elif form.kind == "tensors":
        words, strict, tree = mutations.of_tree(training.load_tensors(path, ""), rng, True, form.loose)
        training.save_tensors(path, tree, **mine)
    else:
        words, text = damage.of_text(path.read_text(encoding="utf-8"), rng)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return words, form.checked
    return words, strict


def _write_arrays(path, arrays, mine):
    if any(array.dtype.kind == "O" for array in arrays.values()):
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, array, allow_pickle=True)
    else:
        files.save_npz(path, **mine, **arrays)


def _write_json(form, path, rng):
    value = json.loads(path.read_text(encoding="utf-8"))
    value.pop("checksum", None)
    if rng.random() < 0.05:
        path.write_text('{"a":' * 20000 + "1" + "}" * 20000)
        return "nested 20,000 times", True
    if rng.random() < 0.05:
        path.write_text(json.dumps([value]))
        return "a list around it", True
    words, strict, value = mutations.of_tree(value, rng, loose=form.loose)
    if isinstance(value, dict):
        files.save_json(path, value)
    else:
        path.write_text(json.dumps(value))
    return words, strict


def judged(form: Format, folder, original, seed, number):
    """The `Case` of one damaged file. folder: the sound instance, which is as it was afterwards."""
    target, sound = folder / form.file, listing(folder)
    rng, before = generator(form.name, seed, number), target.read_bytes()
    words, strict = damaged(form, target, rng)
    there = listing(folder)
    outcome, said = _read(form, folder, original, strict)
    if outcome == "refused" and listing(folder) != there:
        now = listing(folder)
        changed = sorted(str(p.relative_to(folder)) for p in {*now, *there} if now.get(p) != there.get(p))
        outcome, said = "lost", f"changed {', '.join(changed)} and refused: {said}"
    for path in sorted({*listing(folder)} - {*sound}, reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    target.write_bytes(before)
    return Case(form.name, seed, number, words, outcome, said)


def _read(form, folder, original, strict):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = form.read(folder)
        except UserError as error:
            return ("refused" if "\n" not in str(error).strip() else "foreign"), str(error)
        except Exception as error:
            where = error.__traceback__
            while where.tb_next:
                where = where.tb_next
            place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
            return "foreign", f"{type(error).__name__} at {place}: {str(error)[:200]}"
    if same(value, original):
        return "right", ""
    foreign = [w for w in caught if not issubclass(w.category, UserWarning)]
    if foreign:
        return "foreign", f"a warning: {foreign[0].category.__name__}: {str(foreign[0].message)[:200]}"
    return ("other" if strict else "undetectable"), "other values"


def listing(folder):
    """{path: (size, time)} of the files below a folder, and {path: None} of its folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found[path] = (status.st_size, status.st_mtime_ns) if path.is_file() else None
    return found


def fuzz(form: Format, seed, numbers, folder, until=None):
    """Yield the `Case` of each number. until: the time.monotonic() at which no further one begins."""
    numbers = list(numbers)
    while numbers and (until is None or time.monotonic() < until):
        some = numbers[:BATCH]
        done = 0
        for case in _batch(form, seed, some, folder, until):
            done += 1
            yield case
        numbers = numbers[done:]
        if not done:
            return


def _batch(form, seed, numbers, folder, until):
    """Cases of one child; the last one may be that at which it has crashed."""
    reading, writing = os.pipe()

    def work():
        os.close(reading)
        own = folder / str(os.getpid())
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        form.make(own)
        original = form.read(own)
        shutil.rmtree(own)
        own.mkdir()
        form.make(own)  # again, since some readers write
        for number in numbers:
            if until is not None and time.monotonic() > until:
                break
            os.write(writing, json.dumps(judged(form, own, original, seed, number)).encode() + b"\n")
        shutil.rmtree(own)

    output = folder / "output"
    pid = forked(work, output)
    os.close(writing)
    count = 0
    with os.fdopen(reading, "rb") as lines:
        for line in _lines(lines):
            count += 1
            yield Case(*json.loads(line))
    over = ended(pid, 0.0 if count < len(numbers) and not _closing(pid) else SECONDS)
    shutil.rmtree(folder / str(pid), ignore_errors=True)
    if over.status == 0:
        return
    if over.status is not None:  # of this module, not of the reader
        raise RuntimeError(f"{form.name}, seed {seed}, case {numbers[min(count, len(numbers) - 1)]}: {_tail(output)}")
    said = f"signal {over.signal}{' after the time allowed' if over.late else ''}"
    if count < len(numbers):
        yield Case(form.name, seed, numbers[count], "", "crash", f"{said}: {_tail(output)}")


def _tail(output):
    return " ".join(output.read_text(errors="replace").split())[-300:]


def _closing(pid):
    """Whether a child is at its end, or just about to be."""
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.005)
    return False


def _lines(file):
    """The lines of a pipe, until it is closed or says nothing for too long."""
    waiting, first = b"", True
    while True:
        ready, _, _ = select.select([file], [], [], SECONDS * (3 if first else 1))
        data = os.read(file.fileno(), 2**16) if ready else b""
        if not data:
            return
        first = False
        *whole, waiting = (waiting + data).split(b"\n")
        yield from whole
