"""The equations of the paper as slow loops in float64, and helpers that several tests share."""

import numpy as np
import torch

from explainer.attribution.heads import Head
from explainer.attribution.rows import Rows
from explainer.attribution.solvers import Curvature
from models.outputs import SavedOutputs


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def hessian_loop(F, theta):
    """(1/n) sum_i p_i (1 - p_i) f_i f_i'."""
    H = np.zeros((F.shape[1], F.shape[1]))
    for f in F:
        p = sigmoid(f @ theta)
        H += p * (1 - p) * np.outer(f, f)
    return H / len(F)


def rps_lje_loop(F, y, theta, lr, damping=0.0):
    """w_i = (theta_hat - H^-1 g_i) / n at theta_hat, one step of ascent away."""
    n = len(F)
    ascent = sum((sigmoid(f @ theta) - t) * f for f, t in zip(F, y)) / n
    anchor = theta + lr * ascent
    H = hessian_loop(F, anchor) + damping * np.eye(F.shape[1])
    return np.array([(anchor - np.linalg.solve(H, (sigmoid(f @ anchor) - t) * f)) / n for f, t in zip(F, y)])


def influence_loop(F, y, theta, damping=0.0):
    """w_i = -H^-1 g_i / n and g_i' H^-1 g_i / n."""
    H = hessian_loop(F, theta) + damping * np.eye(F.shape[1])
    gradients = [(sigmoid(f @ theta) - t) * f for f, t in zip(F, y)]
    steps = [np.linalg.solve(H, g) / len(F) for g in gradients]
    return -np.array(steps), np.array([g @ s for g, s in zip(gradients, steps)])


def rps_l2_loop(F, pred, theta, lmbd, epoch, tolerance=1 / 200):
    """Gradient descent with autograd and a line search that halves from 10 at every step: alpha and the steps."""
    F, pred = torch.tensor(F), torch.tensor(pred)
    theta, steps, first, best = torch.tensor(theta), [], None, (np.inf, None)

    def objective(theta):
        return torch.nn.functional.binary_cross_entropy(torch.sigmoid(F @ theta), pred) + lmbd * (theta**2).sum()

    for _ in range(epoch):
        theta = theta.detach().requires_grad_()
        value = objective(theta)
        (g,) = torch.autograd.grad(value, theta)
        size = g.abs().mean().item()
        first = first or size
        best = min(best, (size, theta.detach()), key=lambda pair: pair[0])
        if best[0] <= tolerance * first:
            break
        t = 10.0
        while t >= 1e-10 and objective(theta - t * g) >= value - t * (g @ g) / 2:
            t /= 2
        steps.append(t)
        theta = theta - t * g
    p = torch.sigmoid(F @ best[1])
    return [-(p[i] - pred[i]).item() / (2 * lmbd * len(F)) for i in range(len(F))], steps


def head(n=60, d=5, seed=0, dtype=torch.float64):
    """A seeded logistic problem: F (n,d), y (n,), theta (d,) as tensors."""
    generator = torch.Generator().manual_seed(seed)
    F = torch.randn(n, d, generator=generator, dtype=dtype)
    theta = torch.randn(d, generator=generator, dtype=dtype)
    y = (torch.rand(n, generator=generator) < (F @ theta).sigmoid()).long()
    return F, y, theta


def saved_outputs(n=60, m=20, d=5, seed=0, **changes):
    """Valid saved outputs of that problem, float32; `changes` replace arrays."""
    F, y, theta = head(n + m, d, seed, torch.float32)
    p = (F @ theta).sigmoid()
    arrays = {"weight": theta[None].numpy(), "train_accuracy": 0.5, "test_accuracy": 0.5}
    for part, rows in (("train", slice(n)), ("test", slice(n, None))):
        arrays |= {f"intermediate_{part}": F[rows].numpy(), f"labels_{part}": y[rows].numpy()}
        arrays |= {f"pred_{part}": p[rows].numpy(), f"outputs_{part}": p[rows].numpy()}
    return SavedOutputs(**{**arrays, **changes})


def hessian(F, p):
    """The library's H of a head with one logit and no bias, for probabilities p (n,), in float64."""
    weight = torch.zeros(F.shape[1], 1, dtype=torch.float64)
    return Curvature(Rows(F, dtype=torch.float64), p[:, None], Head(weight, "binary", False)).dense()[0]
