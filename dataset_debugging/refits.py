"""What the accuracy after refits on the ResNet-20 depends on: where a refit begins, and its learning rate.

python dataset_debugging/refits.py

Takes the orders of one run of the CNN experiment in bfloat16 and refits at a few checkpoints, in RPS-LJE's order and in
a random one: beside the experiment's own refits, with the learning rate of the training on flipped labels, and going on
from the network that this training has left. Goes on where it was stopped. Writes
dataset_debugging/results/cnn_bfloat16_refits.md, a section of REPRODUCTION.md.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import os
from threading import Lock

import numpy as np
import torch
from tqdm import tqdm

from config import (
    PROJECT_ROOT,
    ArgumentParser,
    UserError,
    a_data_folder,
    a_file_or,
    device,
    run_command,
    shown,
    whole,
    workers,
)
from dataset_debugging.accuracies import load_refits, refit_seed, side_by_side
from dataset_debugging.calculate_orders import CHECKPOINTS, RANDOM, still_wrong
from dataset_debugging.experiment_dataset_debugging_cnn import EXPERIMENT
from dataset_debugging.networks import flipped_labels
from dataset_debugging.results import ACCURACY, FOLDERS, LABELS, RESULTS, published
from dataset_debugging.runs import FRESH, REMAKE, RunDir
from models.CNN.train import accuracy
from models.CNN.utils_cifar import WEIGHTS, ImageBatches, Start, load, load_network
from models.files import load_json, load_npy, markdown_table, save_json, save_text
from models.training import Schedule, binary_loss, fit

NAME = "cnn_bfloat16"
REFITTED = "--train_lr or --retrain_lr to the experiment"  # whose learning rates these are
CHECKED = ("ours", 1), ("ours", 8), (RANDOM, 8)  # method, and checkpoint in steps of 5 %
PROTOCOLS = {  # whether a refit goes on from the network trained on the flipped labels, and whose learning rate it has
    "the experiment's: starting weights": (False, "retrain_lr"),
    "starting weights": (False, "train_lr"),
    "the network trained on the flipped labels": (True, "retrain_lr"),
}

EXPLANATION = """### What the accuracy after refits depends on

Written by `python dataset_debugging/refits.py`; run {run}, one refit of {epochs} epochs a cell. The network trained on
the flipped labels, before any label is checked, has a test accuracy of {before:.3f}.

"""


class Refits:
    """A run whose orders are there, and its refits by these protocols."""

    def __init__(self, path, number, data, start):
        self.number, self.dir, self.data, self.start = number, RunDir(path), data, start
        if not all(self.dir.order(method).exists() for method, _ in CHECKED):
            raise UserError(f"{shown(path)} has no orders of RPS-LJE and random: run its experiment first")
        self.arguments = load_json(self.dir.json, FRESH).get("arguments", {})
        if self.arguments.get("data") != f"{data.fingerprint}-{start.fingerprint}":
            raise UserError(f"{shown(path)} is of other images or starting weights: give its --data_dir and --weights")
        shape = EXPERIMENT.checkpoints, self.arguments["average_over_runs"]
        self.own = {at: load_refits(self.dir, at[0], shape)[at[1] - 1, 0] for at in CHECKED}  # the first of each
        if not np.isfinite(list(self.own.values())).all():
            raise UserError(f"{shown(path)} has no refits of RPS-LJE and random yet: run its experiment to its end")
        flips = load_npy(self.dir.flips, REMAKE)
        self.flipped = flips[: int(len(flips) * self.arguments["flip_portion"])]
        self.path, self.recording = path / "refits.json", Lock()
        self.known = load_json(self.path, REMAKE) if self.path.exists() else {}

    def trained(self):
        """The network that was trained on the flipped labels."""
        network = load_network(self.dir.path)
        return network.to(self.data.x_train.device, memory_format=torch.channels_last)

    def accuracy(self, protocol, method, checkpoint):
        """The test accuracy after one refit: the experiment's own or one that is known, else trained and kept."""
        go_on, lr = PROTOCOLS[protocol]
        a, key = self.arguments, f"{protocol}, {lr}, {method}, {checkpoint}"
        if protocol == next(iter(PROTOCOLS)):
            return self.own[method, checkpoint]
        kept = self.path.with_name(f"refits_{list(PROTOCOLS).index(protocol)}_{method}_{checkpoint}.checkpoint")
        if key in self.known:
            kept.unlink(missing_ok=True)  # killed between the two writes below
            return self.known[key]
        wrong = still_wrong(self.dir.load_order(method)[0], self.flipped, checkpoint)
        batches = ImageBatches(self.data.x_train, flipped_labels(self.data.y_train, wrong))
        network = self.trained() if go_on else self.start.network(batches.device)
        schedule = Schedule(a["retrain_epochs"], a[lr], a["batch_size"], bfloat16=a["bfloat16"], lower=REFITTED)
        more = {"checkpoint": kept, "identity": f"{key} {a['data']}"}
        fit(network, batches, binary_loss, schedule, refit_seed(self.number, checkpoint, 0), **more)
        found = accuracy(network, self.data)
        with self.recording:
            self.known |= {key: found}
            save_json(self.path, self.known)
            kept.unlink(missing_ok=True)
        return found


