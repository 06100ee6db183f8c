"""calculated_weights/*.npz: a method's weights in the shapes of the official release, and the settings behind them."""

import json
from pathlib import Path

import numpy as np

from config import shown
from explainer.methods import METHODS, points
from models.files import load_npz, save_npz
from models.outputs import outputs_path

COMMANDS = {
    "ours": "python explainer/calculate_ours_weights.py --lr {lr}",
    "IF": "python explainer/calculate_influence.py",
    "rep": "python explainer/calculate_representer_weights.py",
}


def weights_path(folder, method, lr=None):
    """Where a run folder keeps the weights of `method` (a key of METHODS); lr is part of RPS-LJE's name."""
    return Path(folder) / "calculated_weights" / METHODS[method].file.format(lr=lr)


def calculate(outputs, method, device="cpu", bias="ignore", **settings):
    """The weights of `method` for saved outputs: `explainer.methods.Weights`, on `device`."""
    return METHODS[method].compute(points(outputs, device, bias), **settings)


def save_weights(path, weights, **settings):
    """Write the arrays and the settings behind them, whole or not at all."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in weights.arrays.items()}
    save_npz(path, **arrays, settings=np.array(json.dumps(settings)))


def load_weights(folder, method, lr=None):
    """The arrays of a method's weights file and, under "settings", what they were made with.

    Files of the official release are read as well. Raises UserError, with the command to run, where the file is
    missing or damaged.
    """
    command = COMMANDS[method].format(lr=lr)
    remedy = f"run {command} for the model in {shown(outputs_path(folder).parent)}"
    arrays = load_npz(weights_path(folder, method, lr), METHODS[method].arrays, remedy, optional=["settings"])
    arrays["settings"] = json.loads(str(arrays.get("settings", "{}")))
    return arrays
