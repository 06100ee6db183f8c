"""Any method's explanations of saved outputs, at any settings; the weights of each are calculated once and kept."""

import warnings

import numpy as np
import pandas as pd

from explainer.agreement import best_explanations, distinct_explanations, overlap
from explainer.methods import METHODS
from explainer.rps_l2 import ConvergenceWarning
from explainer.weights import calculate


class Explanations:
    """Importances by every method. settings: {method: {name: value}}, what is calculated where nothing else is said."""

    def __init__(self, outputs, settings):
        self.outputs, self.settings, self._weights = outputs, settings, {}

    def weights(self, method, **settings):
        """The arrays of a method's weights, as `explainer.weights.load_weights` gives them."""
        settings = {**self.settings[method], **settings}
        key = method, *sorted(settings.items())
        if key not in self._weights:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # so many steps are what is asked for
                weights = calculate(self.outputs, method, **settings)
            arrays = {name: tensor.cpu().numpy() for name, tensor in weights.arrays.items()}
            self._weights[key] = {**arrays, "settings": settings}
        return self._weights[key]

    def importance(self, method, tests, **settings):
        """Importance of each training point for the test points `tests`, (n,k), larger is better."""
        return METHODS[method].importance(self.weights(method, **settings), self.outputs, tests)

    def claims(self, names, settings, tests=None, k=3):
        """What the paper claims of explanations, over many test points: a table with a row for each method.

        For each class, the number of different sets of the k best training points, and the share of the test points
        that have the most frequent one; the mean overlap of the k best over settings.
        names: of the classes. settings: {method: (name, values)} of the overlap. tests: which test points, default all.
        """
        tests = np.arange(len(self.outputs.labels_test)) if tests is None else tests
        labels, rows = self.outputs.labels_test[tests], {}
        for key in self.settings:
            distinct = distinct_explanations(best_explanations(self.importance(key, tests), k), labels)
            row = {}
            for c, found in distinct.iterrows():
                row[f"different sets, {names[c]}"] = f"{found['different sets']:.0f} of {found['test points']:.0f}"
                row[f"most frequent, {names[c]}"] = f"{found['most frequent']:.3f}"
            row["overlap over settings"] = "no setting"
            if key in settings:
                name, values = settings[key]
                bests = [best_explanations(self.importance(key, tests, **{name: value}), k) for value in values]
                row["overlap over settings"] = f"{overlap(bests):.3f}"
            rows[METHODS[key].label] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
