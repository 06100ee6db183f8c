"""Train a network on data with a fault, with or without a penalty on what must not matter.

python models/CDEP/train.py --dataset decoydigits --method cdep --lambda 100
python models/CDEP/train.py --dataset colormnist --method cdep --lambda 8000 --data_dir DIR

Writes model.pt (the weights with the lowest validation loss), history.csv and result.json below --saved_path. Goes on
where it was stopped.
"""

import math
import time
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from config import ArgumentParser, UserError, at_least_one, positive, run_command, script_relative, shown, whole
from config import number as checked
from models.CDEP.data import TASKS, task
from models.CDEP.penalty import MODES, cdep_penalty, eg_penalty, log_probabilities, mean_relevance, rrr_penalty
from models.files import save_json, save_text
from models.training import Schedule, fit, initialized, save_network

METHODS = "none", "cdep", "rrr", "eg"
not_negative = checked(float, lambda x: 0 <= x < math.inf, "a number from 0 up")


class Settings(NamedTuple):
    """How a network is trained. lam: the penalty's weight. mode: of CDEP. references: of EG, for each image."""

    method: str = "none"
    lam: float = 0.0
    mode: str = "softmax"
    epochs: int = 40
    lr: float = 1e-3
    batch_size: int = 64
    references: int = 10
    steps: int | None = None
    seed: int = 0


class Penalized(nn.Module):
    """A network with its loss: (cross-entropy, penalty) of a batch, and their means since they were last asked for."""

    def __init__(self, network, penalty):
        super().__init__()
        self.network, self.penalty = network, penalty
        self.step, self.sums, self.batches = 0, [0.0, 0.0], 0

    def forward(self, x, y, masks, noise):
        self.step += 1
        loss = -log_probabilities(self.network(x)).gather(1, y[:, None]).mean()
        penalty = self.penalty(self.network, x, y, masks, noise)
        for value, name in ((loss, "cross-entropy"), (penalty, "penalty")):
            if not math.isfinite(value.item()):
                raise UserError(f"the {name} is {value.item()} at step {self.step}: give a lower --lambda or --lr")
        self.sums = [a + b.item() for a, b in zip(self.sums, (loss, penalty))]
        self.batches += 1
        return torch.stack([loss, penalty])

    def means(self):
        """The means since the last call."""
        found, self.sums, self.batches = [s / max(1, self.batches) for s in self.sums], [0.0, 0.0], 0
        return found


def penalty_of(settings, data):
    """penalty(network, x, y, masks, generator) -> a scalar, for `Settings` and a `Task`."""
    if settings.method == "cdep":
        return lambda network, x, y, masks, noise: cdep_penalty(network, x, masks, mode=settings.mode)
    if settings.method == "rrr":
        return lambda network, x, y, masks, noise: rrr_penalty(network, x, y, data.mask)
    if settings.method == "eg":
        return lambda network, x, y, masks, noise: eg_penalty(
            network, x, y, data.mask, x, settings.references, generator=noise
        )
    return lambda network, x, y, masks, noise: x.new_zeros(())


class Masked:
    """The training images of a `Task` with masks, shuffled, as `models.training.fit` takes them."""

    def __init__(self, data, steps=None):
        self.data, self.device, self.steps = data, data.x_train.device, steps

    def rows(self, size, generator):
        """An epoch is `steps` batches, or every image once."""
        return list(torch.randperm(len(self.data.y_train), generator=generator).split(size))[: self.steps]

    def batch(self, rows, generator, done):
        x, y = self.data.x_train[rows], self.data.y_train[rows]
        return (x, y, self.data.masks(x, y, generator), generator), y


@torch.no_grad()
def evaluated(network, x, y):
    """The mean cross-entropy and the accuracy, in evaluation mode."""
    mode = network.training
    network.eval()
    logits = torch.cat([network(part) for part in x.split(1000)])
    network.train(mode)
    loss = -log_probabilities(logits).gather(1, y[:, None]).mean()
    return float(loss), float((logits.argmax(1) == y).double().mean())


