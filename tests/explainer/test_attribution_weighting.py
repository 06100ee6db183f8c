"""Weights of points and classes in the loss: against autograd, copies of points, and refits."""

import numpy as np
import pytest
import torch
from torch.nn import functional as nnf

from config import UserError
from explainer import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TracIn
from explainer.attribution.fitting import fit_head

N, D, DECAY = 50, 3, 0.02
KINDS = {"binary": 1, "multiclass": 3, "multilabel": 2}


def problem(kind):
    g = torch.Generator().manual_seed(1)
    C = KINDS[kind]
    F = torch.randn(N, D, generator=g, dtype=torch.float64)
    y = torch.randint(2 if kind != "multiclass" else 3, (N, C) if kind == "multilabel" else (N,), generator=g)
    w = torch.randint(0, 4, (N,), generator=g).double()
    return F, y, torch.randn(C, D, generator=g, dtype=torch.float64) / 2, torch.randn(C, generator=g).double() / 2, w


def loss(kind, Z, y, smoothing=0.0):
    """The loss of every point (n,), by torch."""
    if kind == "multiclass":
        return nnf.cross_entropy(Z, y, reduction="none", label_smoothing=smoothing)
    Y = y.double().reshape(len(Z), -1) * (1 - smoothing) + smoothing / 2
    return nnf.binary_cross_entropy_with_logits(Z, Y, reduction="none").sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("solver", ["exact", "cg", "dual", "kronecker"])
