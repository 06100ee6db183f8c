import numpy as np
import pytest
import torch
from reference import head, hessian, hessian_loop, rps_lje_loop, sigmoid

from explainer import last_layer, rps_lje
from explainer.fidelity import fidelity


@pytest.mark.parametrize("lr", [1e-5, 0.01, 10.0])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_weights_are_the_loops(lr, damping):
    F, y, theta = head()
    result = rps_lje(F, y, theta, lr, damping)
    expected = rps_lje_loop(F.numpy(), y.numpy(), theta.numpy(), lr, damping)
    np.testing.assert_allclose(result.weight_matrix.numpy(), expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(result.self_influence.numpy(), (expected * F.numpy()).sum(1), rtol=1e-9, atol=1e-14)


def test_weights_sum_to_the_expanded_parameters():
    F, y, theta = (tensor.numpy() for tensor in head())
    anchor = theta + 0.5 * (sigmoid(F @ theta) - y) @ F / len(F)
    mean_g = (sigmoid(F @ anchor) - y) @ F / len(F)
    expected = anchor - np.linalg.solve(hessian_loop(F, anchor), mean_g)
    result = rps_lje(*map(torch.from_numpy, (F, y, theta)), lr=0.5)
    np.testing.assert_allclose(result.weight_matrix.sum(0).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(result.parameters.numpy(), expected, rtol=1e-10)


def test_a_minimizers_prediction_is_reproduced():
    F, y, theta = head(n=300)
    for _ in range(30):  # Newton, to the minimum of the loss
        p = last_layer.probabilities(F, theta)
        theta = theta - torch.linalg.solve(hessian(F, p), F.T @ (p - y) / len(F))
    result = rps_lje(F, y, theta, lr=1e-3)
    assert fidelity(F, (F @ theta).sigmoid(), result.parameters).l1 < 1e-9


def test_float32_features_give_float32_weights_close_to_float64():
    F, y, theta = head(n=500, d=20, dtype=torch.float32)
    single, double = rps_lje(F, y, theta, 0.01), rps_lje(F.double(), y, theta.double(), 0.01)
    assert single.weight_matrix.dtype == torch.float32
    torch.testing.assert_close(single.weight_matrix, double.weight_matrix.float(), rtol=1e-6, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same():
    F, y, theta = head(n=500, d=20)
    here, there = rps_lje(F, y, theta, 0.01), rps_lje(F.cuda(), y.cuda(), theta.cuda(), 0.01)
    torch.testing.assert_close(here.weight_matrix, there.weight_matrix.cpu(), rtol=1e-9, atol=1e-12)


def test_what_is_no_head_is_a_value_error():
    F, y, theta = head()
    with pytest.raises(ValueError, match="lr is -1.0: give a number above 0"):
        rps_lje(F, y, theta, -1.0)
    with pytest.raises(ValueError, match="labels hold .*2.*: give only 0 and 1"):
        rps_lje(F, 2 * y, theta, 0.1)