def train(data, settings, checkpoint=None, progress=None):
    """Train the network of a `Task`. Returns it with the weights of the lowest validation loss, and the history.

    history: a table with a row for each epoch: loss, penalty, relevance (the mean |b| of the masked parts), and loss
    and accuracy on the validation images. Raises UserError where the loss is not finite; `checkpoint` then holds the
    best weights so far.
    """
    model = Penalized(initialized(data.make, "cdep", settings.seed), penalty_of(settings, data))
    probe = data.x_train[:200], data.y_train[:200]

    def after_epoch(model, epoch, kept):
        masks = data.masks(*probe, torch.Generator().manual_seed(epoch))
        loss, accuracy = evaluated(model.network, data.x_validation, data.y_validation)
        row = [epoch, *model.means(), mean_relevance(model.network, probe[0], masks), loss, accuracy]
        kept.setdefault("history", []).append(row)
        if loss < kept.get("loss", math.inf):
            kept["loss"], kept["best"] = loss, {n: v.clone() for n, v in model.network.state_dict().items()}
        model.kept = kept

    schedule = Schedule(settings.epochs, settings.lr, settings.batch_size, "adam")
    fit(
        model, Masked(data, settings.steps), lambda parts, _: parts[0] + settings.lam * parts[1], schedule,
        settings.seed, checkpoint=checkpoint, identity=f"{data.name} {settings}", after_epoch=after_epoch,
        progress=progress,
    )  # fmt: skip
    kept = model.kept
    columns = ["epoch", "loss", "penalty", "relevance", "validation_loss", "validation_accuracy"]
    model.network.load_state_dict(kept["best"])
    return model.network.eval(), pd.DataFrame(kept["history"], columns=columns)


def main():
    parser = ArgumentParser(description="Train a network with a penalty on what must not matter.")
    add = parser.add_argument
    add("--dataset", default="decoydigits", choices=list(TASKS), help="data with a fault")
    add("--method", default="cdep", choices=METHODS, help="the penalty")
    add("--lambda", dest="lam", type=not_negative, default=100.0, help="weight of the penalty")
    add("--mode", default="softmax", choices=list(MODES), help="score that CDEP penalizes")
    add("--epochs", type=at_least_one, default=40, help="validations; each after --steps batches")
    add("--steps", type=at_least_one, help="batches between validations (default: all images once)")
    add("--lr", type=positive, default=1e-3, help="learning rate of Adam")
    add("--batch_size", type=at_least_one, default=64, help="images of a batch")
    add("--references", type=at_least_one, default=10, help="of EG, for each image")
    add("--seed", type=whole, default=0, help="seed of the data, the network and the batches")
    add("--data_dir", help="folder of MNIST's files")
    add("--saved_path", help="folder of the results, relative to this script (default: saved_models/DATASET_METHOD)")
    options = parser.parse_args()
    values = {name: getattr(options, name) for name in Settings._fields}
    settings = Settings(**values)._replace(lam=0.0 if options.method == "none" else options.lam)
    folder = script_relative(options.saved_path or f"saved_models/{options.dataset}_{options.method}", __file__)
    data, began = task(options.dataset, options.data_dir, options.seed), time.perf_counter()
    checkpoint = folder / "training.checkpoint"
    network, history = train(data, settings, checkpoint, "training")
    loss, accuracy = evaluated(network, data.x_test, data.y_test)
    best = history.loc[history["validation_loss"].idxmin()]
    result = {**settings._asdict(), "dataset": options.dataset, "test_accuracy": accuracy, "test_loss": loss,
              "best_epoch": int(best["epoch"]), "relevance": float(best["relevance"]),
              "train_accuracy": evaluated(network, data.x_train, data.y_train)[1]}  # fmt: skip
    save_network(folder / "model.pt", network)
    save_text(folder / "history.csv", history.to_csv(index=False, lineterminator="\n"))
    save_json(folder / "result.json", result)
    checkpoint.unlink(missing_ok=True)
    print(f"{data.name}, {settings.method}, lambda {settings.lam:g}: training accuracy {result['train_accuracy']:.4f}")
    print(f"test accuracy {accuracy:.4f} of {len(data.y_test):,} images whose fault says something else")
    print(f"epoch {result['best_epoch']} of {len(history)}, mean |b| {result['relevance']:.3g}; "
          f"{time.perf_counter() - began:.1f} s")  # fmt: skip
    print(f"written: model.pt, history.csv and result.json in {shown(folder)}")


if __name__ == "__main__":
    run_command(main)
