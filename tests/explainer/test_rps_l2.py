import sys

import numpy as np
import pytest
import torch
from reference import head, rps_l2_loop

from explainer import rps_l2
from explainer.rps_l2 import ConvergenceWarning, _line_search


@pytest.mark.parametrize("lmbd", [0.003, 0.1, 1.0])
def test_alpha_is_the_loops(lmbd):
    F, _, theta = head()
    pred = (F @ theta).sigmoid()
    alpha, _ = rps_l2_loop(F.numpy(), pred.numpy(), theta.numpy(), lmbd, 3000)
    result = rps_l2(F, pred, theta, lmbd, 3000)
    assert result.converged
    np.testing.assert_allclose(result.alpha.numpy(), alpha, rtol=1e-6, atol=1e-10)


def test_line_search_finds_the_step_of_halving_from_ten_whatever_it_starts_from():
    F, _, theta = head(n=200, d=10, seed=1)
    pred = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    lmbd, z = 0.01, F @ theta
    gradient = F.T @ (z.sigmoid() - pred) / 200 + 2 * lmbd * theta
    _, steps = rps_l2_loop(F.numpy(), pred.numpy(), theta.numpy(), lmbd, 1)
    for power in (0, 1, 3, 8, 30):
        assert _line_search(z, F @ gradient, pred, theta, gradient, lmbd, power)[0] == steps[0]


def test_it_reaches_the_minimum_where_the_parameters_are_their_own_sum():
    F, _, theta = head(n=200, d=10)
    pred, lmbd = (F @ theta).sigmoid(), 0.01
    w = rps_l2(F, pred, theta, lmbd, 20000, tolerance=1e-6).parameters.clone().requires_grad_()
    objective = torch.nn.functional.binary_cross_entropy_with_logits(F @ w, pred) + lmbd * (w**2).sum()
    (gradient,) = torch.autograd.grad(objective, w)
    assert gradient.abs().max() < 1e-6


def test_it_says_that_it_did_not_converge():
    F, _, theta = head()
    with pytest.warns(ConvergenceWarning, match="did not converge in 2 epochs.*larger --epoch"):
        result = rps_l2(F, (F @ theta).sigmoid(), theta, 0.003, 2)
    assert not result.converged and result.epochs == 2


def test_it_evaluates_the_loss_about_twice_a_step(monkeypatch):
    module, calls = sys.modules["explainer.rps_l2"], []  # the package has a function of that name
    original = module.softplus
    monkeypatch.setattr(module, "softplus", lambda z: calls.append(1) or original(z))
    F, _, theta = head(n=200, d=10, seed=1)
    F = F * torch.logspace(0, -1, 10, dtype=F.dtype)  # ill-conditioned, so that it takes many steps
    result = rps_l2(F, (F @ theta).sigmoid(), theta, 0.003, 3000, tolerance=1e-4)
    assert result.epochs > 50
    assert len(calls) < 4 * result.epochs  # one at the start of a step, and those around its bound
