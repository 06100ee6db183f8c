"""Test accuracy after checking 5 %, 10 %, ... of the labels: refit on the labels that are still wrong.

Each refit has a seed of its own and is kept as soon as it is done; one at work when its process is killed goes on from
a checkpoint, where its training writes them.
"""

from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock

import numpy as np

from config import UserError, seed, shown
from dataset_debugging.calculate_orders import still_wrong
from dataset_debugging.runs import REMAKE
from models.files import load_npy, save_npy


def refit_seed(run, checkpoint, repeat):
    """The training seed of one refit: the same for all methods, so that they differ in their labels alone."""
    return seed("refit", run, checkpoint, repeat)


def load_refits(run_dir, method, shape):
    """The refits of a method so far, NaN for those to come."""
    path = run_dir.refits(method)
    if not path.exists():
        return np.full(shape, np.nan)
    refits = load_npy(path, REMAKE)
    if refits.shape != shape or refits.dtype != np.float64:
        raise UserError(f"{shown(path)} has {refits.dtype} {refits.shape}, expected float64 {shape}: {REMAKE}")
    if not (np.isnan(refits) | ((refits >= 0) & (refits <= 1))).all():
        raise UserError(f"{shown(path)} holds other numbers than accuracies: {REMAKE}")
    run_dir.check_refitted(path, method)
    return refits


def side_by_side(work, tasks, jobs, **pool):
    """[work(*task) for task in tasks], so many at a time in threads. Stopped, it does not wait for those at work.

    pool: as ThreadPoolExecutor takes it.
    """
    executor = ThreadPoolExecutor(jobs, **pool)
    try:
        futures = [executor.submit(work, *task) for task in tasks]
        for future in as_completed(futures):
            future.result()
    except KeyboardInterrupt:
        executor.shutdown(wait=False, cancel_futures=True)  # they can take minutes
        raise
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()
    return [future.result() for future in futures]


def record_accuracies(run_dir, run, methods, flipped, refit, checkpoints, repeats, jobs, bar):
    """Refit at every checkpoint, `repeats` times, for each method, and write accuracies_<method>.npy.

    refit(flipped points, seed, checkpoint file) -> test accuracy. jobs: refits side by side, in threads. bar: a tqdm
    bar, whose total counts all these refits.
    """
    tables = {method: load_refits(run_dir, method, (checkpoints, repeats)) for method in methods}
    tasks = []
    for method, table in tables.items():
        (order, _), changed = run_dir.load_order(method), run_dir.load_changed(method)
        for c, r in np.argwhere(np.isfinite(table)):
            run_dir.refit_checkpoint(method, c + 1, r).unlink(missing_ok=True)  # killed between two writes
        for c, r in np.argwhere(np.isnan(table)):
            tasks.append((method, c, r, still_wrong(order, flipped, c + 1, changed), refit_seed(run, c + 1, r)))
        bar.total -= int(np.isfinite(table).sum())
    recording, of = Lock(), {method: run_dir.refitted(method) for method in methods}

    def work(method, c, r, points, number):
        checkpoint = run_dir.refit_checkpoint(method, c + 1, r)
        accuracy = refit(points, number, checkpoint)
        with recording:  # by the refit's own thread, so that it is kept whatever happens to the others
            tables[method][c, r] = accuracy
            save_npy(run_dir.refits(method), tables[method], of[method])
            checkpoint.unlink(missing_ok=True)
            bar.update()

    side_by_side(work, tasks, jobs)
    for method, table in tables.items():
        save_npy(run_dir.accuracies(method), table.mean(axis=1), of[method])
