"""The label-flip experiment on XGBoost and German Credit.

python dataset_debugging/experiment_dataset_debugging_Xgboost.py --num_of_run 10 --flip_portion 0.3
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import os

from dataset_debugging.experiment import Experiment, main
from dataset_debugging.runs import REMAKE
from explainer.label_errors import Moment, left_out_margins
from models.outputs import outputs_path
from models.Xgboost.train import MODEL, train
from models.Xgboost.trees import FEATURES, accuracy, fit, load_booster, predict
from models.Xgboost.utils_german import load


class German:
    """German Credit and its trees, as the experiment sees them."""

    name, title = "xgboost", "XGBoost on German Credit"

    def __init__(self, options):
        self.data, self.features = load(), options.features
        self.arguments, self.notes = {"features": options.features}, {}
        self.n = len(self.data.y_train)
        self.fingerprint = self.data.fingerprint

    def train(self, flipped, seed, folder):
        return train(folder, self.features, seed, self._labels(flipped))

    def moments(self, folder, outputs):
        booster = load_booster(outputs_path(folder).with_name(MODEL), REMAKE)
        left_out = left_out_margins(booster, self.data.X_train, outputs.labels_train)
        return [Moment.of(outputs)._replace(left_out=left_out)]

    def refit(self, flipped, seed, checkpoint):
        booster = fit(self.data.X_train, self._labels(flipped), seed)
        return accuracy(predict(booster, self.data.X_test), self.data.y_test)

    def _labels(self, flipped):
        y = self.data.y_train.copy()
        y[flipped] = 1 - y[flipped]
        return y


EXPERIMENT = Experiment(
    model="Xgboost",
    methods=("ours", "IF", "random"),
    checkpoints=20,
    average_over_runs=5,
    flip_portion=0.3,
    jobs=os.cpu_count(),
    add_options=lambda parser: parser.add_argument(
        "--features", default="probability", choices=FEATURES, help="probability (published) or margin (exact)"
    ),
    open=German,
)

if __name__ == "__main__":
    main(EXPERIMENT, __file__)
