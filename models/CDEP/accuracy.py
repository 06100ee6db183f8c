"""How often a network is right: of all inputs, of each class, and with every class counting as much."""

from typing import NamedTuple

import torch

from config import UserError
from models.CDEP.penalty import log_probabilities


class Evaluated(NamedTuple):
    """loss: the mean cross-entropy. balanced: the mean of the recalls. recalls: of each class, None without inputs."""

    loss: float
    accuracy: float
    balanced: float
    recalls: list


@torch.no_grad()
def evaluated(network, x, y, weights=None):
    """A network in evaluation mode on inputs x and classes y (n,). weights (K,): of the classes in the loss."""
    mode = network.training
    network.eval()
    logits = torch.cat([network(part) for part in x.split(1000)])
    network.train(mode)
    logs = log_probabilities(logits)
    losses, right = -logs.gather(1, y[:, None])[:, 0], (logs.argmax(1) == y).double()
    loss = losses.mean() if weights is None else (losses * weights[y]).sum() / weights[y].sum()
    recalls = [float(right[y == k].mean()) if (y == k).any() else None for k in range(logs.shape[1])]
    known = [recall for recall in recalls if recall is not None]
    return Evaluated(float(loss), float(right.mean()), sum(known) / len(known), recalls)


def weights_of(data):
    """The weights (K,) with which every class of a `Task` counts as much: n / (K n_k), 1 on average over the inputs.

    Raises UserError where a class that is validated or tested has no training input.
    """
    counts = data.y_train.bincount(minlength=1 + max(int(y.max()) for y in data[1:6:2]))
    if not counts.all():
        k = int((counts == 0).nonzero()[0])
        raise UserError(
            f"class {_names(data, len(counts))[k]} has no training input to weigh: give --class_weight none"
        )
    return counts.sum() / (len(counts) * counts.float())


def measured(network, data):
    """What is said of a network on the test data of a `Task`, beside its accuracy what the commonest class gives."""
    found = evaluated(network, data.x_test, data.y_test)
    names = _names(data, len(found.recalls))
    return {
        "tests": len(data.y_test),
        "test_accuracy": found.accuracy,
        "balanced_test_accuracy": found.balanced,
        "majority_share": int(data.y_test.bincount().max()) / len(data.y_test),
        "test_recalls": dict(zip(names, found.recalls)),
        "test_counts": dict(zip(names, data.y_test.bincount(minlength=len(names)).tolist())),
    }


def _names(data, count):
    return list(data.classes) or [str(k) for k in range(count)]


def said(result):
    """The same of a result in words, nothing for a result of an older version."""
    if "balanced_test_accuracy" not in result:
        return ""
    text = f"; balanced {result['balanced_test_accuracy']:.4f}; the commonest class is {result['majority_share']:.4f}"
    each = []
    for name, recall in result["test_recalls"].items():
        count = result["test_counts"][name]
        each.append(f"{name} none to test" if recall is None else f"{name} {recall:.4f} of {count:,}")
    return f"{text}\nright of each class: {', '.join(each)}"
