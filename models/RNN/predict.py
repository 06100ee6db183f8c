"""Predict the sentiment of a text, and show the training reviews behind the prediction.

python models/RNN/predict.py "A brilliant, moving film with superb acting."

Reads the model below --saved_path and every method's weights that are there.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import sys
import textwrap

import numpy as np

from config import (
    ArgumentParser,
    UserError,
    a_data_folder,
    a_path,
    a_text,
    at_least_one,
    positive,
    run_command,
    script_relative,
)
from explainer.methods import METHODS
from explainer.weights import COMMANDS, load_weights, weights_path
from models.RNN.saved import SavedModel
from models.RNN.texts import CLASSES

SHOWN = 160  # characters of a review


def main():
    parser = ArgumentParser(description="Predict the sentiment of a text, and show the reviews behind the prediction.")
    parser.add_argument("text", type=a_text, help="the text, in quotes")
    parser.add_argument(
        "--saved_path", type=a_path, default="saved_models/base", help="run folder, relative to this script"
    )
    parser.add_argument("--data_dir", type=a_data_folder, help="folder of the reviews, as train.py takes it")
    parser.add_argument("--lr", type=positive, default=0.01, help="the step of RPS-LJE's weights")
    parser.add_argument("--k", type=at_least_one, default=3, help="reviews by each method")
    options = parser.parse_args()
    folder = script_relative(options.saved_path, __file__)
    model = SavedModel(folder, options.data_dir)
    f, (logit,) = model.features([options.text])
    label = int(logit > 0)
    print(f"{CLASSES[label]}, P(positive) = {logit.sigmoid():.3f}")
    if not any(model.read(options.text)):
        print("note: the model knows none of these words", file=sys.stderr)
    for method in METHODS:
        if not weights_path(folder, method, options.lr).exists():
            command = COMMANDS[method].format(model="RNN", folder=folder, lr=options.lr)
            print(f"left out: {METHODS[method].label}, there are no weights of it: run {command}", file=sys.stderr)
            continue
        try:
            arrays = load_weights(folder, method, model.outputs, options.lr)
        except UserError as error:  # damaged, or of another training
            print(f"left out: {METHODS[method].label}, {error}", file=sys.stderr)
            continue
        print(f"\n{METHODS[method].label}: the training reviews that speak most for it")
        importance = METHODS[method].importance_of(arrays, model.outputs, f.numpy(), np.array([label]))
        for i in model.best(importance, options.k)[:, 0]:
            text = textwrap.shorten(model.text(i), SHOWN, placeholder=" …")
            print(f"  {model.name(i)} ({CLASSES[model.outputs.labels_train[i]]}): {text}")


if __name__ == "__main__":
    run_command(main)
