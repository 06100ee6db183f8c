"""Every solver against the inverse Hessian by autograd, within its stated tolerance."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from test_attribution import HEADS, Problem, inverse

from explainer.attribution import RPSLJE, InfluenceFunction, Solver
from explainer.attribution.solvers import SOLVERS
from explainer.last_layer import RankWarning

SETTINGS = {"lissa": {"depth": 4000, "repeats": 4, "batch": 60}, "lowrank": {"rank": 60}}


def solved(problem, solver, damping, V=None, **settings):
    settings = settings or SETTINGS.get(solver, {})
    explainer = InfluenceFunction.from_arrays(*problem.arrays, damping=damping, solver=solver, solver_settings=settings)
    V = torch.stack([problem.direction(t) for t in range(7)]) if V is None else V
    return explainer.solver, explainer.solver.solve(V.reshape(len(V), -1, problem.C)).reshape(len(V), -1)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head[0]}-{head[1]}")
@pytest.mark.parametrize("damping", [0.0, 0.05])
@pytest.mark.parametrize("solver", ["exact", "dual", "cg", "lowrank"])
def test_solvers_invert_the_hessian_by_autograd(head, damping, solver):
    problem = Problem(*head)
    G = problem.gradients(problem.theta)[:7]  # in the range of H, as all right-hand sides are
    expected = G @ inverse(problem.hessian(problem.theta, damping))
    made, found = solved(problem, solver, damping, G)
    assert made.name == solver
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head[0]}-{head[1]}")
def test_lissa_comes_within_five_percent(head):
    problem = Problem(*head)
    G = problem.gradients(problem.theta)[:7]
    expected = G @ inverse(problem.hessian(problem.theta, 0.05))
    _, found = solved(problem, "lissa", 0.05, G)
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_kronecker_is_exact_for_one_logit_and_near_for_many():
    for head, most in ((("binary", 1), 1e-8), (("multiclass", 2), 1e-8), (("multiclass", 10), 0.3)):
        problem = Problem(*head, n=400)
        G = problem.gradients(problem.theta)[:7]
        expected = G @ inverse(problem.hessian(problem.theta, 0.05))
        _, found = solved(problem, "kronecker", 0.05, G)
        plain = G / 0.05  # without any curvature
        error, other = ((x - expected).norm() / expected.norm() for x in (found, plain))
        assert error < most and error < 0.3 * other


@pytest.mark.parametrize("head", [("binary", 1), ("multiclass", 4), ("multilabel", 3)], ids=lambda head: head[0])
@pytest.mark.parametrize("solver", ["exact", "kronecker"])
def test_quadratic_forms_and_leverages_are_those_of_solve(head, solver):
    problem = Problem(*head)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, damping=0.01, solver=solver)
    made, F = explainer.solver, problem.features(problem.F)[:9]
    g = torch.Generator().manual_seed(0)
    R, E = (torch.randn(9, problem.C, generator=g, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(made.quadratic(F, R, E), Solver.quadratic(made, F, R, E), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made.leverage(F), Solver.leverage(made, F), rtol=1e-9, atol=1e-9)


def test_collinear_features_are_solved_by_the_pseudo_inverse_with_a_warning():
    problem = Problem("multiclass", 3)
    problem.F = torch.cat([problem.F, problem.F[:, :1]], 1)
    problem.weight = torch.cat([problem.weight, torch.zeros(3, 1, dtype=torch.float64)], 1)
    problem.d += 1
    problem.F_test = torch.cat([problem.F_test, problem.F_test[:, :1]], 1)
    problem.arrays = problem.F, problem.y, problem.weight, problem.bias
    G = problem.gradients(problem.theta)[:7]
    expected = G @ inverse(problem.hessian(problem.theta))
    with pytest.warns(RankWarning, match="rank 10 of 12"):
        made, found = solved(problem, "exact", 0.0, G)
    assert made.rank == 10
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "d", "C", "chosen"),
    [(60, 4, 3, "exact"), (20, 300, 1, "dual"), (60, 700, 10, "dual"), (800, 700, 10, "kronecker")],
)
def test_auto_picks_by_size_and_says_which(n, d, C, chosen, caplog):
    kind = "binary" if C == 1 else "multiclass"
    problem = Problem(kind, C, n=n, d=d, m=2)
    approximate = chosen == "kronecker"
    expected = pytest.warns(UserWarning, match="6,309 parameters") if approximate else nullcontext()
    with caplog.at_level("INFO"), expected:
        explainer = InfluenceFunction.from_arrays(*problem.arrays, damping=0.1)
    assert explainer.solver.name == chosen and f"solver: {chosen}" in caplog.text
    assert f"solver {chosen}" in repr(explainer)


@pytest.mark.parametrize(("n", "d", "chosen"), [(20, 300, "exact"), (20, 6001, "cg"), (300, 4, "exact")])
def test_auto_picks_a_solver_that_leaves_the_intercept_without_decay(n, d, chosen):
    problem = Problem("binary", 1, n=n, d=d, m=2)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, decay=0.1, decay_intercept=False)
    assert explainer.solver.name == chosen
    rest = explainer.solver.curvature.product(explainer.solver.solve(explainer.gradient[None])) - explainer.gradient
    assert float(rest.abs().max()) < 1e-6


def test_a_subset_for_the_hessian_is_drawn_by_seed():
    problem = Problem("binary", 1, n=200)
    options = {"n_samples_for_hessian": 50, "damping": 0.01}
    one, same, other = (InfluenceFunction.from_arrays(*problem.arrays, **options, seed=s) for s in (1, 1, 2))
    whole = InfluenceFunction.from_arrays(*problem.arrays, damping=0.01)
    np.testing.assert_array_equal(one.self_influence(), same.self_influence())
    assert np.abs(one.self_influence() - other.self_influence()).max() > 0
    assert np.corrcoef(one.self_influence(), whole.self_influence())[0, 1] > 0.9
    picked = np.sort(np.random.default_rng([1, 0]).permutation(200)[:50])
    small = InfluenceFunction.from_arrays(*(a[picked] for a in problem.arrays[:2]), *problem.arrays[2:], damping=0.01)
    v = torch.ones(1, 5, 1, dtype=torch.float64)
    torch.testing.assert_close(one.solver.solve(v), small.solver.solve(v))


class Twice(Solver):
    """A solver of a user's own."""

    name = "twice"

    def solve(self, V):
        return 2 * V


