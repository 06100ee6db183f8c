"""The paper's case study on German Credit (Tables 2 and 11): test applicants and the training rows behind them."""

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML

from config import base_folder
from explainer.float32 import float32_weights
from explainer.methods import METHODS
from explainer.weights import load_weights
from models.outputs import load_outputs
from models.Xgboost.utils_german import CATEGORICAL, NUMERICAL, load, meanings, readable

TEST_POINTS = (8, 94, 84, 56, 0, 32)  # Tables 2 and 11
LR = 1e-4  # the paper's step for the XGBoost explanations
NONE = "–"  # a synthetic row that is in no category of an attribute

# The attributes in the paper's order: the most important for the model first.
ATTRIBUTES = (
    "classification existingchecking credithistory savings otherdebtors employmentsince otherinstallmentplans housing "
    "purpose property duration creditamount statussex existingcredits installmentrate residencesince age job "
    "peopleliable telephone foreignworker"
).split()


class CaseStudy:
    """The base model, its weights by RPS-LJE and influence functions, and the rows that they point to."""

    def __init__(self, folder=None):
        """Raises UserError, with the command to run, where the model or its weights are missing."""
        folder = folder or base_folder("Xgboost")
        self.data, self.raw, self.outputs = load(), readable(), load_outputs(folder, "Xgboost")
        self.meanings = meanings()
        self.weights = {key: load_weights(folder, key, self.outputs, lr=LR) for key in ("ours", "IF")}
        self.right = (self.outputs.pred_train > 0.5) == (self.outputs.labels_train == 1)

    def importance(self, method, tests):
        """Importance of each training row for the test points `tests`, (n,k), larger is better."""
        return METHODS[method].importance(self.weights[method], self.outputs, tests)

    def float32_importance(self, outer):
        """The importances of both methods for all test points in the official code's float32, (n,m) each."""
        o = self.outputs
        F, y, theta = map(torch.from_numpy, (o.intermediate_train, o.labels_train, o.weight[0]))
        weights = {"ours": float32_weights(F, y, theta, LR, outer), "IF": float32_weights(F, y, theta, None, outer)}
        arrays = {key: {**self.weights[key], "weight_matrix": w.weight_matrix.numpy()} for key, w in weights.items()}
        arrays["ours"]["weight_matrix"] = arrays["ours"]["weight_matrix"][:, None, :]
        arrays["IF"]["weight_matrix"] = arrays["IF"]["weight_matrix"][:, :, None]
        tests = np.arange(len(o.labels_test))
        return [METHODS[key].importance(arrays[key], o, tests) for key in arrays]

    def best(self, method, test, k=3):
        """The k best training rows for a test point; wrongly predicted rows are left out, as published."""
        order = np.argsort(-self.importance(method, test)[:, 0], kind="stable")
        return order[self.right[order]][:k]

    def table(self, test, k=3):
        """The test point and its best training rows by each method, attributes as a person reads them.

        A row that SMOTE made is followed by the two real rows between which it lies.
        """
        p, rows = self.outputs.pred_test[test], []
        real = self.data.test_rows[test]
        rows.append((f"test point {test}, P(good) = {p:.3f}", f"row {real}", self.raw.loc[real]))
        for method in self.weights:
            for rank, i in enumerate(self.best(method, test, k), 1):
                name, parents = f"{METHODS[method].label} {rank}", self.data.train_rows[i]
                if parents[0] == parents[1]:
                    rows.append((name, f"row {parents[0]}", self.raw.loc[parents[0]]))
                    continue
                rows.append((name, "synthetic", self._synthetic(i)))
                rows += [
                    (name, f"{word} row {row}", self.raw.loc[row]) for word, row in zip(("between", "and"), parents)
                ]
        index = pd.MultiIndex.from_tuples([row[:2] for row in rows], names=["explanation", "origin"])
        return pd.DataFrame([row[2] for row in rows], columns=ATTRIBUTES).set_axis(index)

    def _synthetic(self, i):
        """A synthetic row: its numbers as they are, and the categories that it is in."""
        values = dict(zip(self.data.columns, self.data.X_train[i]))
        row = {name: values[name] for name in NUMERICAL}
        for name in CATEGORICAL:
            codes = [
                column.removeprefix(f"{name}_") for column, v in values.items() if column.startswith(f"{name}_") and v
            ]
            row[name] = ", ".join(self.meanings[name, code] for code in codes) or NONE
        return pd.Series(row | {"classification": "good" if self.data.y_train[i] else "bad"})


def shown(tables, test):
    """One of the tables for a notebook: what a row has in common with the test point is set in green."""

    def same(column):
        return ["background-color: #d9f0d3" if value == column.iloc[0] else "" for value in column]

    small = [{"selector": "td, th", "props": "font-size: 75%; text-align: left"}]
    style = tables[test].style.apply(same).set_table_styles(small).set_caption("green: as the test point")
    return HTML(style.set_uuid(f"case-study-{test}").to_html())  # no random id: the same table is the same output
