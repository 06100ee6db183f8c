"""The margins of boosted trees without each training point, in closed form.

Letters: n points; trees t, each grown for one class; g, h the first and second derivatives of a point's loss in that
class's margin, at the margins before the tree's round; G, H their sums over the points of a leaf; eta the learning
rate, lambda the penalty on leaf values.

XGBoost gives a leaf the value v = -eta G / (H + lambda) (Chen and Guestrin, 2016, equation 5). Without point i the same
tree has in i's leaf

    v_-i = -eta (G - g_i) / (H - h_i + lambda),

and their sum over the trees, with the base margin, is the margin of i without its own label: exact for the trees as
they are and for the other points' derivatives. What stays of i is its part in where the trees split, which
cross-validation alone removes, at the price of k ensembles of fewer points each.

eta and lambda are found from the leaves themselves, since G / v = -(H + lambda) / eta is a straight line in H. Where
the leaves do not lie on it, they are not of these points and labels, or of weighted or sampled ones.
"""

import numpy as np
from scipy.special import softmax

from config import UserError
from explainer.attribution.trees import leaf_values, margins, marked, plain_booster, saved_trees

TOLERANCE = 1e-3  # of a leaf's value, against the largest: XGBoost sums in float32


def left_out_margins(model, X, y):
    """The margin of every training point without its own label: (n,1) for two classes, else (n,C).

    model: of XGBoost, binary:logistic or multi:softprob, trained on rows X and labels y (n,), 0 ... C-1, of equal
    weights. Raises UserError for another model, other points, and row sampling.
    """
    X, booster = marked(model, X), plain_booster(model)
    saved = saved_trees(booster)
    groups, y = np.array(saved["tree_info"]), np.asarray(y)
    values = leaf_values(booster, X, saved).astype(float)  # (n,T)
    import xgboost

    leaves = booster.predict(xgboost.DMatrix(X), pred_leaf=True).astype(int).reshape(values.shape)
    end = np.asarray(margins(booster, X), float)
    C = end.shape[1]
    if len(groups) != C * booster.num_boosted_rounds():
        raise UserError("the trees of a round are several for a class (num_parallel_tree): give plain boosting")
    own = np.eye(max(2, C))[y][:, -C:]  # of two classes that of class 1
    steps = np.zeros((C, len(groups)))
    steps[groups, np.arange(len(groups))] = 1
    M = np.tile(np.median(end - values @ steps.T, 0), (len(y), 1))
    without, sums, found = M.copy(), [], []
    for t, c in enumerate(groups):
        if t % C == 0:
            P = 1 / (1 + np.exp(-M)) if C == 1 else softmax(M, 1)
        g, h = P[:, c] - own[:, c], P[:, c] * (1 - P[:, c])
        G, H = (np.bincount(leaves[:, t], part) for part in (g, h))
        sums.append((G[leaves[:, t]], H[leaves[:, t]]))
        found.append((g, h))
        M[:, c] += values[:, t]
    eta, ridge = _line(values, sums)
    for t, c in enumerate(groups):
        (G, H), (g, h) = sums[t], found[t]
        without[:, c] += -eta * (G - g) / np.maximum(H - h + ridge, 1e-12)
    return without


def _line(values, sums):
    """eta and lambda by least squares over the leaves. Raises UserError where the leaves have other values."""
    G, H = (np.stack([part[k] for part in sums], 1).ravel() for k in (0, 1))
    v = values.ravel()
    # v (H + lambda) = -eta G: linear in lambda and eta
    (ridge, eta), *_ = np.linalg.lstsq(np.column_stack([v, G]), -v * H, rcond=None)
    again = -eta * G / (H + ridge)
    worst = np.abs(again - v).max() / max(np.abs(v).max(), 1e-300)
    if not worst <= TOLERANCE:
        raise UserError(
            f"the leaves' values differ by {worst:.1%} from those of these points and labels: give the training data, "
            "of plain boosting without sampled rows (subsample), weights, alpha or max_delta_step"
        )
    return eta, max(ridge, 0.0)
