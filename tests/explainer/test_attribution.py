"""The general library against first principles: autograd Hessians of the whole head, in float64."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from explainer.attribution import RPSL2, RPSLJE, GroupInfluence, InfluenceFunction, TracIn
from explainer.attribution.fitting import fit_head
from explainer.last_layer import RankWarning

N, D = 60, 4
HEADS = [("binary", 1), ("multiclass", 2), ("multiclass", 3), ("multiclass", 10), ("multilabel", 3)]


class Problem:
    """Seeded features, labels and a head with a bias, and its loss written with torch's own functions."""

    def __init__(self, kind, C, n=N, d=D, m=7, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.kind, self.C, self.n, self.d = kind, C, n, d
        self.F = torch.randn(n, d, generator=g, dtype=torch.float64)
        self.F_test = torch.randn(m, d, generator=g, dtype=torch.float64)
        self.weight = torch.randn(C, d, generator=g, dtype=torch.float64)
        self.bias = torch.randn(C, generator=g, dtype=torch.float64)
        classes = 2 if kind == "binary" else C
        shape = (n, C) if kind == "multilabel" else (n,)
        self.y = torch.randint(2 if kind == "multilabel" else classes, shape, generator=g)
        self.arrays = self.F, self.y, self.weight, self.bias
        self.classes = torch.randint(classes, (m,), generator=g)

    @property
    def theta(self):
        """(D+1,C), flattened in the order of the library."""
        return torch.cat([self.weight.T, self.bias[None]]).reshape(-1)

    def features(self, F):
        return torch.cat([F, torch.ones(len(F), 1, dtype=F.dtype)], 1)

    def losses(self, theta, F=None, y=None):
        """The loss of every point, (n,)."""
        F, y = (self.F if F is None else F), (self.y if y is None else y)
        z = self.features(F) @ theta.reshape(-1, self.C)
        if self.kind == "multiclass":
            return cross_entropy(z, y.long(), reduction="none")
        y = y.reshape(len(z), self.C).double()
        return binary_cross_entropy_with_logits(z, y, reduction="none").sum(1)

    def gradients(self, theta, F=None, y=None):
        return torch.autograd.functional.jacobian(lambda t: self.losses(t, F, y), theta)

    def hessian(self, theta, damping=0.0):
        H = torch.autograd.functional.hessian(lambda t: self.losses(t).mean(), theta)
        return H + damping * torch.eye(len(H), dtype=H.dtype)

    def direction(self, t):
        """d(logit of the explained class)/d(theta) of test point t."""
        e = torch.zeros(self.C, dtype=torch.float64)
        if self.kind == "binary":
            e[0] = 1.0 if self.classes[t] == 1 else -1.0
        else:
            e[self.classes[t]] = 1.0
        return (self.features(self.F_test)[t][:, None] * e).reshape(-1)

    def test_gradient(self, theta, t):
        """The gradient of the loss that test point t has if the explained class is its label."""
        if self.kind == "multilabel":
            theta = theta.detach().requires_grad_()
            z = self.features(self.F_test[t : t + 1]) @ theta.reshape(-1, self.C)
            (g,) = torch.autograd.grad(torch.nn.functional.softplus(-z[0, self.classes[t]]), theta)
            return g
        return self.gradients(theta, self.F_test[t : t + 1], self.classes[t : t + 1])[0]


@pytest.fixture(params=HEADS, ids=lambda head: f"{head[0]}-{head[1]}")
def problem(request):
    return Problem(*request.param)


def inverse(H):
    return torch.linalg.pinv(H, rcond=1e-10, hermitian=True)


@pytest.mark.parametrize(("damping", "decay", "solver"), [(0, 0, "exact"), (0.1, 0, "exact"), (0.02, 0.1, "cg")])
@pytest.mark.parametrize("decay_intercept", [True, False])
def test_rps_lje_is_the_expansion_by_autograd(problem, damping, decay, solver, decay_intercept):
    theta, n = problem.theta, problem.n
    pull = torch.full((problem.d + 1, problem.C), float(decay), dtype=torch.float64)
    pull[-1] = decay if decay_intercept else 0.0
    pull = pull.reshape(-1)
    anchor = theta + 0.3 * (problem.gradients(theta).mean(0) + pull * theta)
    H, G = inverse(problem.hessian(anchor, damping) + torch.diag(pull)), problem.gradients(anchor)
    W = (anchor - (G + pull * anchor) @ H) / n
    more = {"decay": decay, "decay_intercept": decay_intercept, "damping": damping, "solver": solver}
    more |= {"solver_settings": {"tolerance": 1e-13}} if solver == "cg" else {}
    explainer = RPSLJE.from_arrays(*problem.arrays, lr=0.3, **more)
    (_, weights), *more = explainer.weights()
    assert not more
    torch.testing.assert_close(weights.reshape(n, -1), W, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(explainer.parameters.reshape(-1), W.sum(0), rtol=1e-8, atol=1e-8)
    expected = torch.stack([W @ problem.direction(t) for t in range(7)])
    blocks = list(explainer.influence(problem.F_test, problem.classes))
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=1e-8, atol=1e-10)
    own = explainer.self_influence()
    for i in (0, 5, 17):
        y = problem.y[i]
        e = torch.eye(problem.C)[y] if problem.kind == "multiclass" else (2.0 * y - 1).reshape(-1)
        f = (problem.features(problem.F)[i][:, None] * e).reshape(-1)
        assert own[i] == pytest.approx(float(W[i] @ f), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_influence_functions_are_those_by_autograd(problem, damping):
    theta, n = problem.theta, problem.n
    H, G = inverse(problem.hessian(theta, damping)), problem.gradients(theta)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, damping=damping)
    expected = torch.stack([G @ H @ problem.test_gradient(theta, t) / n for t in range(7)])
    found = np.concatenate(list(explainer.influence(problem.F_test, problem.classes)))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(explainer.self_influence(), ((G @ H) * G).sum(1) / n, rtol=1e-8, atol=1e-10)
    ((_, weights),) = explainer.weights()
    torch.testing.assert_close(weights.reshape(n, -1), -G @ H / n, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(explainer.parameters.reshape(-1), theta - H @ G.mean(0), rtol=1e-8, atol=1e-8)


def test_rps_l2_is_the_minimum_and_sums_to_it(problem):
    lmbd, Z = 0.01, problem.features(problem.F) @ problem.theta.reshape(-1, problem.C)
    P = Z.softmax(1) if problem.kind == "multiclass" else Z.sigmoid()
    explainer = RPSL2.from_arrays(*problem.arrays, lmbd=lmbd)
    theta = explainer.fitted.weight.clone().requires_grad_()
    logits = problem.features(problem.F) @ theta
    if problem.kind == "multiclass":
        loss = cross_entropy(logits, P)
    else:
        loss = binary_cross_entropy_with_logits(logits, P, reduction="none").sum(1).mean()
    (gradient,) = torch.autograd.grad(loss + lmbd * theta.square().sum(), theta)
    assert gradient.abs().max() < 1e-8
    torch.testing.assert_close(explainer.parameters, theta.detach(), rtol=1e-6, atol=1e-8)
    scores = np.concatenate(list(explainer.influence(problem.F_test, problem.classes)))
    expected = [float(problem.direction(t) @ theta.detach().reshape(-1)) for t in range(7)]
    np.testing.assert_allclose(scores.sum(1), expected, rtol=1e-6, atol=1e-7)
    W = torch.cat([w for _, w in explainer.weights()]).reshape(problem.n, -1)
    np.testing.assert_allclose(scores, torch.stack([W @ problem.direction(t) for t in range(7)]), atol=1e-12)


def test_tracin_sums_the_gradient_products_of_every_checkpoint(problem):
    other = Problem(problem.kind, problem.C, seed=1)
    other.y, other.classes = problem.y, problem.classes
    rates, expected, own = [0.1, 0.02], 0.0, 0.0
    for rate, p in zip(rates, (problem, other)):
        G = p.gradients(p.theta)
        expected = expected + rate * torch.stack([G @ p.test_gradient(p.theta, t) for t in range(7)])
        own = own + rate * G.square().sum(1)
    lists = [[a, b] for a, b in zip(problem.arrays, other.arrays)]
    explainer = TracIn.from_arrays(lists[0], problem.y, lists[2], lists[3], learning_rates=rates)
    found = np.concatenate(list(explainer.influence([problem.F_test, other.F_test], problem.classes)))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(explainer.self_influence(), own, rtol=1e-8)
    values, indices = explainer.top_k([problem.F_test, other.F_test], 3, problem.classes)
    np.testing.assert_array_equal(indices, np.argsort(-expected.numpy(), 1)[:, :3])


@pytest.mark.parametrize("method", [RPSLJE, RPSL2, InfluenceFunction])
@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_top_k_is_the_sorted_influence(problem, method, order):
    explainer = method.from_arrays(*problem.arrays, memory_limit=3000)  # blocks of some rows and test points
    scores = np.concatenate(list(explainer.influence(problem.F_test, problem.classes)))
    result = explainer.top_k(problem.F_test, 5, problem.classes, order)
    sign = -1 if order == "descending" else 1
    expected = np.argsort(sign * scores, 1)[:, :5]
    values, indices = result
    np.testing.assert_allclose(values, np.take_along_axis(scores, expected, 1), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(result.supports, values > 0)
    frame = result.to_frame()
    assert len(frame) == 35 and frame["training_point"].tolist() == indices.reshape(-1).tolist()


def fitted(kind, C, decay, n=80, seed=3):
    """A problem whose head is at the minimum of its mean loss with decay."""
    problem = Problem(kind, C, n=n, seed=seed)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, damping=decay)
    head = fit_head(explainer.rows, explainer.head.targets(explainer.labels), explainer.head, decay)
    problem.weight, problem.bias = head.weight[:-1].T.contiguous(), head.weight[-1]
    problem.arrays = problem.F, problem.y, problem.weight, problem.bias
    return problem


def refitted(problem, kept, decay):
    """The logits of all points from the head refitted on some of them, the penalty as in the sum over all."""
    arrays = problem.F[kept], problem.y[kept], problem.weight, problem.bias
    explainer = InfluenceFunction.from_arrays(*arrays, damping=decay)
    head = fit_head(
        explainer.rows, explainer.head.targets(explainer.labels), explainer.head, decay * problem.n / int(kept.sum())
    )
    return problem.features(problem.F) @ head.weight


@pytest.mark.parametrize(("kind", "C"), [("binary", 1), ("multiclass", 4), ("multilabel", 2)])
@pytest.mark.parametrize("method", [InfluenceFunction, RPSLJE])
def test_leave_one_out_is_a_refit_without_the_point(kind, C, method):
    problem, decay = fitted(kind, C, 0.05), 0.05
    more = {"lr": 1e-4} if method is RPSLJE else {}
    found = method.from_arrays(*problem.arrays, decay=decay, **more).leave_one_out()
    refits, whole = [], problem.features(problem.F) @ torch.cat([problem.weight.T, problem.bias[None]])
    for i in range(problem.n):
        kept = torch.ones(problem.n, dtype=torch.bool)
        kept[i] = False
        refits.append(refitted(problem, kept, decay)[i])
    refits = torch.stack(refits).numpy().reshape(found.logits.shape)
    changes, expected = (z - whole.numpy().reshape(z.shape) for z in (found.logits, refits))
    assert np.corrcoef(changes.reshape(-1), expected.reshape(-1))[0, 1] > 0.999
    assert np.abs(changes - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "C"), [("binary", 1), ("multiclass", 4)])
def test_group_influence_is_a_refit_without_the_group(kind, C):
    problem, decay, group = fitted(kind, C, 0.05), 0.05, np.arange(0, 80, 4)
    kept = torch.ones(problem.n, dtype=torch.bool)
    kept[group] = False
    whole = problem.features(problem.F) @ torch.cat([problem.weight.T, problem.bias[None]])
    expected = (refitted(problem, kept, decay) - whole).numpy()
    explainer = GroupInfluence.from_arrays(*problem.arrays, decay=decay)
    errors = [np.abs(explainer.effect(group, problem.F, order) - expected).mean() for order in (1, 2, "newton")]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.1 * np.abs(expected).mean()
    single = explainer.effect([7], problem.F[:3], 1)
    theta, G = explainer.head.weight.reshape(-1), problem.gradients(explainer.head.weight.reshape(-1))
    moved = inverse(problem.hessian(theta, decay)) @ G[7] / problem.n
    np.testing.assert_allclose(single, problem.features(problem.F[:3]) @ moved.reshape(-1, C), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("kind", "C"), [("binary", 1), ("multiclass", 3), ("multilabel", 2)])
def test_logits_are_reproduced_where_the_head_is_stationary(kind, C):
    problem = Problem(kind, C, n=300)  # random labels: no decay is needed for a minimum
    start = InfluenceFunction.from_arrays(*problem.arrays)
    head = fit_head(start.rows, start.head.targets(start.labels), start.head, 0.0, tolerance=1e-13)
    explainer = RPSLJE.from_arrays(problem.F, problem.y, head.weight[:-1].T, head.weight[-1], lr=0.01)
    sums = sum(weights.sum(0) for _, weights in explainer.weights())
    torch.testing.assert_close(explainer.parameters, sums, rtol=1e-10, atol=1e-12)
    logits = problem.features(problem.F_test) @ head.weight
    np.testing.assert_allclose(explainer.reproduced_logits(problem.F_test), logits, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(explainer.logits(problem.F_test), logits, rtol=1e-12)


@pytest.mark.parametrize("method", [RPSLJE, RPSL2, InfluenceFunction])
def test_the_most_suspicious_are_the_first_of_the_order(problem, method):
    explainer = method.from_arrays(*problem.arrays)
    indices, suspicion = explainer.most_suspicious(7)
    every = explainer.suspicion()
    np.testing.assert_array_equal(indices, np.argsort(-every, kind="stable")[:7])
    np.testing.assert_array_equal(suspicion, every[indices])
    if method is not RPSL2:
        np.testing.assert_allclose(every, np.abs(explainer.self_influence()))
    with pytest.raises(ValueError, match="k is 61: give a whole number from 1 to 60"):
        explainer.most_suspicious(61)


def test_logits_are_reproduced_at_the_minimum_of_a_decayed_loss():
    for kind, C in (("binary", 1), ("multiclass", 3), ("multilabel", 2)):
        problem, decay = fitted(kind, C, 0.05), 0.05
        explainer = RPSLJE.from_arrays(*problem.arrays, lr=0.01, decay=decay)
        np.testing.assert_allclose(
            explainer.reproduced_logits(problem.F_test), explainer.logits(problem.F_test), rtol=1e-6, atol=1e-7
        )


def test_a_bias_that_is_left_out_stays_in_the_probabilities():
    problem = Problem("multiclass", 3)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, intercept=False)
    P = (problem.F @ problem.weight.T + problem.bias).softmax(1)
    torch.testing.assert_close(explainer.P, P)
    np.testing.assert_allclose(explainer.logits(problem.F_test), problem.F_test @ problem.weight.T + problem.bias)


def test_points_that_determine_the_head_alone_are_named():
    problem = Problem("binary", 1, n=12, d=30)
    with pytest.warns(RankWarning, match="12 points do not determine the head; add damping"):
        explainer = InfluenceFunction.from_arrays(*problem.arrays, solver="dual")
    with pytest.raises(ValueError, match=r"training point \d+ is fitted by a direction of its own .*add damping"):
        explainer.leave_one_out()
    assert np.isfinite(InfluenceFunction.from_arrays(*problem.arrays, damping=0.1).leave_one_out().logits).all()


@pytest.mark.parametrize("kind, C", [("binary", 1), ("multiclass", 3), ("multilabel", 2)])
def test_points_that_determine_a_direction_are_named_in_float32_and_others_answered(kind, C):
    problem = Problem(kind, C, n=200, d=20)
    F = problem.F.clone()
    F[:, -1] = 0
    F[7, -1] = 3
    single = F.float(), problem.y, 0.1 * problem.weight.float(), problem.bias.float()
    for precision, said in ((None, "add damping, or give precision=torch.float64"), (torch.float64, "add damping$")):
        with pytest.raises(ValueError, match=f"training point 7 is fitted by .* {said}"):
            InfluenceFunction.from_arrays(*single, precision=precision).leave_one_out()
    F[8:10, -1] = torch.tensor([0.1, 0.2], dtype=torch.float64)  # of a leverage near 1, and below it
    arrays = F.float(), *single[1:]
    one, two = (InfluenceFunction.from_arrays(*arrays, precision=p).leave_one_out() for p in (None, torch.float64))
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-3, atol=1e-3)