def test_a_solver_of_ones_own():
    problem = Problem("multiclass", 3)
    explainer = InfluenceFunction.from_arrays(*problem.arrays, solver=Twice)
    G = problem.gradients(problem.theta)
    np.testing.assert_allclose(explainer.self_influence(), 2 * (G * G).sum(1) / problem.n, rtol=1e-9)


def test_ill_conditioned_float32_features_are_summed_in_float64(recwarn):
    g = torch.Generator().manual_seed(0)
    F = torch.randn(400, 6, generator=g)
    F[:, 5] = F[:, 0] + 1e-3 * torch.randn(400, generator=g)
    y, weight = (torch.rand(400, generator=g) < 0.5).long(), torch.randn(1, 6, generator=g)
    found = InfluenceFunction.from_arrays(F, y, weight).self_influence()
    expected = InfluenceFunction.from_arrays(F.double(), y, weight.double()).self_influence()
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3 * expected.max())
    assert not recwarn.list


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head[0]}-{head[1]}")
def test_float32_features_give_float32_answers_near_the_exact_ones(head):
    problem = Problem(*head, n=500)
    F, F_test = problem.F.float(), problem.F_test.float()
    exact = RPSLJE.from_arrays(F, *problem.arrays[1:], lr=0.1, precision=torch.float64)
    quick = RPSLJE.from_arrays(F, *problem.arrays[1:], lr=0.1)
    a, b = (np.concatenate(list(e.influence(F_test, problem.classes))) for e in (quick, exact))
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
    np.testing.assert_allclose(
        quick.self_influence(), exact.self_influence(), rtol=1e-3, atol=1e-4 * np.abs(exact.self_influence()).max()
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "magic"}, "solver is 'magic': give one of auto, exact"),
        ({"solver": "lissa"}, "lissa needs damping above 0"),
        ({"solver": "kronecker", "decay": 1.0, "decay_intercept": False}, "needs the solver exact or cg"),
        ({"damping": -1.0}, "damping is -1.0: give a number from 0 up"),
        ({"n_samples_for_hessian": 0}, "n_samples_for_hessian is 0: give a whole number from 1 to 60"),
        ({"n_samples_for_hessian": 61}, "n_samples_for_hessian is 61"),
        ({"solver": "cg", "solver_settings": {"tolerance": 0}}, "tolerance is 0: give a number above 0"),
        ({"solver": "lissa", "damping": 1, "solver_settings": {"depth": 0}}, "depth is 0: give a whole number from 1"),
        ({"solver": "lissa", "damping": 1, "solver_settings": {"scale": -1}}, "scale is -1: give a number above 0"),
        ({"solver": "lowrank", "solver_settings": {"rank": 0}}, "rank is 0: give a whole number from 1 up"),
        ({"solver": "exact", "solver_settings": {"rcond": 1}}, "rcond is 1: give a number from 0 to below 1"),
    ],
)
def test_bad_solver_options(options, said):
    with pytest.raises(ValueError, match=said):
        InfluenceFunction.from_arrays(*Problem("binary", 1).arrays, **options)


