import numpy as np
import pytest
from reference import saved_outputs

from config import UserError
from models.outputs import SavedOutputs

F = saved_outputs().intermediate_train


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def test_round_trip_with_and_without_bias(tmp_path):
    for bias in (None, np.ones(1, np.float32)):
        saved = saved_outputs(bias=bias)
        saved.save(tmp_path / "o.npz")
        read = SavedOutputs.load(tmp_path / "o.npz", "train first")
        for name, array in vars(saved).items():
            np.testing.assert_array_equal(getattr(read, name), array)


def test_predictions_and_labels_of_the_official_shapes_are_flattened(tmp_path):
    flat = saved_outputs()
    saved_outputs(pred_train=flat.pred_train[:, None], labels_train=flat.labels_train[:, None].astype(float)).save(
        tmp_path / "o.npz"
    )
    read = SavedOutputs.load(tmp_path / "o.npz", "")
    assert read.pred_train.shape == read.labels_train.shape == (60,)
    assert read.labels_train.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intermediate_train": F[:, :3]}, r"intermediate_train has shape \(60, 3\), expected \(points, 5\)"),
        ({"intermediate_train": F[:, :, None]}, "intermediate_train has shape"),
        ({"pred_test": np.ones(3)}, r"pred_test has shape \(3,\), expected 20 values"),
        ({"labels_train": np.zeros(59)}, r"labels_train has shape \(59,\), expected 60 values"),
        ({"intermediate_train": with_value(F, (7, 1), np.nan)}, "intermediate_train has a NaN or infinity in row 7"),
        ({"intermediate_train": with_value(F, (9, 1), np.inf)}, "intermediate_train has a NaN or infinity in row 9"),
        ({"labels_train": np.arange(60)}, r"labels_train holds \[2, 3, 4\], expected only 0 and 1"),
        ({"labels_train": np.ones(60, int)}, r"labels_train holds only \[1\], expected both classes"),
        ({"pred_train": np.full(60, 1.5)}, r"pred_train leaves \[0, 1\]"),
        ({"weight": np.full((1, 5), np.nan)}, "weight has a NaN or infinity"),
        ({"weight": np.ones((1, 0))}, "weight is empty"),
        ({"bias": np.array([np.nan])}, "bias has a NaN or infinity in row 0"),
        ({"bias": np.ones(2)}, r"bias has shape \(2,\), expected one number"),
        ({"train_accuracy": np.ones(2)}, r"train_accuracy has shape \(2,\), expected one number"),
        ({"test_accuracy": "good"}, "test_accuracy holds <U4, expected real numbers"),
        ({"pred_train": np.ones(60, complex)}, "pred_train holds complex128, expected real numbers"),
        ({"intermediate_test": F[:0], "pred_test": F[:0, 0], "labels_test": F[:0, 0]}, "there are no test points"),
        ({"intermediate_train": F.astype(str)}, "intermediate_train holds <U.*, expected real numbers"),
    ],
)
def test_what_explainers_could_not_work_with_is_refused(tmp_path, changes, said):
    saved_outputs(**changes).save(tmp_path / "o.npz")
    with pytest.raises(UserError, match=said + ".*: train first"):
        SavedOutputs.load(tmp_path / "o.npz", "train first")


def test_other_byte_orders_and_precisions_are_read(tmp_path):
    plain = saved_outputs()
    foreign = {"intermediate_train": plain.intermediate_train.astype(">f4"), "pred_train": plain.pred_train.astype("g")}
    saved_outputs(**foreign).save(tmp_path / "o.npz")
    read = SavedOutputs.load(tmp_path / "o.npz", "")
    np.testing.assert_array_equal(read.intermediate_train, plain.intermediate_train)
    assert read.intermediate_train.dtype == np.float32 and read.pred_train.dtype == np.float64


def test_fingerprint_is_that_of_the_contents():
    plain, other = saved_outputs(), saved_outputs(labels_train=1 - saved_outputs().labels_train)
    assert plain.fingerprint == saved_outputs().fingerprint != other.fingerprint
    assert saved_outputs(bias=np.ones(1)).fingerprint not in (
        plain.fingerprint,
        saved_outputs(bias=np.zeros(1)).fingerprint,
    )
