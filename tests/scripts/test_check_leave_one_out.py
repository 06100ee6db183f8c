"""The script that compares leave-one-out probabilities with refits."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scripts.check_leave_one_out import compared


def test_refits_are_scikit_learns_and_the_closed_form_is_close():
    generator = np.random.default_rng(0)
    F = generator.normal(size=(80, 4)) * [1, 3, 0.5, 1]
    y = (F[:, 0] + generator.logistic(size=80) > 0).astype(int)
    decay, n = 0.01, 80
    by_head, closed, refits, *_ = compared(F, y, decay, 80, 0, "test")  # all points, in the order of the draw
    assert np.corrcoef(closed - by_head, refits - by_head)[0, 1] > 0.99
    assert np.abs(closed - refits).max() < 0.2 * np.abs(refits - by_head).max()
    rows, expected = np.column_stack([F, np.ones(n)]), []  # the penalty is on the bias too
    for i in range(n):
        kept = np.arange(n) != i
        model = LogisticRegression(C=1 / (decay * n), fit_intercept=False, tol=1e-10, max_iter=1000)
        p = model.fit(rows[kept], y[kept]).predict_proba(rows[i : i + 1])[0]
        expected.append(p[y[i]])
    np.testing.assert_allclose(np.sort(refits), np.sort(expected), atol=1e-5)
    assert by_head.mean() == pytest.approx(closed.mean(), abs=0.1)
