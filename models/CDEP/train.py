"""Train a network on data with a fault, with or without a penalty on what must not matter.

python models/CDEP/train.py --dataset decoydigits --method cdep --lambda 100
python models/CDEP/train.py --dataset colormnist --method cdep --lambda 8000 --data_dir DIR

Writes model.pt (the weights with the lowest objective on the validation data), history.csv and result.json below
--saved_path. Goes on where it was stopped; a training that is there is not made again.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import math
import time

import pandas as pd
import torch
from torch import nn

from config import (
    ArgumentParser,
    UserError,
    a_data_folder,
    a_file_or,
    a_path,
    at_least_one,
    count,
    device,
    given_folder,
    passes,
    positive,
    run_command,
    several,
    shown,
    whole,
)
from config import number as checked
from explainer.decomposition.cd import CHOICES
from models.CDEP.accuracy import evaluated, measured, said, weights_of
from models.CDEP.data import DATASETS, task
from models.CDEP.folder import BACKBONES
from models.CDEP.methods import CLASS_WEIGHTS, METHODS, Masked, Settings, cdep, penalty_of
from models.CDEP.penalty import MODES, log_probabilities
from models.CDEP.text import TEXTS
from models.files import load_json, save_json, save_text
from models.folders import holding, replaced_together
from models.training import Schedule, fit, initialized, save_network, save_tensors

COLUMNS = ["epoch", "loss", "penalty", "relevance", "objective", "validation_loss", "validation_accuracy",
           "validation_balanced_accuracy"]  # fmt: skip
NUMBERS = "tests", "test_accuracy", "train_accuracy", "best_epoch", "relevance", "seconds"
SIDES = 8192  # pixels of an image's side, at most
PROBE = 200  # training inputs in which the size of what is masked is looked at
not_negative = checked(float, lambda x: 0 <= x < math.inf, "a number from 0 up")


class NotFinite(UserError):
    """The loss is no longer a finite number."""


class Penalized(nn.Module):
    """A network with its loss: (cross-entropy, penalty) of a batch, and their means since they were last asked for.

    weights: of the classes in the cross-entropy, None for none. kept: what `models.training.fit` keeps; the number of
    steps is counted there.
    """

    def __init__(self, network, penalty, lam, kept, weights=None):
        super().__init__()
        self.network, self.penalty, self.lam, self.kept, self.weights = network, penalty, lam, kept, weights
        self.sums, self.batches = [0.0, 0.0], 0

    def forward(self, x, y, masks, noise):
        self.kept["steps"] = self.kept.get("steps", 0) + 1
        loss = -log_probabilities(self.network(x)).gather(1, y[:, None])[:, 0]
        loss = (loss if self.weights is None else loss * self.weights[y]).mean()
        penalty = self.penalty(self.network, x, y, masks, noise)
        for value, name in ((loss, "cross-entropy"), (penalty, "penalty"), (self.lam * penalty, "lambda x penalty")):
            if not math.isfinite(value.item()):
                step = self.kept["steps"]
                raise NotFinite(f"the {name} is {value.item()} at step {step}: give a lower --lambda or --lr")
        self.sums = [a + b.item() for a, b in zip(self.sums, (loss, penalty))]
        self.batches += 1
        return torch.stack([loss, penalty])

    def means(self):
        """The means since the last call."""
        found, self.sums, self.batches = [s / max(1, self.batches) for s in self.sums], [0.0, 0.0], 0
        return found


def train(data, settings, checkpoint=None, progress=None, kept=None):
    """Train the network of a `Task`, where its data are: (network, history, state).

    The network has the weights of the epoch with the lowest objective: the loss on the validation data plus lambda
    times the penalty on the first training inputs. history: a table with a row for each epoch: loss, penalty,
    relevance (the mean |b| of the masked parts), objective, and loss, accuracy and balanced accuracy on the validation
    data. state: the
    weights of the lowest loss on `data.clean`, None where there are none. kept: a dictionary that is filled on the way,
    "best" with the best weights so far. Raises `NotFinite`, a UserError, where the loss is not finite.
    """
    kept = {} if kept is None else kept
    weights = weights_of(data) if settings.class_weight == "balanced" else None
    network = initialized(data.make, "cdep", settings.seed).to(data.x_train.device)
    model = Penalized(network, penalty_of(settings, data), settings.lam, kept, weights)
    batches, relevance = Masked(data, settings.steps), cdep(data, "l1", relu=settings.relu)
    probe = torch.arange(min(PROBE, len(data.y_train)))

    def after_epoch(model, epoch, kept):
        model.eval()
        found = evaluated(model.network, data.x_validation, data.y_validation, weights)
        given, _ = batches.batch(probe, torch.Generator().manual_seed(0), 0.0)
        with torch.no_grad():  # the mean |b|: the softmax share may vanish while b does not
            size = float(relevance(model.network, *given))
        objective = found.loss + settings.lam * float(model.penalty(model.network, *given).detach())
        if not math.isfinite(objective):
            raise NotFinite(f"the objective is {objective} after step {kept['steps']}: give a lower --lambda or --lr")
        kept.setdefault("history", []).append([epoch, *model.means(), size, objective, *found[:3]])
        keep(kept, "best", objective)
        if data.clean is not None:
            keep(kept, "clean", evaluated(model.network, *data.clean, weights)[0])

    def keep(kept, name, value):
        if value < kept.get(f"{name} loss", math.inf):
            kept[f"{name} loss"] = value
            kept[name] = {n: v.clone() for n, v in model.network.state_dict().items()}

    def objective(parts, _):
        return parts[0] + settings.lam * parts[1]

    schedule = Schedule(settings.epochs, settings.lr, settings.batch_size, "adam")
    more = {"checkpoint": checkpoint, "identity": f"{data.fingerprint()} {settings}", "progress": progress}
    fit(model, batches, objective, schedule, settings.seed, after_epoch=after_epoch, kept=kept, **more)
    model.network.load_state_dict(kept["best"])
    return model.network.eval(), pd.DataFrame(kept["history"], columns=COLUMNS), kept.get("clean")


def run(data, settings, folder, progress=None):
    """Train, and write model.pt, history.csv and result.json into a folder, or read what is there. Returns the result.

    Raises UserError where the folder holds another training. Where the loss is not finite, the best weights so far are
    in last_good.pt.
    """
    known = result_of(data, settings, folder)
    if known is not None:
        return known
    with holding(folder, "a training"):  # and another process may have ended it meanwhile
        return result_of(data, settings, folder) or _run(data, settings, folder, progress)


def _run(data, settings, folder, progress):
    """As `run`, in a folder that is held and has no result."""
    began, checkpoint, kept = time.perf_counter(), folder / "training.checkpoint", {}
    try:
        network, history, clean = train(data, settings, checkpoint, progress, kept)
    except NotFinite as error:
        if "best" not in kept:
            raise
        save_tensors(folder / "last_good.pt", {name: value.cpu() for name, value in kept["best"].items()})
        raise NotFinite(f"{error}; the best weights so far are in {shown(folder / 'last_good.pt')}") from None
    best = history.loc[history["objective"].idxmin()]
    result = {**settings._asdict(), "dataset": data.name, "data": data.fingerprint(), **measured(network, data),
              "train_accuracy": evaluated(network, data.x_train, data.y_train)[1],
              "best_epoch": int(best["epoch"]), "relevance": float(best["relevance"]),
              "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip
    if data.against is not None:
        result["against_accuracy"] = evaluated(network, *data.against)[1]
    with replaced_together(folder) as staged:
        save_network(staged / "model.pt", network)
        if clean is not None:
            network.load_state_dict(clean)
            result["clean_choice_accuracy"] = evaluated(network, data.x_test, data.y_test)[1]
        save_text(staged / "history.csv", history.to_csv(index=False, lineterminator="\n"))
        save_json(staged / "result.json", result)
    checkpoint.unlink(missing_ok=True)
    return result


def result_of(data, settings, folder):
    """The result that a folder holds, None for none. Raises UserError where it is of other settings or other data."""
    path = folder / "result.json"
    if not path.exists():
        return None
    remedy = "delete that folder, or choose another"
    result = load_json(path, remedy)
    for name, value in {**settings._asdict(), "data": data.fingerprint()}.items():
        if result.get(name, "none" if name == "class_weight" else None) != value:  # older ones have no class weights
            option = "--lambda" if name == "lam" else name
            raise UserError(f"{shown(path)} was made with {option} {result.get(name)}, now {value}: {remedy}")
    if not all(isinstance(result.get(name), (int, float)) and math.isfinite(result[name]) for name in NUMBERS):
        raise UserError(f"{shown(path)} lacks some of {', '.join(NUMBERS)}: {remedy}")
    return result


def add_options(parser):
    """The options of data and training, beside method, lambda and seed."""
    add = parser.add_argument
    add("--dataset", default="decoydigits", choices=DATASETS, help="data with a fault")
    add("--mode", default="softmax", choices=list(MODES), help="score that CDEP penalizes")
    add("--relu", default="acd", choices=CHOICES["relu"], help="rule of CD for rectifiers")
    add("--detach_share", action="store_true", help="take CD's shares of constants as fixed in the gradient")
    add("--classes", default="all", choices=["all", "label"], help="whose score is penalized")
    add("--epochs", type=passes, default=40, help="validations; each after --steps batches")
    add("--steps", type=at_least_one, help="batches between validations (default: all inputs once)")
    add("--lr", type=positive, default=1e-3, help="learning rate of Adam")
    add(
        "--class_weight", default="none", choices=CLASS_WEIGHTS, help="balanced: every class counts as much in the loss"
    )
    add("--batch_size", type=at_least_one, default=64, help="inputs of a batch")
    add("--references", type=several, default=10, help="of EG, for each input")
    add("--data_dir", type=a_data_folder, help="folder of the data: MNIST's files, the treebank, or images and masks")
    add("--texts", default="sst", choices=TEXTS, help="of a text data set; snippets need no folder")
    add("--side", type=count(1, SIDES), default=32, help="of a folder's images, in pixels")
    add("--backbone", choices=BACKBONES, help="of a folder: train a classifier of a frozen network's features")
    add(
        "--backbone_weights",
        type=a_file_or("default", "none"),
        default="default",
        help="default (downloaded), none (random), or a file",
    )
    parser.add_device()


def opened(options, seed):
    """The `Task` that the options name, on their device."""
    images, where = {}, device(options.device)
    if options.dataset == "folder":
        images = {"side": options.side, "frozen": options.backbone, "weights": options.backbone_weights}
        images["device"] = where
    return task(options.dataset, options.data_dir, seed, options.texts, **images).to(where)


def chosen(options, **more):
    """`Settings` of the options; more: what they do not say."""
    values = {name: getattr(options, name) for name in Settings._fields if hasattr(options, name)}
    settings = Settings(**{**values, **more})
    return settings._replace(lam=0.0) if settings.method == "none" else settings


def main():
    parser = ArgumentParser(description="Train a network with a penalty on what must not matter.")
    add = parser.add_argument
    add("--method", default="cdep", choices=METHODS, help="the penalty")
    add("--lambda", dest="lam", type=not_negative, default=100.0, help="weight of the penalty")
    add("--seed", type=whole, default=0, help="seed of the data, the network and the batches")
    add(
        "--saved_path",
        type=a_path,
        help="folder, relative to this script (default: saved_models/DATASET_METHOD_LAMBDA_SEED)",
    )
    add_options(parser)
    options = parser.parse_args()
    settings = chosen(options)
    usual = f"saved_models/{options.dataset}_{settings.method}_{settings.lam:g}_{settings.seed}"
    folder = given_folder(usual if options.saved_path is None else options.saved_path, __file__)
    result = run(opened(options, options.seed), settings, folder, "training")
    print(
        f"{result['dataset']}, {settings.method}, lambda {settings.lam:g}: "
        f"training accuracy {result['train_accuracy']:.4f}"
    )
    without = "" if options.dataset == "folder" else " without the fault"
    print(f"test accuracy {result['test_accuracy']:.4f} of {result['tests']:,}{without}{said(result)}")
    if "against_accuracy" in result:
        print(f"{result['against_accuracy']:.4f} where the fault says something else than the label")
    if "clean_choice_accuracy" in result:
        print(f"{result['clean_choice_accuracy']:.4f} at the epoch that clean validation data choose")
    print(
        f"epoch {result['best_epoch']} of {settings.epochs}, mean |b| {result['relevance']:.3g}; {result['seconds']} s"
    )
    print(f"written: model.pt, history.csv and result.json in {shown(folder)}")


if __name__ == "__main__":
    run_command(main)
