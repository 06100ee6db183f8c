"""Both halves of an explanation: the training points behind a prediction, and what of each of them matters.

python explainer/explain.py --model CNN --test_point 3
python explainer/explain.py --model RNN --text "The acting is not bad but the plot never comes alive."

For a test point, or a text: the prediction; the training points that speak most for it, by every method whose weights
are there; and inside each of them the parts that speak for that class, by agglomerative contextual decomposition.
Training points that the model predicts wrongly are among them, and speak loudest; the paper's case studies, and
models/RNN/predict.py, leave them out.
Writes one HTML page that needs nothing beside it, and the same as JSON.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import hashlib
import json
import math
import re
import sys

import numpy as np
from tqdm import tqdm

from config import (
    PROJECT_ROOT,
    ArgumentParser,
    UserError,
    a_data_folder,
    a_path,
    a_text,
    any_whole,
    number,
    positive,
    run_command,
    run_name,
    script_relative,
    shown,
    to_write,
)
from config import base_folder as base
from explainer.decomposition.page import page
from explainer.decomposition.parts import Images, Texts
from explainer.methods import METHODS
from models.files import save_text

MOST = 50  # training points of each method: every one is decomposed
ABOUT = {
    "ours": "The score is a share of the logit: what training on the point adds to it, around the given model.",
    "IF": "The score estimates how much the loss would grow if the last layer were trained again without the point.",
    "rep": "The score is a share of the logit of another, l2-regularized last layer.",
}


def cut(text, most=160):
    """A text in one line, cut at a word."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most].rpartition(' ')[0] or text[:most]} …"


def slug_of(text):
    """A file name of a text's own."""
    return re.sub(r"\W+", "_", text.lower())[:40] + "_" + hashlib.sha256(text.encode()).hexdigest()[:6]


def gather(explained, given, name, lr, k):
    """Everything that the page shows. given: features, probability of class 1, label, and the input itself."""
    f, probability, label, input_ = given
    predicted = int(probability > 0.5)
    known = {}

    def parts(what, large=False):
        found = explained.parts(what, predicted, large)
        return {**found, "hierarchy": json.loads(found["hierarchy"].to_json())}

    question = {
        "name": name,
        "class": explained.classes[predicted],
        "probability": probability if predicted else 1 - probability,
        "logit": abs(math.log(max(probability, 1e-300)) - math.log(max(1 - probability, 1e-300))),
        "label": None if label is None else explained.classes[label],
        **parts(input_, True),
    }
    methods = []
    for key, arrays in explained.methods(lr).items():
        scores = METHODS[key].importance_of(arrays, explained.outputs, f, np.array([predicted]))[:, 0]
        best = np.argsort(-scores, kind="stable")[:k]
        points = []
        for i in tqdm(best.tolist(), METHODS[key].label, disable=None, leave=False):
            what, said = explained.train(i)
            known[i] = known.get(i) or parts(what)
            own = explained.classes[int(explained.outputs.labels_train[i])]
            points.append({"index": i, "name": said, "class": own, "score": float(scores[i]), **known[i]})
        methods.append({"method": key, "label": METHODS[key].label, "about": ABOUT[key], "points": points})
    every = [question, *(point for method in methods for point in method["points"])]
    scale = max((abs(value) for point in every for _, value, _ in point.get("words", ())), default=0.0) or 1.0
    return {"model": str(shown(explained.folder)), "question": question, "methods": methods, "scale": scale}


def opened(options, folder):
    """The trained model that the options name, of a run folder."""
    if options.model == "RNN":
        return Texts(folder, options.data_dir)
    if options.text is not None:
        raise UserError("--text is for --model RNN: give --test_point")
    return Images(folder, options.dataset, options.data_dir, options.classes)


def _pages(options, folder):
    """{suffix: the file to write}. Raises UserError where one cannot be written."""
    slug = f"test_{options.test_point}" if options.text is None else slug_of(options.text)
    out = PROJECT_ROOT / "explainer" / "explanations" / f"{run_name(options.model, folder)}_{slug}"
    out = out if options.out is None else script_relative(options.out, __file__)
    if out.is_dir():
        raise UserError(f"--out {shown(out)} is a folder: give a name in it")
    out = out.with_suffix("") if out.suffix in (".html", ".json") else out
    return {suffix: to_write(f"{out}{suffix}") for suffix in (".html", ".json")}


def main():
    parser = ArgumentParser(description="The training points behind a prediction, and what of each of them matters.")
    add = parser.add_argument
    add("--model", required=True, choices=["CNN", "RNN"], help="whose prediction")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--test_point", type=any_whole, help="a test point, from 0")
    what.add_argument("--text", type=a_text, help="a text of your own, in quotes (RNN)")
    add("--saved_path", type=a_path, help="run folder, relative to this script (default: the model's base run)")
    add("--dataset", default="cifar", choices=["cifar", "digits"], help="the images of the CNN")
    add(
        "--classes",
        type=a_text,
        nargs=2,
        metavar=("ZERO", "ONE"),
        help="the two classes of images, as train.py takes them",
    )
    add("--data_dir", type=a_data_folder, help="folder of the images or reviews, as train.py takes it")
    add("--lr", type=positive, default=0.01, help="the step of RPS-LJE's weights")
    most = number(int, lambda k: 1 <= k <= MOST, f"a whole number from 1 to {MOST}")
    add("--k", type=most, default=3, help="training points by each method")
    add(
        "--out",
        type=a_path,
        help="where to write, without an ending, relative to this script (default: explanations/MODEL_RUN_…)",
    )
    options = parser.parse_args()
    folder = base(options.model) if options.saved_path is None else script_relative(options.saved_path, __file__)
    pages = _pages(options, folder)
    explained = opened(options, folder)
    if options.text is None:
        given, name = explained.test(options.test_point), f"Test point {options.test_point}"
    else:
        given, name = explained.new(options.text), f"“{cut(options.text)}”"
    data = gather(explained, given, name, options.lr, options.k)
    for key in set(METHODS) - {method["method"] for method in data["methods"]}:
        more = f" with --lr {options.lr:g}" if key == "ours" else ""
        print(f"left out: {METHODS[key].label}, there are no weights of it{more}", file=sys.stderr)
    save_text(pages[".html"], page(data))
    save_text(pages[".json"], json.dumps(data, indent=1))
    question = data["question"]
    print(f"{name}: {question['class']}, probability {question['probability']:.3f}")
    for method in data["methods"]:
        print(f"{method['label']}: " + ", ".join(f"{p['name']} ({p['class']})" for p in method["points"]))
    print(f"written: {shown(pages['.html'])} and .json")


if __name__ == "__main__":
    run_command(main)
