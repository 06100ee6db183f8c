"""Files of trainings and label-flip runs: outputs, weights, moments, orders, accuracies, run.json."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np

from dataset_debugging import accuracies, memorization, results, stages
from dataset_debugging.calculate_orders import CHECKPOINTS, flipped_points
from dataset_debugging.runs import RunDir
from dataset_debugging.study_trainings import Trained
from explainer.label_errors import Moment
from explainer.methods import METHODS
from explainer.weights import calculate, load_weights, save_weights, weights_path
from fuzzing.formats import Format, N, outputs
from models import files, moments
from models.outputs import SavedOutputs, outputs_path

AGAIN = "make it again"
ARGUMENTS = {"flip_portion": 0.25, "lr": 1e-5, "lmbd": 0.003, "epoch": 50, "seed": 3, "average_over_runs": 2}
ARGUMENTS |= {"data": "0123456789abcdef", "epochs": 3}
RAW = "outputs_train", "outputs_test"  # which no explainer reads
KEYS = {f"{name}_{part}" for name in ("intermediate", "pred", "labels", "outputs") for part in ("train", "test")}
KEYS |= {"weight", "train_accuracy", "test_accuracy"}  # of the release
SETTINGS = {"ours": {"lr": 1e-5}, "IF": {}, "rep": {"lmbd": 0.003, "epoch": 50}}


def fields(value):
    """The fields of a dataclass by name."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def make_outputs(folder):
    outputs().save(outputs_path(folder))


def read_outputs(folder):
    found = fields(SavedOutputs.load(outputs_path(folder), AGAIN))
    return {name: value for name, value in found.items() if name not in RAW}


def make_official_outputs(folder):
    path, mine = outputs_path(folder), outputs()
    path.parent.mkdir(parents=True)
    more = {"pred_train": mine.pred_train[:, None], "labels_train": mine.labels_train.astype(float)}
    np.savez(path, **{name: value for name, value in {**fields(mine), **more}.items() if name in KEYS})


def weights(method, official=False):
    """The `Format` of a method's weights."""

    def make(folder):
        make_outputs(folder)
        mine, path = outputs(), weights_path(folder, method, 1e-5)
        found = calculate(mine, method, **SETTINGS[method])
        if official:
            path.parent.mkdir()
            np.savez(path, **{name: tensor.numpy() for name, tensor in found.arrays.items()})
        else:
            save_weights(path, found, outputs=mine.fingerprint, **SETTINGS[method])

    def read(folder):
        loaded = SavedOutputs.load(outputs_path(folder), AGAIN)
        return load_weights(folder, method, loaded, 1e-5, AGAIN)

    file = str(weights_path("", method, 1e-5))
    return Format(
        f"weights {method}" + " of the release" * official, file, make, read, "npz", not official, ("settings",)
    )


def make_moments(folder):
    make_outputs(folder)
    for epoch, seed in ((1, 1), (2, 2)):
        moments.keep_moment(folder, epoch, Moment.of(outputs(seed, labels_train=outputs().labels_train), epoch))


def read_moments(folder):
    last = SavedOutputs.load(outputs_path(folder), AGAIN)
    return [moment._asdict() for moment in moments.load_moments(folder, last)]


def make_run(folder):
    """A run of the label-flip experiment, with its files as the engine writes them."""
    run = RunDir(folder / "0")
    rng = np.random.default_rng(3)
    run.begin({**ARGUMENTS})
    order, _ = flipped_points(N, ARGUMENTS["flip_portion"], ARGUMENTS["seed"])
    files.save_npy(run.flips, order)
    run.note_made("cpu", n=N, seeds={"flip": 3})
    run.add_seconds("train", 1.5)
    run.add_warnings("ours", ["the rank is low"])
    make_moments(run.path)
    shares = np.linspace(0, 1, CHECKPOINTS)
    for method in ("ours", "random"):
        more = {"changed": rng.random(N) < 0.5} if method == "ours" else {}
        files.save_npz(run.order(method), order=rng.permutation(N), fraction_fixed=shares, **more)
        table = rng.random((8, 2))
        table[5, 1] = np.nan
        files.save_npy(run.refits(method), table)
        files.save_npy(run.accuracies(method), rng.random(8))


def run_of(folder):
    return RunDir(folder / "0")


def read_flips(folder):
    options = SimpleNamespace(seed=ARGUMENTS["seed"], flip_portion=ARGUMENTS["flip_portion"])
    return stages.Run(None, options, SimpleNamespace(n=N), 0, run_of(folder), None).flipped


def read_order(folder):
    return [*run_of(folder).load_order("ours", N), run_of(folder).load_changed("ours")]


def read_run(folder):
    """What the engine and the figures take from run.json, and what the engine adds to it."""
    run = run_of(folder)
    run.check(dict(ARGUMENTS))
    found = results.load_runs("own", folder)
    said = run.warnings()
    run.add_seconds("train", 1.0)
    run.add_warnings("IF", ["one more"])
    run.note_made("cpu", n=N)
    after = files.load_json(run.json, AGAIN)
    after = {name: after.get(name) for name in ("arguments", "n", "device", "python", "packages", "seconds")}
    return [found.scale, found.table.to_dict("list"), said, after]


def read_memorization(folder):
    return memorization.of_run(run_of(folder)).to_dict("list")


def make_memorization(folder):
    make_run(folder)
    read_memorization(folder)


def make_refits(folder):
    make_run(folder)
    shutil.rmtree(folder / "0" / "epochs")


def make_study(folder):
    several = [Moment.of(outputs(seed, labels_train=outputs().labels_train), seed) for seed in (1, 2)]
    wrong = np.arange(0, N, 4)
    Trained(several, wrong, np.full((N, 2), 0.5), np.ones(2), "small").save(folder / "trained.npz")


def read_study(folder):
    found = Trained.load(folder / "trained.npz")
    return {**fields_of(found), "moments": [moment._asdict() for moment in found.moments]}


def fields_of(value):
    """As `fields`, of a named tuple as well."""
    return value._asdict() if hasattr(value, "_asdict") else fields(value)


FORMATS = (
    Format("saved outputs", "model/saved_outputs.npz", make_outputs, read_outputs, "npz", loose=(*RAW, "bias")),
    Format("saved outputs of the release", "model/saved_outputs.npz", make_official_outputs, read_outputs, "npz", False,
           RAW),
    *(weights(method) for method in METHODS if method in SETTINGS),
    *(weights(method, official=True) for method in SETTINGS),
    Format("moments", "epochs/2/model/moment.npz", make_moments, read_moments, "npz", loose=("bias",)),
    Format("orders", "0/orders/order_ours.npz", make_run, read_order, "npz", loose=("changed",)),
    Format("flips", "0/orders/random_flipping_order.npy", make_run, read_flips, "npy"),
    Format("accuracies", "0/accuracies/accuracies_ours.npy", make_run,
           lambda folder: run_of(folder).load_accuracies("ours"), "npy"),
    Format("refits", "0/accuracies/refits_ours.npy", make_refits,
           lambda folder: accuracies.load_refits(run_of(folder), "ours", (8, 2)), "npy", nan=("",)),
    Format("run.json", "0/run.json", make_run, read_run, "json",
           loose=("seeds", "word_vectors", "packages", "device", "python")),
    Format("memorization", "0/memorization.csv", make_memorization, read_memorization, "text", False),
    Format("study of label errors", "trained.npz", make_study, read_study, "npz", loose=("out_of_fold",)),
)  # fmt: skip
