import numpy as np
import pytest
import torch
from reference import head, influence_loop, sigmoid
from scipy.stats import pearsonr, spearmanr

from explainer import influence_function
from explainer.influence import loss_gradients


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_weights_are_the_loops(damping):
    F, y, theta = head()
    result = influence_function(F, y, theta, damping)
    weights, self_influence = influence_loop(F.numpy(), y.numpy(), theta.numpy(), damping)
    np.testing.assert_allclose(result.weight_matrix.numpy(), weights, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(result.self_influence.numpy(), self_influence, rtol=1e-10)
    total = theta.numpy() + weights.sum(0)
    np.testing.assert_allclose(result.parameters.numpy(), total, rtol=1e-10)


def test_gradients_of_test_points_are_autograds():
    F, y, theta = head()

    def losses(theta):
        return torch.nn.functional.binary_cross_entropy_with_logits(F @ theta, y.double(), reduction="none")

    expected = torch.autograd.functional.jacobian(losses, theta)
    torch.testing.assert_close(loss_gradients(F, y, theta), expected, rtol=1e-10, atol=1e-12)


L2 = 0.02


def fit(F, y, weights):
    """The minimizer of sum_i weights_i BCE_i / n + L2/2 |theta|^2, by Newton's method."""
    theta = np.zeros(F.shape[1])
    for _ in range(50):
        p = sigmoid(F @ theta)
        gradient = F.T @ (weights * (p - y)) / len(F) + L2 * theta
        H = (F.T * (weights * p * (1 - p))) @ F / len(F) + L2 * np.eye(F.shape[1])
        theta = theta - np.linalg.solve(H, gradient)
    assert np.abs(gradient).max() < 1e-10
    return theta


def bce(F, y, theta):
    z = F @ theta
    return np.logaddexp(0, z) - y * z


def test_influence_predicts_leave_one_out_refits():
    F, y, _ = (tensor.numpy() for tensor in head(n=120, d=6, seed=3))
    F_test, y_test, _ = (tensor.numpy() for tensor in head(n=20, d=6, seed=4))
    theta = fit(F, y, np.ones(len(F)))
    result = influence_function(*map(torch.from_numpy, (F, y, theta)), damping=L2)
    gradients = loss_gradients(*map(torch.from_numpy, (F_test, y_test, theta))).numpy()
    estimated = -result.weight_matrix.numpy() @ gradients.T  # change of each test loss when a point is left out
    refits = [fit(F, y, np.arange(len(F)) != i) for i in range(len(F))]
    actual = np.array([bce(F_test, y_test, t) - bce(F_test, y_test, theta) for t in refits])
    assert pearsonr(estimated.ravel(), actual.ravel())[0] > 0.95
    assert spearmanr(estimated.ravel(), actual.ravel())[0] > 0.95
    own = [bce(F, y, t)[i] - bce(F, y, theta)[i] for i, t in enumerate(refits)]
    assert pearsonr(result.self_influence.numpy(), own)[0] > 0.95
    assert spearmanr(result.self_influence.numpy(), own)[0] > 0.95
    slope = np.polyfit(estimated.ravel(), actual.ravel(), 1)[0]
    assert 0.8 < slope < 1.3  # the unit is that of the loss, not only the order
