import numpy as np
import pytest
import torch
from reference import head, hessian, hessian_loop

from config import UserError
from explainer import last_layer
from explainer.last_layer import RankWarning, inverse_hessian, probabilities


def test_hessian_is_the_loops():
    F, _, theta = head()
    H = hessian(F, probabilities(F, theta))
    np.testing.assert_allclose(H.numpy(), hessian_loop(F.numpy(), theta.numpy()), rtol=1e-12)


def test_blocks_change_no_probability(monkeypatch):
    F, _, theta = head(n=101)
    whole = probabilities(F, theta)
    monkeypatch.setattr(last_layer, "BLOCK", 7)
    torch.testing.assert_close(probabilities(F, theta), whole, rtol=1e-12, atol=1e-15)


def test_float32_features_are_summed_in_float64():
    F, _, theta = head(n=5000, d=8, dtype=torch.float32)
    p = probabilities(F, theta.double())
    exact = hessian_loop(F.double().numpy(), theta.double().numpy())
    np.testing.assert_allclose(hessian(F, p).numpy(), exact, rtol=1e-11, atol=1e-14)


def test_well_conditioned_inverse_and_damping():
    F, _, theta = head()
    H = hessian(F, probabilities(F, theta))
    inverse = inverse_hessian(H, damping=0.3)
    np.testing.assert_allclose(inverse.matrix.numpy(), np.linalg.inv(H.numpy() + 0.3 * np.eye(5)), rtol=1e-10)
    assert inverse.rank == 5


@pytest.mark.parametrize("seed", range(3))
def test_singular_hessian_warns_and_is_inverted_on_its_range(seed):
    F, _, theta = head(n=200, d=6, seed=seed)
    F = torch.cat([F, F[:, :2] + F[:, 2:4], torch.zeros(200, 1, dtype=F.dtype)], 1)  # two collinear, one dead
    H = hessian(F, probabilities(F, torch.cat([theta, torch.zeros(3, dtype=F.dtype)])))
    with pytest.warns(RankWarning, match=r"H has rank 6 of 9 \(condition number"):
        inverse = inverse_hessian(H)
    assert inverse.rank == 6
    expected = np.linalg.pinv(H.numpy(), 1e-10, hermitian=True)
    np.testing.assert_allclose(inverse.matrix.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_ill_conditioned_but_regular_hessian_is_inverted_exactly(recwarn):
    s = torch.logspace(0, -7, 30, dtype=torch.float64)  # above the tolerance of 1.5e-8
    U, _ = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    inverse = inverse_hessian((U * s) @ U.T)
    torch.testing.assert_close(inverse.matrix, (U / s) @ U.T, rtol=1e-6, atol=1e-2)
    assert inverse.rank == 30 and not recwarn.list


def test_saturated_model_is_refused():
    with pytest.raises(UserError, match="certain of every training point"):
        inverse_hessian(torch.zeros(3, 3, dtype=torch.float64))


def test_float64_features_are_left_as_they_are():
    F, _, theta = head()
    before = F.clone()
    hessian(F, probabilities(F, theta))
    assert torch.equal(F, before)
