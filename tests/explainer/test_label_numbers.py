"""What people give to the label-error finder: columns of any spread, tables, tensors, labels and settings."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_label_errors import digits

from config import UserError
from explainer.label_errors import find_label_errors
from explainer.label_errors.columns import numbers, ordered32, standardized


@pytest.fixture(scope="module")
def few():
    """80 digits of two classes, some labels wrong, and their list."""
    X, y, *_ = digits()
    X, y = X[:80, 10:30].round(2), y[:80]
    return X, y, find_label_errors(X, y, neighbours=2, rounds=3)


def listed(*args, **more):
    return find_label_errors(*args, **{"neighbours": 2, "rounds": 3, **more})


def test_every_column_has_its_own_spread():
    X, y, wrong, _ = digits()
    generator = np.random.default_rng(0)
    wide = generator.integers(10**9, 10**10, len(y))
    plain = np.column_stack([X, (wide - wide.mean()) / wide.std()])
    given = {
        "digits": wide,
        "nanoseconds": 1.7e18 + 1e6 * wide,
        "tiny": 1e-12 * wide / 1e10,
        "offset": 1e9 + wide / 1e10,
    }
    expected = find_label_errors(plain, y, neighbours=0)
    for column in given.values():
        table = find_label_errors(np.column_stack([X, column]), y, neighbours=0)
        assert wrong[table["index"][: wrong.sum()]].mean() > 0.8
    scales, offsets = 10.0 ** generator.integers(-12, 12, plain.shape[1]), generator.normal(size=plain.shape[1])
    table = find_label_errors(plain * scales + offsets * scales, y, neighbours=0)
    assert table["index"].tolist() == expected["index"].tolist()
    np.testing.assert_allclose(table["score"], expected["score"], rtol=1e-6)


def test_standardized_columns_are_those_of_exact_arithmetic():
    base = np.arange(20.0) ** 2
    expected = (base - base.mean()) / base.std()
    columns = [base * 1e300, base * 1e-300, base + 1e12, -base * 4e305, np.full(20, 0.1), np.full(20, 1e300)]
    Z = standardized(np.column_stack(columns)).numpy()
    assert Z.shape == (20, 5)
    for k, sign in enumerate((1, 1, 1, -1)):
        np.testing.assert_allclose(Z[:, k], sign * expected, atol=1e-9)


def test_whole_numbers_beyond_floating_ones_keep_their_differences():
    counts = 2**60 + np.arange(6)
    for kind in (np.int64, np.uint64):
        np.testing.assert_array_equal(numbers(counts.astype(kind)[:, None], "F")[:, 0], np.arange(6))
    ends = np.array([[-(2**63)], [2**63 - 1]])
    np.testing.assert_array_equal(numbers(ends, "F")[:, 0], [0, 2.0**64])
    times = pd.DataFrame(
        {"t": pd.to_datetime(1_700_000_000_000_000_000 + np.arange(6)), "o": [2**70 + k for k in range(6)]}
    )
    np.testing.assert_array_equal(numbers(times, "F"), np.arange(6)[:, None] * np.ones(2))


def test_float32_keeps_the_order_of_every_column():
    generator = np.random.default_rng(0)
    X = np.column_stack([generator.normal(size=50), 1.7e18 + 256 * generator.permutation(50), 1e300 * np.arange(50)])
    X[3, 1] = np.nan
    short = ordered32(X)
    assert short.dtype == np.float32 and np.isnan(short[3, 1]) and np.isfinite(np.delete(short, 3, 0)).all()
    kept = np.delete(np.arange(50), 3)
    for j in range(3):
        np.testing.assert_array_equal(np.argsort(short[kept, j]), np.argsort(X[kept, j]))
    np.testing.assert_array_equal(short[:, 0], X[:, 0].astype(np.float32))


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (lambda X: X.tolist(), True),
        (lambda X: X[:, ::-1][:, ::-1], True),
        (lambda X: X[::-1].copy()[::-1], True),
        (lambda X: np.asfortranarray(X), True),
        (lambda X: np.broadcast_to(X, X.shape), True),  # which cannot be written
        (lambda X: X.astype(">f8"), True),
        (lambda X: torch.as_tensor(X).requires_grad_(), True),
        (lambda X: list(torch.as_tensor(X)), True),
        (lambda X: pd.DataFrame(X, index=np.arange(len(X)) * 3), True),
        (lambda X: pd.DataFrame(X).astype("Float64"), True),
        (lambda X: torch.as_tensor(X).float(), False),
        (lambda X: torch.as_tensor(X).half(), False),
        (lambda X: X.astype(np.float16), False),
        (lambda X: torch.as_tensor(X).bfloat16(), False),
    ],
)
def test_features_of_every_kind(few, change, exact):
    X, y, expected = few
    table = listed(change(X), pd.Series(y, index=np.arange(len(y)) * 3))
    np.testing.assert_allclose(table["score"], expected["score"], atol=1e-9 if exact else 0.3)
    assert not exact or table["index"].tolist() == expected["index"].tolist()


def test_a_table_of_mixed_columns_is_its_columns_of_numbers(few):
    X, y, _ = few
    side = np.where(X[:, 0] > np.median(X[:, 0]), "left", "right")
    table = pd.DataFrame(X, columns=[f"x{k}" for k in range(X.shape[1])]).assign(
        flag=X[:, 1] > 0.3,
        whole=pd.array(np.arange(len(y)) % 5, dtype="Int64"),
        category=pd.Categorical(side),
        text=pd.Series(side, dtype="string"),
        objects=side.astype(object),
        when=pd.date_range("2026", periods=len(y), freq="s"),
    )
    pair = np.column_stack([side == "left", side == "right"])
    plain = [X, X[:, 1:2] > 0.3, np.arange(len(y))[:, None] % 5, pair, pair, pair, np.arange(len(y))[:, None]]
    assert listed(table, y)["score"].tolist() == pytest.approx(listed(np.column_stack(plain), y)["score"].tolist())


@pytest.mark.parametrize(
    "kind",
    [
        lambda names: names.tolist(),
        lambda names: names.astype(object),
        pd.Categorical,
        lambda names: pd.Series(names, dtype="string"),
        lambda names: pd.Series(names, index=np.arange(len(names)) * 7).astype("category"),
        lambda names: names == "b",
        lambda names: torch.as_tensor(names == "b"),
        lambda names: pd.array(names == "b", dtype="Int64"),
    ],
)
def test_labels_of_every_kind(few, kind):
    X, y, expected = few
    table = listed(X, kind(np.array(["a", "b"])[y]))
    assert table["index"].tolist() == expected["index"].tolist()


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"moments": None}, {"moments": ()}),
        ({"votes": 5}, {"votes": (5,)}),
        ({"votes": None}, {"votes": ()}),
        ({"votes": np.array([5, 10])}, {"votes": (5, 10)}),
        ({"ridges": 1.0}, {"ridges": (1.0,)}),
        ({"ridges": torch.tensor(2.0)}, {"ridges": (2.0,)}),
    ],
)
def test_one_number_is_a_list_of_one(few, more, same):
    assert listed(*few[:2], **more).equals(listed(*few[:2], **same))


def _table(X, **columns):
    return pd.DataFrame(X[:, :3], columns=list("abc")).assign(**columns)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda X, y: (_table(X, d=pd.array([1, None] * 40, dtype="Int64")), y), "row 1 of features .* column d"),
        (lambda X, y: (_table(X, d=pd.Categorical(["u", None] * 40)), y), "column 'd' of features is missing in row 1"),
        (lambda X, y: (_table(X, d=[str(k) for k in range(80)]), y), "holds numbers as texts"),
        (lambda X, y: (_table(X, d=[f"k{k}" for k in range(80)]), y), "80 different texts, more than 50"),
        (lambda X, y: (_table(X, d=1j), y), "complex numbers"),
        (lambda X, y: (_table(X), pd.Series(y).sample(frac=1, random_state=0)), "index of labels .* another order"),
        (lambda X, y: (X, [1, "a"] * 40), "several kinds"),
        (lambda X, y: (X, ["a", float("nan")] * 40), "40 labels are missing, the first of row 1"),
        (lambda X, y: ("words", y), "give real numbers"),
        (lambda X, y: ([[1, 2], [3]], [0, 1]), "differ in shape"),
        (lambda X, y: (X, y, 5), "moments are a int: give a list"),
        (lambda X, y: (X, y, X), "moments have the shape .*: give a list"),
        (lambda X, y: (X, y, [X[:5]]), r"got 5 rows of moments\[0\] and 80 labels"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(few, change, said):
    with pytest.raises(UserError, match=said) as caught:
        listed(*change(*few[:2]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("votes", 0), ("votes", "a"), ("votes", True), ("ridges", ()), ("ridges", None), ("ridges", -1.0),
     ("rounds", 0), ("neighbours", -1), ("memory_limit", "1 GB"), ("duplicates", [1]), ("explained_by", np.eye(3))],
)  # fmt: skip
def test_bad_settings_are_named(few, name, value):
    with pytest.raises(UserError, match=name):
        listed(*few[:2], **{name: value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_features_on_a_gpu(few):
    X, y, expected = few
    table = listed(torch.as_tensor(X).cuda(), torch.as_tensor(y).cuda(), [torch.as_tensor(X).cuda()])
    assert table["score"].tolist() == pytest.approx(listed(X, y, [X])["score"].tolist())
