"""Train the paper's ResNet-20 on two classes of images.

python models/CNN/train.py --lr 0.01 --epochs 10 --saved_path saved_models/base

Writes model/resnet20.pt (a state dict) and model/saved_outputs.npz below --saved_path. Goes on where it was stopped.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import hashlib
import time

import torch

from config import ArgumentParser, a_path, device, given_folder, passes, positive, run_command, shown, usual_run, whole
from models.CNN.data.prepare import DEFAULT_CLASSES, add_data_options
from models.CNN.utils_cifar import ImageBatches, Start, add_training_options, as_channels_last, load
from models.folders import holding
from models.moments import add_moments_option, add_overwrite, begin_anew, begin_moments, finished_training, keeper
from models.outputs import SavedOutputs, open_run, outputs_path
from models.training import Schedule, binary_loss, enough_memory, fit, keep_freed_memory, save_network


def fit_binary(start, data, schedule, seed, y_train=None, **more):
    """A ResNet-20 trained from `start` on the two classes, labels y_train (n,) if given; more: as `fit` takes it."""
    batches = ImageBatches(data.x_train, data.y_train if y_train is None else y_train)
    return fit(start.network(batches.device), batches, binary_loss, schedule, seed, **more)


@torch.inference_mode()
def last_layer(network, images, batch_size=1000):
    """The features (n,64) and outputs (n,k) of images (n,32,32,3), in float32 and evaluation mode, on the CPU."""
    keep_freed_memory()
    network.eval()
    features, outputs = [], []
    for x in images.split(batch_size):
        with enough_memory():
            f = network.features(as_channels_last(x))
            features.append(f)
            outputs.append(network.fc(f))
    return torch.cat(features).cpu(), torch.cat(outputs).cpu()


def saved_outputs(network, data, y_train=None):
    """What the explainers read; labels_train are those that the network was trained on, y_train (n,) if given."""
    parts = []
    for x, y in ((data.x_train, data.y_train if y_train is None else y_train), (data.x_test, data.y_test)):
        features, logits = last_layer(network, x)
        parts.append((features, logits[:, 0], y.cpu()))
    return SavedOutputs.of_head(*parts, network.fc)


def training_points(network, data, y_train=None):
    """The features (n,64) of the training images and the labels (n,) that the network is trained on, on the CPU."""
    return last_layer(network, data.x_train)[0], (data.y_train if y_train is None else y_train).cpu()


def accuracy(network, data):
    """Share of the test images whose label is the predicted class."""
    _, logits = last_layer(network, data.x_test)
    return ((logits[:, 0] > 0) == (data.y_test.cpu() == 1)).double().mean().item()


def train(folder, start, data, schedule, seed, y_train=None, after_epoch=None, progress=None):
    """Train and write the model and its outputs below `folder`/model; as `fit_binary`. Returns SavedOutputs."""
    path = outputs_path(folder)
    checkpoint = path.with_name("training.checkpoint")
    labels = data.y_train if y_train is None else y_train
    identity = hashlib.sha256(labels.cpu().numpy()).hexdigest() + data.fingerprint + start.fingerprint
    begin_moments(folder, checkpoint)
    kept = {}
    more = {"checkpoint": checkpoint, "identity": identity, "after_epoch": after_epoch, "progress": progress}
    network = fit_binary(start, data, schedule, seed, y_train, kept=kept, **more)
    outputs = saved_outputs(network, data, y_train)
    with finished_training(folder) as model:
        save_network(model / "resnet20.pt", network, kept["training"])
        outputs.save(model / path.name, kept["training"])
    return outputs


def _usual(options, classes):
    """The run folder where none is given: images other than the published ones do not replace the base model."""
    own = () if classes == DEFAULT_CLASSES[options.dataset] else classes
    return usual_run(options.dataset.removeprefix("cifar"), *own, options.num_of_samples)


def main():
    parser = ArgumentParser(description="Train ResNet-20 on two classes of images.")
    parser.add_argument("--lr", type=positive, default=0.01, help="learning rate")
    parser.add_argument("--epochs", type=passes, default=10, help="passes over the training images")
    add = parser.add_argument
    add(
        "--saved_path",
        type=a_path,
        help="run folder, relative to this script (default: saved_models/base; of other images _NAME)",
    )
    parser.add_argument("--seed", type=whole, default=0, help="seed of the shuffling")
    add_data_options(parser)
    add_training_options(parser)
    add_moments_option(parser)
    add_overwrite(parser)
    parser.add_device()
    options = parser.parse_args()
    chosen, folder = device(options.device), given_folder(options.saved_path, __file__)
    data = load(options.dataset, options.data_dir, options.classes, chosen, options.num_of_samples)
    folder = folder or given_folder(_usual(options, data.classes), __file__)
    start, began = Start(options.weights), time.perf_counter()
    schedule = Schedule(options.epochs, options.lr, options.batch_size, bfloat16=options.bfloat16)
    keep = (
        keeper(folder, options.epochs, lambda network: training_points(network, data)) if options.keep_moments else None
    )
    with holding(folder, "a training"):
        open_run(folder)
        begin_anew(folder, options.overwrite)
        outputs = train(folder, start, data, schedule, options.seed, after_epoch=keep, progress="training")
    seconds = time.perf_counter() - began
    n, m = len(data.y_train), len(data.y_test)
    print(f"ResNet-20 on {data.classes[0]} (0) and {data.classes[1]} (1): {n:,} training images, {m:,} test images")
    print(f"from {data.source}; starting weights: {start.name}; {torch.get_num_threads()} threads, {chosen}")
    print(f"training accuracy {outputs.train_accuracy:.4f}, test accuracy {outputs.test_accuracy:.4f}")
    print(f"time: {seconds:.1f} s")
    print(f"written: saved_outputs.npz and resnet20.pt in {shown(folder / 'model')}")


if __name__ == "__main__":
    run_command(main)
