import numpy as np
import pytest

from dataset_debugging.calculate_orders import (
    SHARES,
    checked,
    flipped_points,
    fraction_corrected,
    fraction_identified,
    order_by_suspicion,
    still_wrong,
)


def test_flips_are_the_published_permutation():
    order, flipped = flipped_points(10000, 0.2, 11)
    np.testing.assert_array_equal(order, np.random.RandomState(11).permutation(10000))
    np.testing.assert_array_equal(flipped, order[:2000])


def test_identified_share_is_a_count_along_the_order():
    generator = np.random.default_rng(0)
    suspicion, (_, flipped) = generator.normal(size=1118), flipped_points(1118, 0.3, 0)
    order = order_by_suspicion(suspicion)
    assert suspicion[order[0]] == suspicion.max() and suspicion[order[-1]] == suspicion.min()
    share, wrong = fraction_identified(order, flipped), set(flipped.tolist())
    for c, s in enumerate(SHARES):
        found = sum(1 for i in order[: int(1118 * (c + 1) / 20)] if i in wrong)
        assert share[c] == pytest.approx(found / 335)
        assert len(still_wrong(order, flipped, c + 1)) == 335 - found
        assert len(checked(order, c + 1)) == pytest.approx(1118 * s, abs=1)
    assert share[-1] == 1 and len(still_wrong(order, flipped, 20)) == 0


def test_a_perfect_order_finds_all_first():
    _, flipped = flipped_points(1000, 0.2, 1)
    perfect = np.isin(np.arange(1000), flipped).astype(float)
    np.testing.assert_allclose(fraction_identified(order_by_suspicion(perfect), flipped)[:5], [0.25, 0.5, 0.75, 1, 1])


def test_equal_suspicion_keeps_the_data_sets_order():
    assert order_by_suspicion(np.array([0.0, 1.0, 0.0, 1.0])).tolist() == [1, 3, 0, 2]


def test_labels_that_a_detector_corrects_may_be_wrong_afterwards():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 100)
    order, (_, flipped) = generator.permutation(100), flipped_points(100, 0.2, 3)
    given = y.copy()
    given[flipped] = 1 - given[flipped]
    changed = generator.random(100) < 0.4
    for c in range(20):
        repaired = given.copy()
        rows = [i for i in order[: 5 * (c + 1)] if changed[i]]
        repaired[rows] = 1 - repaired[rows]
        assert still_wrong(order, flipped, c + 1, changed).tolist() == np.flatnonzero(repaired != y).tolist()
        assert fraction_corrected(order, flipped, changed)[c] == pytest.approx((repaired[flipped] == y[flipped]).mean())
    none = np.zeros(100, bool)
    assert (fraction_corrected(order, flipped, none) == 0).all() and not fraction_corrected(
        order, flipped[:0], none
    ).any()


def test_nothing_flipped():
    _, flipped = flipped_points(100, 0.0, 0)
    assert len(flipped) == 0 and (fraction_identified(np.arange(100), flipped) == 0).all()
