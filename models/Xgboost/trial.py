"""A process of its own in which a model that nobody vouches for is parsed first: XGBoost's parser can crash.

It reads the model from its standard input and ends with status 0 where the model is plain trees that can be predicted
with, else with 1 and why in one line. Run by `models.Xgboost.trees`, whose process it does not outlive.
"""

import _thread
import contextlib
import json
import os
import sys
import time

MEMORY = 2**33  # bytes of address space, of which the libraries take the larger part
NONE = -1  # child of a leaf
CHECKED = 0.1  # seconds between two looks for the parent


def fault(learner):
    """What is wrong with the trees of a model as XGBoost saves them, "" for nothing."""
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree" or learner["objective"]["name"] != "binary:logistic":
        return f"it is {booster['name']} of {learner['objective']['name']}, no gbtree of binary:logistic"
    columns, model = int(learner["learner_model_param"]["num_feature"]), booster["model"]
    if not model["trees"] or len(model["tree_info"]) != len(model["trees"]) or any(model["tree_info"]):
        return "it has no trees, or some of other classes"
    return next((why for why in (_fault_of(tree, columns) for tree in model["trees"]) if why), "")


def _fault_of(tree, columns):
    left, right, split = tree["left_children"], tree["right_children"], tree["split_indices"]
    values, n = tree["split_conditions"], len(tree["left_children"])
    if not n or len({len(part) for part in (left, right, split, values, tree["default_left"])}) > 1:
        return "a tree whose parts have different lengths"
    if any(tree["split_type"]):
        return "a tree with categories"
    seen, waiting = set(), [0]
    while waiting:
        node = waiting.pop()
        if not 0 <= node < n or node in seen:
            return "a tree that is none"
        seen.add(node)
        if not abs(values[node]) < float("inf"):
            return "a value that is not finite"
        if (left[node] == NONE) != (right[node] == NONE):
            return "a node with one child"
        if left[node] != NONE:
            if not 0 <= split[node] < columns:
                return "a split by a column that is not there"
            waiting += [left[node], right[node]]
    return ""


def end_with(parent):
    """End this process within CHECKED seconds of its parent's end, if only by SIGKILL."""
    while os.getppid() == parent:
        time.sleep(CHECKED)
    os._exit(1)


def main():
    if len(sys.argv) > 1:
        _thread.start_new_thread(end_with, (int(sys.argv[1]),))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import numpy as np
    import xgboost

    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(sys.stdin.buffer.read()))
        why = fault(json.loads(bytes(booster.save_raw("json")))["learner"])
        if not why:
            rows = np.random.default_rng(0).normal(size=(64, booster.num_features()))
            if not np.isfinite(booster.predict(xgboost.DMatrix(rows, nthread=1))).all():
                why = "its predictions are not finite"
    except Exception as error:
        why = f"{type(error).__name__}, {error}"
    if why:
        print(" ".join(why.split())[:200])
        sys.exit(1)


if __name__ == "__main__":
    main()