def test_conjugate_gradients_converge_on_softmax_heads_in_float32():
    generator = torch.Generator().manual_seed(1)
    F, weight = torch.randn(300, 6, generator=generator), torch.randn(4, 6, generator=generator) * 0.3
    y = torch.multinomial((F @ weight.T).softmax(1), 1, generator=generator)[:, 0]
    quick, exact = (
        InfluenceFunction.from_arrays(F, y, weight, torch.zeros(4), solver=s).top_k(F[:20], 2) for s in ("cg", "exact")
    )
    np.testing.assert_allclose(quick.values, exact.values, rtol=1e-4)


@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_a_rank_that_is_too_small_is_warned_of_and_a_full_one_is_exact(damping):
    problem = Problem("multiclass", 3, n=200, d=20)
    with pytest.warns(RankWarning, match="lowrank keeps 8 of 42 directions"):
        solved(problem, "lowrank", damping, rank=8)
    exact = solved(problem, "exact", damping)[1]
    torch.testing.assert_close(solved(problem, "lowrank", damping, rank=42, iterations=0)[1], exact)


@pytest.mark.parametrize("damping, warned", [(0.0, True), (1e-3, True), (5.0, False)])
def test_what_a_low_rank_leaves_out_is_warned_of_by_its_own_size(damping, warned):
    problem = Problem("binary", 1, n=400, d=40)
    problem.F[:, :5] *= 100  # five eigenvalues far above the others, which damping of 5 outweighs
    problem.weight *= 1e-2
    expected = pytest.warns(RankWarning, match="lowrank keeps 8 of 41 .* and the next is") if warned else nullcontext()
    with warnings.catch_warnings(), expected:
        warnings.simplefilter("always" if warned else "error")
        V = problem.gradients(problem.theta)[:7]
        found = solved(problem, "lowrank", damping, V, rank=8)[1]
    exact = solved(problem, "exact", damping, V)[1]
    assert warned or float((found - exact).norm() / exact.norm()) < 0.1


def test_conjugate_gradients_that_do_not_arrive_say_how_far_they_are():
    problem = Problem("multiclass", 3)
    with pytest.raises(ValueError, match="the residual is .* after 2 steps, wanted 1e-08"):
        solved(problem, "cg", 0.0, steps=2)


def test_every_solver_states_cost_and_memory():
    for solver in SOLVERS.values():
        assert "Time" in solver.__doc__ and "memory" in solver.__doc__.lower()