def report(refits, cells):
    """The section of REPRODUCTION.md. cells: accuracies by (protocol, method, checkpoint)."""
    theirs = published(NAME)
    theirs = theirs[theirs["quantity"] == ACCURACY].set_index(["method", "fraction_checked"])["mean"]
    header = ["a refit begins with", "learning rate"]
    header += [f"{LABELS[method]}, {checkpoint / CHECKPOINTS:.0%} checked" for method, checkpoint in CHECKED]
    lines = [["published", "0.001", *(f"{theirs[LABELS[m], c / CHECKPOINTS]:.3f}" for m, c in CHECKED)]]
    for protocol, (_, lr) in PROTOCOLS.items():
        values = (f"{cells[(protocol, *at)]:.3f}" for at in CHECKED)
        lines.append([protocol, f"{refits.arguments[lr]:g}", *values])
    about = {"run": refits.number, "epochs": refits.arguments["retrain_epochs"]}
    return EXPLANATION.format(**about, before=accuracy(refits.trained(), refits.data)) + markdown_table(header, lines)


def main():
    parser = ArgumentParser(description="Refit one run of the CNN experiment in bfloat16 by other protocols.")
    parser.add_argument("--run", type=whole, default=0, help="number of the run")
    parser.add_argument("--data_dir", type=a_data_folder, help="folder of the images")
    parser.add_argument(
        "--weights", type=a_file_or(*WEIGHTS), default="auto", help=f"starting weights: {', '.join(WEIGHTS)}, or a file"
    )
    parser.add_argument("--jobs", type=workers, default=min(4, os.cpu_count()), help="refits side by side")
    parser.add_device()
    options = parser.parse_args()
    data = load("cifar", options.data_dir, device=device(options.device))
    refits = Refits(PROJECT_ROOT / FOLDERS[NAME] / str(options.run), options.run, data, Start(options.weights))
    threads = max(1, torch.get_num_threads() // options.jobs)
    todo = [(protocol, *at) for protocol in PROTOCOLS for at in CHECKED]
    found = {}

    def work(*cell):
        found[cell] = refits.accuracy(*cell)
        bar.update()

    with tqdm(desc="refits", total=len(todo)) as bar:
        pool = {"initializer": torch.set_num_threads, "initargs": (threads,)}
        side_by_side(work, todo, options.jobs, **pool)
    text = report(refits, found)
    print(text)
    path = PROJECT_ROOT / RESULTS / f"{NAME}_refits.md"
    save_text(path, text + "\n")
    print(f"written: {shown(path)}")


if __name__ == "__main__":
    run_command(main)
