"""How close a decomposition is to the prediction that it explains: mean absolute difference and Pearson correlation."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from explainer.last_layer import probabilities


class Fidelity(NamedTuple):
    """l1: mean absolute difference of the probabilities, in [0, 1]. pearson: their correlation, NaN for a constant."""

    l1: float
    pearson: float


def fidelity(F: Float[Tensor, "k d"], pred: Float[Tensor, " k"], parameters: Float[Tensor, " d"]) -> Fidelity:
    """Compare the model's probabilities `pred` with sigmoid(F parameters), the sum over all training points."""
    pred, decomposed = pred.double(), probabilities(F, parameters)
    correlation = torch.corrcoef(torch.stack([pred, decomposed]))[0, 1]
    return Fidelity((pred - decomposed).abs().mean().item(), correlation.item())
