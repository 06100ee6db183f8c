"""calculated_weights/*.npz: a method's weights in the shapes of the official release, and the settings behind them."""

import json
from pathlib import Path

import numpy as np

from config import UserError, shown
from explainer.methods import METHODS, points
from models.arrays import Array
from models.files import load_npz, save_npz
from models.outputs import models_there

COMMANDS = {
    "ours": "python explainer/calculate_ours_weights.py --model {model} --saved_path {folder} --lr {lr}",
    "IF": "python explainer/calculate_influence.py --model {model} --saved_path {folder}",
    "rep": "python explainer/calculate_representer_weights.py --model {model} --saved_path {folder}",
}


def weights_path(folder, method, lr=None):
    """Where a run folder keeps the weights of `method` (a key of METHODS); lr is part of RPS-LJE's name."""
    return Path(folder) / "calculated_weights" / METHODS[method].file.format(lr=lr)


def calculate(outputs, method, device="cpu", bias="ignore", **settings):
    """The weights of `method` for saved outputs: `explainer.methods.Weights`, on `device`."""
    return METHODS[method].compute(points(outputs, device, bias), **settings)


def save_weights(path, weights, **settings):
    """Write the arrays and the settings behind them; outputs: the fingerprint of the SavedOutputs among them."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in weights.arrays.items()}
    save_npz(path, **arrays, settings=np.array(json.dumps(settings)))


def load_weights(folder, method, outputs, lr=None, remedy=None):
    """The arrays of a method's weights file and, under "settings", what they were made with.

    outputs: the SavedOutputs that they belong to. remedy: what to do about a bad file, where it is not to run the
    method's command. Files of the official release are read as well; they have no
    settings. Raises UserError, with what to do, where the file is missing, damaged, of other types or shapes, of
    another number of points or features, or made from other outputs.
    """
    path, n = weights_path(folder, method, lr), len(outputs.labels_train)
    model = next(iter(models_there(folder)), "CNN")
    remedy = remedy or f"run {COMMANDS[method].format(model=model, folder=Path(folder).resolve(), lr=lr)}"
    arrays = load_npz(path, METHODS[method].arrays, remedy, optional={"settings": Array("U", ((),))})
    try:
        arrays["settings"] = json.loads(str(arrays.get("settings", "{}")))
    except json.JSONDecodeError:
        arrays["settings"] = None
    if not isinstance(arrays["settings"], dict):
        raise UserError(f"{shown(path)} has damaged settings: {remedy}")
    wrong = [name for name in METHODS[method].arrays if "test" not in name and len(np.atleast_1d(arrays[name])) != n]
    if wrong:
        raise UserError(f"{shown(path)} has {', '.join(wrong)} of another length than {n} training points: {remedy}")
    if arrays["settings"].get("outputs", outputs.fingerprint) != outputs.fingerprint:
        raise UserError(f"{shown(path)} was made from other saved outputs than those beside it: {remedy}")
    _fit(arrays, METHODS[method].arrays, outputs, f"{shown(path)} has", remedy)
    return arrays


def _fit(arrays, wanted, outputs, said, remedy):
    """Raise UserError where arrays are of other numbers of test points or parameters than the outputs have."""
    bias = arrays["settings"].get("bias") == "append"
    known = {"m": len(outputs.labels_test), "d": outputs.intermediate_train.shape[1] + bias}
    for name, array in wanted.items():
        for length, letter in zip(arrays[name].shape, array.shapes[0]):
            if length != known.get(letter, length):
                of = {"m": "test points", "d": "parameters"}[letter]
                raise UserError(f"{said} {name} of {length} {of}, expected {known[letter]}: {remedy}")
