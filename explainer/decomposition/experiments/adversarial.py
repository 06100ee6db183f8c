"""Do explanations keep the order of an image's parts under an attack? Spearman's correlation for every method.

python explainer/decomposition/experiments/adversarial.py --model MNIST     a small network, trained here in a minute
python explainer/decomposition/experiments/adversarial.py --model CNN       ResNet-20 on CIFAR-10 automobile/horse

Writes explainer/results/adversarial_{mnist,cnn}.csv (one row for each attacked image) and .md.
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import time

import numpy as np
import pandas as pd
import torch

from config import (
    PROJECT_ROOT,
    ArgumentParser,
    UserError,
    a_data_folder,
    at_least_one,
    base_folder,
    run_command,
    several,
    shown,
    whole,
)
from explainer.decomposition import mnist, tiles
from explainer.decomposition.adversarial import boundary_attack, compare, fgsm, gradient_attack, predicted
from models.CNN.data.prepare import read
from models.CNN.utils_cifar import as_channels_last, load_network, normalized
from models.files import markdown_table, save_text

ATTACKS = ("FGSM", "gradient", "boundary")
OTHERS = 200  # images from which the boundary attack begins


def subject(name, data_dir, seed):
    """A network, its test images and labels, and what is said of both."""
    if name == "MNIST":
        data = mnist.read(data_dir)
        model = mnist.train(mnist.normalized(data["train"][0]), data["train"][1], seed=seed, progress="training")
        return model, mnist.normalized(data["test"][0]), torch.as_tensor(data["test"][1]).long(), 28
    images = read("cifar", data_dir)
    x = as_channels_last(normalized(torch.from_numpy(images.x_test))).contiguous()
    return load_network(base_folder("CNN")), x, torch.as_tensor(images.y_test), 32


def attacked(model, x, y, others, seed):
    """{attack: (images, which flipped)}."""
    return {
        "FGSM": fgsm(model, x, y),
        "gradient": gradient_attack(model, x, y),
        "boundary": boundary_attack(model, x, y, others, seed=seed),
    }


def as_text(table, number):
    """The means over the images that flipped, of `number` for each attack, in Markdown."""
    groups = table.drop(columns="image").groupby("attack", sort=False)
    mean, count = groups.mean().reindex(ATTACKS), groups.size().reindex(ATTACKS, fill_value=0)
    rows = []
    for attack, values in mean.iterrows():
        rows.append([attack, f"{count[attack]} of {number}", *(f"{value:.3f}" for value in values)])
    return markdown_table(["attack", "flipped", "change, mean", *mean.columns[1:]], rows)


def main():
    parser = ArgumentParser(description="Spearman's correlation of the parts' scores before and after an attack.")
    add = parser.add_argument
    add("--model", required=True, choices=["MNIST", "CNN"], help="whose images")
    add("--number", type=several, default=60, help="test images that are attacked, drawn by seed")
    add("--size", type=at_least_one, default=4, help="pixels of a tile's side")
    add("--data_dir", type=a_data_folder, help="folder of the images")
    add("--seed", type=whole, default=0, help="seed of the draw, of MNIST's network and of the boundary attack")
    options = parser.parse_args()
    began = time.perf_counter()
    model, x, y, side = subject(options.model, options.data_dir, options.seed)
    right = torch.cat([predicted(model, part) for part in x.split(500)]) == y
    draw = np.random.default_rng(options.seed).permutation(np.flatnonzero(right.numpy()))
    if len(draw) < options.number + OTHERS:
        raise UserError(f"--number: got {options.number}; give at most {len(draw) - OTHERS}")
    some, others = draw[: options.number], draw[options.number : options.number + OTHERS]
    tables, units = [], tiles(side, side, options.size)
    for attack, (changed, flipped) in attacked(model, x[some], y[some], x[others], options.seed).items():
        kept = flipped.nonzero()[:, 0]
        table = compare(model, x[some][kept], changed[kept], y[some][kept], units)
        size = (changed - x[some]).flatten(1).norm(dim=1) / x[some].flatten(1).norm(dim=1)
        table.insert(0, "change", size[kept].numpy())
        table.insert(0, "image", some[kept.numpy()])
        table.insert(0, "attack", attack)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    said = f"{options.model}: {options.number} test images that are predicted rightly, tiles of {options.size} pixels, "
    said += f"seed {options.seed}. Mean Spearman correlation of the tiles' scores for the right class before and after;"
    said += ' "change" is the length of the change, of that of the image.'
    text = f"{as_text(table, options.number)}\n\n{said}"
    path = PROJECT_ROOT / "explainer" / "results" / f"adversarial_{options.model.lower()}.md"
    save_text(path, text + "\n")
    save_text(path.with_suffix(".csv"), table.round(4).to_csv(index=False, lineterminator="\n"))
    print(f"{text}\ntest accuracy {right.double().mean():.4f}; {time.perf_counter() - began:.0f} s")
    print(f"written: {shown(path)}")


if __name__ == "__main__":
    run_command(main)
