"""Additive tree models as a linear head: exact features, so that the decomposition reproduces the model's margin.

A boosted model's margin is a constant plus one leaf value per tree, so the leaf values are a last hidden layer (n,d)
under a head of ones and zeros: tree t adds to the logit of the class that it was grown for. Supported: XGBoost (Booster
and the scikit-learn classes), LightGBM, scikit-learn's GradientBoostingClassifier and HistGradientBoostingClassifier.

A random forest (RandomForestClassifier, ExtraTreesClassifier) averages probabilities: its margin is here taken as
z_c = C p_c - 1, of the class c of C, the first-order expansion of log(C p_c) where all classes are equally likely; for
two classes z_1 - z_0 = 4 (p_1 - 1/2). Its features are each tree's p_c.

Every head is checked against the model's own margin on the rows that it is made with.
"""

import json

import numpy as np

from config import UserError
from explainer.attribution.checks import first_line

TOLERANCE = 1e-5  # of the margin, against the largest margin: float32 sums over many trees


class TreeHead:
    """A tree model's features and head. weight (C,d), bias (C,), as `Attributor.from_arrays` takes them."""

    def __init__(self, model, X):
        """X: rows that the head is checked on, such as the training data.

        Raises UserError for models that are not supported, and where the trees do not sum to the model's margin, as
        with DART's dropped trees.
        """
        self._given = model
        try:
            self.model = plain_booster(model)
            _check_loss(self.model)
            self._leaves = _reader(self.model)
        except (AttributeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{type(model).__name__} is not fitted ({first_line(error)}): fit it first") from error
        X = marked(model, X)
        F, groups = _read(self._leaves, X)
        margin = np.asarray(margins(self.model, X), np.float64)
        _check_probabilities(self.model, margin, X)
        C = margin.shape[1]
        scale = C**2 / len(groups) if _forest(self.model) else 1.0  # the mean over len(groups) / C trees, times C
        self.weight = scale * (groups[None, :] == np.arange(C)[:, None]).astype(np.float64)
        rest = margin - F @ self.weight.T
        self.bias = np.median(rest, 0)
        worst = np.abs(rest - self.bias).max()
        if not worst <= TOLERANCE * max(1.0, np.abs(margin).max()):
            raise UserError(
                f"the trees do not sum to the margin of {type(model).__name__}: they differ by up to {worst:.2g}; "
                "only plain additive trees have exact features"
            )

    def features(self, X):
        """The features (n,d) of rows X, float64. Raises UserError for rows that the trees cannot read."""
        return _read(self._leaves, marked(self._given, X))[0]


def _read(leaves, X):
    """What `leaves` reads of rows X."""
    if hasattr(X, "toarray"):
        raise UserError("the rows are a sparse matrix: give an array, with nan for what the trees take as missing")
    if np.ndim(X) != 2:
        raise UserError(f"the rows have the shape {np.shape(X)}: give (n, columns)")
    try:
        return leaves(X)
    except UserError:
        raise
    except Exception as error:  # of three libraries
        what = first_line(error)
        raise UserError(f"the trees cannot read the rows ({what}): give rows like those of the training") from error


def marked(model, X):
    """Rows X with nan for what the model takes as missing, a number in some of XGBoost's scikit-learn classes."""
    missing = getattr(model, "missing", None)
    if missing is None or np.isnan(missing) or np.ndim(X) != 2 or hasattr(X, "toarray"):
        return X
    return X.mask(X == missing) if hasattr(X, "mask") and hasattr(X, "iloc") else np.where(X == missing, np.nan, X)


def plain_booster(model):
    """The booster behind the scikit-learn classes of XGBoost and LightGBM, or the model itself.

    Of XGBoost's after early stopping only the trees that they predict with; a booster itself predicts with all.
    """
    kind = type(model).__module__.partition(".")[0]
    if kind == "xgboost" and hasattr(model, "get_booster"):
        booster = model.get_booster()
        best = booster.attr("best_iteration")
        return booster if best is None else booster[: int(best) + 1]
    if kind == "lightgbm" and hasattr(model, "booster_"):
        return model.booster_
    return model


def _check_loss(model):
    """Raise UserError for a model that does not predict classes by a logistic or softmax loss."""
    kind, loss = type(model).__module__.partition(".")[0], "log_loss"
    if kind == "xgboost":
        loss = json.loads(model.save_config())["learner"]["objective"]["name"]
    elif kind == "lightgbm":
        loss = model.params.get("objective") or model.dump_model()["objective"].split()[0]
    elif kind == "sklearn" and not hasattr(model, "classes_"):
        raise UserError(f"{type(model).__name__} is not fitted: fit it first")
    elif getattr(model, "n_outputs_", 1) != 1:
        raise UserError(f"{type(model).__name__} has {model.n_outputs_} outputs: give a classifier of one")
    elif hasattr(model, "loss"):
        loss = model.loss
    if loss not in ("binary:logistic", "multi:softprob", "multi:softmax", "binary", "multiclass", "log_loss"):
        raise UserError(f"{type(model).__name__} is trained on the loss {loss}: give a classifier of the logistic loss")


def _forest(model):
    return type(model).__name__ in ("RandomForestClassifier", "ExtraTreesClassifier")


def _reader(model):
    """The function that reads a model's leaves: X -> features (n,d), and the class (d,) that each adds to."""
    kind, name = type(model).__module__.partition(".")[0], type(model).__name__
    if kind == "xgboost":
        return lambda X: _xgboost(model, X)
    if kind == "lightgbm":
        return lambda X: _lightgbm(model, X)
    if _forest(model):
        return lambda X: _votes(model, X)
    if name in ("GradientBoostingClassifier", "HistGradientBoostingClassifier"):
        return lambda X: _stages(model, X)
    raise UserError(
        f"{name} is not supported: give a model of XGBoost or LightGBM, or a GradientBoosting, HistGradientBoosting, "
        "RandomForest or ExtraTrees classifier of scikit-learn"
    )


def _check_probabilities(model, margin, X):
    """Raise UserError where the model's probabilities are not the sigmoid or softmax of its margin."""
    if _forest(model):
        return  # its probabilities are the margin
    kind = type(model).__module__.partition(".")[0]
    if kind == "xgboost":
        import xgboost

        known = model.predict(xgboost.DMatrix(X)) if _softprob(model) else None
    else:
        known = model.predict(X) if kind == "lightgbm" else model.predict_proba(X)
    if known is None:
        return
    known = np.asarray(known, np.float64).reshape(len(margin), -1)
    Z = margin - margin.max(1, keepdims=True)
    found = np.exp(Z) / np.exp(Z).sum(1, keepdims=True) if margin.shape[1] > 1 else 1 / (1 + np.exp(-margin))
    worst = np.abs(found - known[:, -found.shape[1] :]).max()
    if not worst <= 1e-4:
        raise UserError(
            f"the probabilities of {type(model).__name__} differ from those of its margin by {worst:.2g}: give a model "
            "of plain boosting (of LightGBM: sigmoid=1, and no rf)"
        )


def _softprob(booster):
    """Whether XGBoost predicts probabilities, rather than classes."""
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    return objective in ("binary:logistic", "multi:softprob")


def margins(model, X):
    """The model's own margin (n,C), C = 1 for two classes (a random forest: C = 2)."""
    X, model = marked(model, X), plain_booster(model)
    kind = type(model).__module__.partition(".")[0]
    if kind == "xgboost":
        import xgboost

        found = model.predict(xgboost.DMatrix(X), output_margin=True)
    elif kind == "lightgbm":
        found = model.predict(X, raw_score=True)
    elif _forest(model):
        found = len(model.classes_) * model.predict_proba(X) - 1
    else:
        found = model.decision_function(X)
    return found.reshape(len(found), -1)


def leaf_values(booster, X, saved=None):
    """XGBoost: the value of the leaf that each row reaches in each tree, (n,T), from one pass over the trees.

    saved: what `saved_trees` has read of the booster, if it has.
    """
    import xgboost

    data = xgboost.DMatrix(X)
    if data.num_col() != booster.num_features():
        raise UserError(f"the rows have {data.num_col()} columns: give the {booster.num_features()} of the training")
    leaves = booster.predict(data, pred_leaf=True).astype(np.int64).reshape(len(X), -1)
    trees = (saved or saved_trees(booster))["trees"]
    # a leaf keeps its value where an inner node keeps its threshold
    values = [np.array(tree["split_conditions"], np.float32)[leaves[:, t]] for t, tree in enumerate(trees)]
    return np.stack(values, axis=1)


def saved_trees(booster):
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    found = learner["gradient_booster"]
    if "model" not in found:
        raise UserError(f"XGBoost's booster {found.get('name')} is no plain additive model: train gbtree")
    return found["model"]


def _xgboost(booster, X):
    saved = saved_trees(booster)
    return leaf_values(booster, X, saved).astype(np.float64), np.array(saved["tree_info"])


def _lightgbm(booster, X):
    leaves = np.asarray(booster.predict(X, pred_leaf=True)).reshape(len(X), -1)
    columns = []
    for t, column in enumerate(leaves.T):
        reached, where = np.unique(column, return_inverse=True)
        columns.append(np.array([booster.get_leaf_output(t, int(leaf)) for leaf in reached])[where])
    return np.stack(columns, 1), np.arange(leaves.shape[1]) % booster.num_model_per_iteration()


def _stages(model, X):
    """What each stage adds to each class, from the differences of the staged margins; the first has the prior in it."""
    stages = [stage.reshape(len(X), -1) for stage in model.staged_decision_function(X)]
    steps = np.diff(np.stack([np.zeros_like(stages[0]), *stages]), axis=0)  # (T,n,C)
    T, n, C = steps.shape
    return steps.transpose(1, 0, 2).reshape(n, T * C), np.tile(np.arange(C), T)


def _votes(model, X):
    shares = np.stack([tree.predict_proba(np.asarray(X)) for tree in model.estimators_], 1)  # (n,T,C)
    return shares.reshape(len(shares), -1), np.tile(np.arange(shares.shape[2]), shares.shape[1])
