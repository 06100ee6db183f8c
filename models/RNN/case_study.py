"""The paper's case studies on IMDB (Tables 1, 6 to 8 and 12): test reviews and the training reviews behind them."""

import html
import textwrap

import numpy as np
import pandas as pd

from config import PROJECT_ROOT, base_folder
from dataset_debugging import figures
from explainer.agreement import top_k_correlations
from explainer.explanations import Explanations
from explainer.methods import METHODS
from models.RNN.saved import SavedModel
from models.RNN.texts import CLASSES

FIGS = PROJECT_ROOT / "models/RNN/experiments/figs"
PUBLISHED = {"ours": {"lr": 1e-5}, "IF": {}, "rep": {"lmbd": 0.003, "epoch": 3000}}
TEST_POINTS = (41, 289, 293, 450, 525, 13147, 13087)  # Tables 1 and 12
GAMMA_POINT = 5  # the test point of Table 6
GAMMAS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # Table 6
SHOWN = 400  # characters of a review in a table
BLOCK = 500  # test points whose importances are in memory together: 35 MB a method for IMDB


class CaseStudy(Explanations):
    """The base model, any method's explanations of its predictions, and the reviews as a person reads them."""

    def __init__(self, folder=None, data_dir=None):
        """Raises UserError, with what to do, where the model or the reviews are missing."""
        self.model = SavedModel(folder or base_folder("RNN"), data_dir)
        super().__init__(self.model.outputs, PUBLISHED)
        self.test_points = [t for t in TEST_POINTS if t < len(self.outputs.labels_test)]

    def best(self, method, tests, k=3, **settings):
        """The k best training reviews of test reviews, (k,m); wrongly predicted ones are left out, as published."""
        return self.model.best(self.importance(method, tests, **settings), k)

    def table(self, test, k=3):
        """A test review and its k best training reviews by each method."""
        o, rows = self.outputs, {}
        rows["test review", test] = self._row(o.labels_test, o.pred_test, test, self.model.test_text(test))
        for key, method in METHODS.items():
            for rank, i in enumerate(self.best(key, test, k)[:, 0], 1):
                rows[f"{method.label} {rank}", i] = self._row(o.labels_train, o.pred_train, i, self.model.text(i))
        return _table(rows, ["explanation", "review"])

    def sensitivity(self, test, k=3):
        """Table 6: the k best training reviews of a test review by RPS-LJE, over the step to the anchor."""
        o, rows = self.outputs, {}
        for lr in GAMMAS:
            for rank, i in enumerate(self.best("ours", test, k, lr=lr)[:, 0], 1):
                rows[f"γ = {lr:g}", rank, i] = self._row(o.labels_train, o.pred_train, i, self.model.text(i))
        return _table(rows, ["step", "rank", "review"])

    @staticmethod
    def _row(labels, pred, i, text):
        return CLASSES[labels[i]], f"{pred[i]:.3f}", textwrap.shorten(text, SHOWN, placeholder=" …")

    def correlations(self, tests=None):
        """What `top_k_correlations` returns for RPS-LJE and influence functions, over the test reviews `tests`."""
        tests = np.arange(len(self.outputs.labels_test)) if tests is None else np.asarray(tests)
        blocks = np.array_split(tests, max(1, len(tests) // BLOCK))
        pairs = ([self.importance(key, block) for key in ("ours", "IF")] for block in blocks)
        return pd.concat([top_k_correlations(*pair) for pair in pairs], ignore_index=True)


def _table(rows, names):
    index = pd.MultiIndex.from_tuples(list(rows), names=names)
    return pd.DataFrame(list(rows.values()), index=index, columns=["class", "P(positive)", "text"])


def shown(table, name):
    """A table of texts for a notebook: whole cells, texts to the left. name: an id of its own within the notebook."""
    left = [
        {"selector": "td, th", "props": "font-size: 85%; text-align: left; vertical-align: top; white-space: normal"}
    ]
    style = table.style.format({"text": html.escape}) if "text" in table else table.style
    return style.set_table_styles(left).set_uuid(name)


def save(figure, name):
    """Write a figure into models/RNN/experiments/figs."""
    return figures.save(figure, name, FIGS)
