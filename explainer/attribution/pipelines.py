"""The estimator behind pipelines and searches of scikit-learn, and rows as it takes them."""

import numpy as np
import torch

from config import UserError
from explainer.attribution.checks import first_line

WRAPPERS = {  # what they are, and what to give instead
    "CalibratedClassifierCV": "averages calibrated models: give one of them, and the rows that it was fitted on",
    "TransformedTargetRegressor": "transforms the targets: give its regressor_ and the transformed targets",
    "FixedThresholdClassifier": "moves the threshold alone: give its estimator_",
    "TunedThresholdClassifierCV": "moves the threshold alone: give its estimator_",
    "OneVsRestClassifier": "has a model for each class: give one of its estimators_, with the labels 0 and 1",
    "OneVsOneClassifier": "has a model for each pair of classes: give one of its estimators_, with its rows and labels",
    "MultiOutputClassifier": "has a model for each output: give one of its estimators_, with its labels",
    "MultiOutputRegressor": "has a model for each output: give one of its estimators_, with its targets",
}


def of_library(model):
    """The package that a model is of, a subclass of the user's included: sklearn, xgboost, lightgbm, or its own."""
    for kind in type(model).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("sklearn", "xgboost", "lightgbm"):
            return package
    return type(model).__module__.partition(".")[0]


def known_name(model, names):
    """Which of `names` a model's class is called, or one that it is a subclass of; else the class's own name."""
    return next((kind.__name__ for kind in type(model).__mro__ if kind.__name__ in names), type(model).__name__)


class Steps:
    """A fitted estimator, and the transformers before it. model: the estimator itself, unwrapped."""

    def __init__(self, model):
        """Raises UserError for wrappers that have no one estimator."""
        self.transformers = []
        while True:
            name = type(model).__name__
            if name in WRAPPERS:
                raise UserError(f"{name} {WRAPPERS[name]}")
            if hasattr(model, "best_estimator_"):
                model = model.best_estimator_
            elif hasattr(model, "refit") and hasattr(model, "estimator"):
                raise UserError(f"{name} has no best_estimator_: fit it with refit=True")
            elif hasattr(model, "steps") and hasattr(model, "named_steps"):
                model = self._last(model)
            else:
                break
        self.model = model

    def _last(self, pipeline):
        for name, step in pipeline.steps[:-1]:
            if step is None or isinstance(step, str):  # passthrough
                continue
            if not hasattr(step, "transform"):
                raise UserError(f"the pipeline's step {name!r} does not transform rows: leave it out")
            self.transformers.append((name, step))
        name, last = pipeline.steps[-1]
        if last is None or isinstance(last, str) or not hasattr(last, "predict"):
            raise UserError(f"the pipeline's last step {name!r} does not predict: end it with an estimator")
        return last

    def rows(self, X):
        """Rows as the estimator takes them: an array, a CSR matrix or a table (n, columns).

        Raises UserError for rows that a step cannot read, and for columns of other names than those of the training.
        """
        if self.transformers:
            X = of_torch(X)
        for name, step in self.transformers:
            try:
                X = step.transform(X)
            except Exception as error:  # of any transformer
                what = first_line(error)
                raise UserError(
                    f"the pipeline's step {name!r} cannot read the rows ({what}): give rows like those of the training"
                ) from error
        X = plain_rows(X)
        if of_library(self.model) != "lightgbm":  # which renames columns: `LightGBMTrees` compares them
            check_names(getattr(self.model, "feature_names_in_", None), X)
        return X


def of_torch(X):
    """An array of a tensor's numbers; anything else as it is."""
    if not isinstance(X, torch.Tensor):
        return X
    X = X.detach().cpu()
    X = X.to_dense() if X.layout != torch.strided else X
    return X.float().numpy() if X.dtype in (torch.bfloat16, torch.float16) else X.numpy()


def plain_rows(X):
    """Rows (n, columns) as the libraries take them: an array of numbers, a CSR matrix, or a table as it is.

    Raises UserError for anything else.
    """
    X = of_torch(X)
    if hasattr(X, "toarray"):
        X = X.tocsr()
    elif not hasattr(X, "columns"):
        X = _array(X)
    if len(X.shape) != 2:
        raise UserError(f"the rows have the shape {tuple(X.shape)}: give (n, columns)")
    return X


def _array(X):
    try:
        X = np.asanyarray(X)
    except ValueError as error:
        raise UserError("the rows differ in length: give (n, columns)") from error
    if isinstance(X, np.ma.MaskedArray):
        raise UserError("the rows are a masked array: fill what is masked, with nan if it is missing")
    if X.dtype.kind not in "biuf" or X.dtype.itemsize < 4:  # objects, float16, and bfloat16 of other packages
        try:
            wide = X.dtype.kind in "OSUcmM"
            kept = X if X.dtype.kind in "biu" else None if X.dtype.kind in "SUcmM" else X.astype("f8" if wide else "f4")
        except (TypeError, ValueError):
            kept = None
        if kept is None:
            raise UserError(f"the rows are an array of {X.dtype}: give numbers, or a table with typed columns")
        X = kept
    X = X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))
    return np.ascontiguousarray(X) if any(step < 0 for step in X.strides) else X


def targets(y):
    """Labels y that are numbers, float64. Raises UserError for others."""
    if isinstance(y, np.ma.MaskedArray):
        raise UserError("y is a masked array: leave out the points whose labels are masked")
    try:
        return np.array(of_torch(y), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"y holds no numbers ({first_line(error)}): give those it was fitted on") from error


def check_names(names, X):
    """Raise UserError for a table whose columns are not those of the training, in their order."""
    if names is None or not hasattr(X, "columns"):
        return
    names, found = [str(name) for name in names], [str(name) for name in X.columns]
    if names == found:
        return
    if len(names) != len(found):
        raise UserError(f"the rows have {len(found)} columns: give the {len(names)} of the training")
    place = next(i for i in range(len(names)) if names[i] != found[i])
    what = f"column {place} of the rows is {found[place]!r}, of the training's {names[place]!r}"
    raise UserError(f"{what}: give the same columns in their order")