@pytest.mark.parametrize("kind", KINDS)
def test_influence_is_that_of_autograd(kind, solver, smoothing):
    if (smoothing and kind == "multilabel") or (solver == "kronecker" and kind != "binary"):
        return  # no such option, or an approximation
    F, y, W, b, w = problem(kind)
    F1, Theta = torch.cat([F, torch.ones(N, 1)], 1), torch.cat([W, b[:, None]], 1)
    T, damping = torch.randn(4, D + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), 0.01
    T[:, -1] = 1

    def mean(theta):
        return (w * loss(kind, F1 @ theta.reshape(Theta.shape).T, y, smoothing)).mean()

    H = torch.autograd.functional.hessian(mean, Theta.flatten()) + (DECAY + damping) * torch.eye(Theta.numel())

    def gradient(f, label, s):
        theta = Theta.clone().requires_grad_()
        loss(kind, (f @ theta.T)[None], label[None], s).sum().backward()
        return theta.grad.flatten()

    class_of = 1
    G = torch.stack([w[i] * gradient(F1[i], y[i], smoothing) for i in range(N)])
    if kind == "multilabel":
        rows = []
        for f in T:
            r = torch.zeros(2, dtype=torch.float64)
            r[class_of] = (f @ Theta[class_of]).sigmoid() - 1
            rows.append((r[:, None] * f).flatten())
        g = torch.stack(rows)
    else:
        g = torch.stack([gradient(f, torch.tensor(class_of), 0.0) for f in T])
    expected = (g @ torch.linalg.solve(H, G.T) / N).numpy()
    more = {"head": kind, "label_smoothing": smoothing, "damping": damping, "decay": DECAY, "solver": solver}
    explainer = InfluenceFunction.from_arrays(F, y, W, b, sample_weight=w, **more)
    found = np.concatenate(list(explainer.influence(T[:, :-1], target=class_of)))
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("method", [RPSLJE, InfluenceFunction, RPSL2, TracIn, GroupInfluence])
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_three_is_three_copies(kind, method):
    F, y, W, b, w = problem(kind)
    copies, own = w.long(), np.flatnonzero(w.numpy())
    m = int(copies.sum())
    more = {"head": kind} if method in (RPSL2, TracIn) else {"head": kind, "decay": DECAY}
    more_weighted = dict(more)
    if method is RPSL2:  # 1/n sum w l + lmbd: the penalty is of a mean over n, not m
        more, more_weighted = {**more, "lmbd": 0.01}, {**more, "lmbd": 0.01 * m / N}
    elif "decay" in more:
        more_weighted["decay"] = DECAY * m / N
    if method is RPSLJE:
        more, more_weighted = {**more, "lr": 0.1}, {**more_weighted, "lr": 0.1 * N / m}
    weighted = method.from_arrays(F, y, W, b, sample_weight=w, **more_weighted)
    repeated = method.from_arrays(F.repeat_interleave(copies, 0), y.repeat_interleave(copies, 0), W, b, **more)
    T = torch.randn(3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    a, c = (np.concatenate(list(e.influence(T, target=1))) for e in (weighted, repeated))
    starts = (copies.cumsum(0) - copies).numpy()
    summed = np.stack([c[:, starts[i] : starts[i] + int(copies[i])].sum(1) for i in own], 1)
    if method is RPSLJE:  # the part that is the same for every point is that of n points, or of m
        a, summed = a - a[:, w.numpy() == 0][:, :1], summed - _common(repeated, T) * copies.numpy()[own]
    np.testing.assert_allclose(a[:, own], summed, rtol=1e-6, atol=1e-9)


def _common(explainer, T):
    f = torch.cat([T, torch.ones(len(T), 1)], 1)
    E = explainer.head.directions(torch.ones(len(T), dtype=torch.long))
    return (((f @ explainer.common) * E).sum(1) / explainer.n).numpy()[:, None]


@pytest.mark.parametrize("weights", [{1: 4.0}, [1.0, 4.0], "balanced"])
def test_class_weights_and_leave_one_out_against_refits(weights):
    F, y, W, b, _ = problem("binary")
    y[:20] = 0
    counts = torch.bincount(y)
    by_class = (N / (2 * counts.double())) if weights == "balanced" else torch.tensor([1.0, 4.0]).double()
    w, more = by_class[y], {"decay": DECAY, "class_weight": weights}
    start = GroupInfluence.from_arrays(F, y, W, b, **more)
    torch.testing.assert_close(start.sample_weight, w)
    Y = start.head.targets(start.labels)
    fitted = fit_head(start.rows, Y, start.head, DECAY, 1e-13, w)
    T, changes, effects = torch.randn(4, D).double(), [], []
    theta = fitted.weight.T
    explainer = GroupInfluence.from_arrays(F, y, theta[:, :-1], theta[:, -1], **more)
    assert float(explainer.gradient.abs().max()) < 1e-10
    found = explainer.leave_one_out().logits
    for i in range(0, N, 5):
        v = w.clone()
        v[i] = 0
        refit = fit_head(start.rows, Y, fitted, DECAY, 1e-13, v)
        assert abs(float(refit.logits(start.rows.take([i]))) - found[i]) < 0.03
        changes.append((refit.logits(torch.cat([T, torch.ones(4, 1)], 1)) - fitted.logits(start_row(T)))[:, 0])
        effects.append(explainer.effect([i], T, order="newton")[:, 0])
    slope = np.polyfit(np.ravel(effects), torch.cat(changes).numpy(), 1)[0]
    assert abs(slope - 1) < 0.03


def start_row(T):
    return torch.cat([T, torch.ones(len(T), 1)], 1)


def test_what_weights_cannot_be():
    F, y, W, b, w = problem("binary")
    for bad, message in (
        ({"sample_weight": w[:-1]}, "give one for each of 50 points"),
        ({"sample_weight": -w}, "finite numbers from 0 up"),
        ({"sample_weight": 0 * w}, "every training point has the weight 0"),
        ({"class_weight": {2: 1.0}}, "class_weight has the key 2"),
        ({"class_weight": [1.0, 2.0, 3.0]}, "for each of 2 classes"),
        ({"class_weight": "even"}, "give balanced"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ):
        with pytest.raises(UserError, match=message):
            InfluenceFunction.from_arrays(F, y, W, b, **bad)
    F, y, W, b, _ = problem("multilabel")
    with pytest.raises(UserError, match="class_weight of a multilabel head"):
        InfluenceFunction.from_arrays(F, y, W, b, head="multilabel", class_weight="balanced")
