"""What the three calculate_*.py commands share: options, printing, and the way from saved outputs to weights."""

import time

from config import (
    MODELS,
    ArgumentParser,
    a_path,
    base_folder,
    device,
    not_negative,
    portion,
    script_relative,
    shown,
    to_write,
)
from explainer.attribution import ranks
from explainer.fidelity import fidelity
from explainer.last_layer import RCOND, probabilities
from explainer.methods import METHODS, points
from explainer.weights import save_weights, weights_path
from models.outputs import load_outputs


def parser(method, damping=True):
    """The options that all methods know."""
    options = ArgumentParser(description=f"Calculate the {METHODS[method].label} weights of a trained model.")
    options.add_argument("--model", default="CNN", choices=list(MODELS), help="the model to explain")
    options.add_argument(
        "--saved_path", type=a_path, help="its run folder, relative to this script; none: its base model"
    )
    options.add_argument(
        "--output", type=a_path, help="the .npz to write, relative to this script; none: below --saved_path"
    )
    options.add_argument(
        "--bias",
        default="ignore",
        choices=["ignore", "append"],
        help="the last layer's bias: leave it out, as published, or append it as a constant feature",
    )
    if damping:
        options.add_argument("--damping", default=0.0, type=not_negative, help="added to the diagonal of the Hessian")
        options.add_argument(
            "--rcond", default=RCOND, type=portion, help="leave out eigenvalues of the Hessian below this share"
        )
    options.add_device()
    return options


def run(script, method, options, settings, **more):
    """Calculate, print how faithful the decomposition is and how long it took, and write the weights.

    script: the command's `__file__`. settings: the method's parameters, saved beside the weights; `more` is passed to
    the method and not saved.
    """
    given = options.saved_path is not None
    folder = script_relative(options.saved_path, script) if given else base_folder(options.model)
    path = weights_path(folder, method, lr=settings.get("lr"))
    path = script_relative(options.output, script) if options.output is not None else path
    chosen, path = device(options.device), to_write(path)
    outputs = load_outputs(folder, options.model)
    tensors = points(outputs, chosen, options.bias)
    start = time.perf_counter()
    with ranks.begin(chosen):
        weights = METHODS[method].compute(tensors, **settings, **more)
        if ranks.rank() > 0:
            return
        number = ranks.size()
    save_weights(path, weights, bias=options.bias, outputs=outputs.fingerprint, **settings)
    seconds = time.perf_counter() - start
    n, d = tensors.F.shape
    where = f"{chosen}{f', {number} ranks' if number > 1 else ''}"
    print(f"{METHODS[method].label} on {options.model}: {n} training points, {d} features, {where}")
    for part, F, pred in (("training", tensors.F, tensors.pred), ("test", tensors.F_test, tensors.pred_test)):
        head = (pred.double() - probabilities(F, tensors.theta.double())).abs().mean()
        l1, pearson = fidelity(F, pred, weights.parameters)
        print(f"{part} data, prediction against its decomposition: L1 difference {l1:.4g}, Pearson {pearson:.6f}")
        print(f"{part} data, prediction against the last layer itself: L1 difference {head:.4g}")
    print(f"time to calculate and write the weights: {seconds:.3f} s")
    print(f"written: {shown(path)}")
