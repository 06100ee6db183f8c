"""Test accuracy after checking 5 %, 10 %, ... of the labels: refit on the labels that are still wrong.

Each refit has a seed of its own and is kept as soon as it is done, so a killed process loses only those at work.
"""

from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from config import UserError, seed, shown
from dataset_debugging.calculate_orders import still_flipped
from dataset_debugging.runs import FRESH
from models.files import load_npy, load_npz, save_npy


def refit_seed(run, checkpoint, repeat):
    """The training seed of one refit: the same for all methods, so that they differ in their labels alone."""
    return seed("refit", run, checkpoint, repeat)


def load_refits(run_dir, method, shape):
    """The refits of a method so far, NaN for those to come."""
    path = run_dir.refits(method)
    if not path.exists():
        return np.full(shape, np.nan)
    refits = load_npy(path, FRESH)
    if refits.shape != shape:
        raise UserError(f"{shown(path)} has shape {refits.shape}, expected {shape}: {FRESH}")
    return refits


def record_accuracies(run_dir, run, methods, flipped, refit, checkpoints, repeats, jobs, progress):
    """Refit at every checkpoint, `repeats` times, for each method, and write accuracies_<method>.npy.

    refit(flipped points, seed) -> test accuracy. jobs: refits side by side, in threads. progress: called with 1 for
    each refit that is there.
    """
    tables = {method: load_refits(run_dir, method, (checkpoints, repeats)) for method in methods}
    tasks = []
    for method, table in tables.items():
        order = load_npz(run_dir.order(method), ["order"], FRESH)["order"]
        for c, r in np.argwhere(np.isnan(table)):
            tasks.append((method, c, r, still_flipped(order, flipped, c + 1), refit_seed(run, c + 1, r)))
        progress(int(np.isfinite(table).sum()))
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(refit, points, number): (method, c, r) for method, c, r, points, number in tasks}
        try:
            for future in as_completed(futures):
                method, c, r = futures[future]
                tables[method][c, r] = future.result()
                save_npy(run_dir.refits(method), tables[method])
                progress(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for method, table in tables.items():
        save_npy(run_dir.accuracies(method), table.mean(axis=1))
