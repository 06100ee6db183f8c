"""From a score of suspicion to the order in which labels are checked, and what checking in that order finds.

Letters: n training points, k of them flipped. A checkpoint is a share of the training data that has been checked;
checking a point corrects its label.
"""

import numpy as np

RANDOM = "random"  # the method that orders points at random
CHECKPOINTS = 20  # 5 %, 10 %, ... 100 %
SHARES = np.round(np.arange(1, CHECKPOINTS + 1) / CHECKPOINTS, 2)


def flipped_points(n, portion, seed):
    """The order of flipping, a permutation (n,), and the k = int(n portion) points that are flipped, its first."""
    order = np.random.RandomState(seed).permutation(n)
    return order, order[: int(n * portion)]


def order_by_suspicion(suspicion):
    """The training points, most suspicious first; equal ones in the data set's order."""
    return np.argsort(-suspicion, kind="stable")


def checked(order, checkpoint):
    """The points that have been checked at checkpoint 1, 2, ... 20."""
    return order[: len(order) * checkpoint // CHECKPOINTS]


def fraction_identified(order, flipped):
    """The share of the flipped points among those checked, at each of the 20 checkpoints (all 0 without flips)."""
    found = [np.isin(flipped, checked(order, c + 1)).mean() if len(flipped) else 0.0 for c in range(CHECKPOINTS)]
    return np.array(found)


def fraction_corrected(order, flipped, changed):
    """The share of the flipped points that are checked and changed, at each of the 20 checkpoints.

    changed (n,): whether a checked point's label becomes another one, as a detector proposes.
    """
    if not len(flipped):
        return np.zeros(CHECKPOINTS)
    return fraction_identified(order, flipped[changed[flipped]]) * changed[flipped].mean()


def still_wrong(order, flipped, checkpoint, changed=None):
    """The points whose labels, one of two, are wrong at a checkpoint, in increasing order.

    changed (n,): as `fraction_corrected` takes it; None: checking a point gives it its true label.
    """
    found = checked(order, checkpoint)
    return np.setdiff1d(flipped, found) if changed is None else np.setxor1d(flipped, found[changed[found]])
