"""Train the paper's XGBoost model on German Credit: python models/Xgboost/train.py

Writes model/xgb.ubj and model/saved_outputs.npz below models/Xgboost/saved_models/base.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import hashlib
import time

import numpy as np

from config import ArgumentParser, a_path, given_folder, run_command, shown, whole
from models.folders import holding
from models.moments import finished_training
from models.outputs import outputs_path
from models.Xgboost.trees import FEATURES, PARAMETERS, TREES, fit, save, saved_outputs
from models.Xgboost.utils_german import load

SEED = 9999  # the published one
MODEL = "xgb.ubj"  # beside the saved outputs


def train(folder, features="probability", seed=SEED, y_train=None):
    """Train on the prepared data and write the model and its outputs below `folder`/model.

    y_train: labels (n,) to train on instead of the true ones, for the label-flip experiment. Returns SavedOutputs.
    """
    data = load()
    y_train = data.y_train if y_train is None else y_train
    booster = fit(data.X_train, y_train, seed)
    outputs = saved_outputs(booster, data, y_train, features)
    digest = hashlib.sha256(f"{features} {seed} {PARAMETERS} {TREES}".encode())
    for array in (data.X_train, y_train, data.X_test, data.y_test):
        digest.update(np.ascontiguousarray(array))
    training = digest.hexdigest()[:16]
    with finished_training(folder) as model:
        save(booster, model / MODEL, training)
        outputs.save(model / outputs_path(folder).name, training)
    return outputs


def main():
    options = ArgumentParser(description="Train XGBoost on German Credit.")
    options.add_argument(
        "--saved_path", type=a_path, default="saved_models/base", help="run folder, relative to this script"
    )
    options.add_argument(
        "--features",
        default="probability",
        choices=FEATURES,
        help="what a tree contributes to the last layer: its probability (published) or its margin (exact)",
    )
    options.add_argument("--seed", type=whole, default=SEED, help="seed of the training")
    options = options.parse_args()
    folder, start = given_folder(options.saved_path, __file__), time.perf_counter()
    with holding(folder, "a training"):
        outputs = train(folder, options.features, options.seed)
    n, d = outputs.intermediate_train.shape
    print(f"XGBoost on German Credit: {n} training rows, {len(outputs.labels_test)} test rows, {d - 1} trees")
    print(f"training accuracy {outputs.train_accuracy:.4f}, test accuracy {outputs.test_accuracy:.4f}")
    print(f"time: {time.perf_counter() - start:.2f} s")
    print(f"written: saved_outputs.npz ({options.features} features) and {MODEL} in {shown(folder / 'model')}")


if __name__ == "__main__":
    run_command(main)
