"""Masks: nonzero means use; what does not fit is refused with both shapes."""

import h5py
import numpy as np
import pytest
import tifffile

from beamline_ml.errors import FileMissing, GeometryError
from beamline_ml.frames import load_mask

MASK = np.random.default_rng(2).random((12, 9)) < 0.8


def save(path, mask):
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, mask.astype(np.uint8))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("mask", data=mask)
    return path


@pytest.mark.parametrize("name", ["mask.npy", "mask.tif", "mask.h5"])
def test_every_format(tmp_path, name):
    mask = load_mask(save(tmp_path / name, MASK), (12, 9))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, MASK)


def test_a_transposed_mask_is_refused_naming_both_shapes(tmp_path):
    with pytest.raises(GeometryError, match=r"\(9, 12\).*\(12, 9\); the mask looks transposed"):
        load_mask(save(tmp_path / "mask.npy", MASK), (9, 12))


def test_a_mask_that_uses_nothing_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="invert the mask"):
        load_mask(save(tmp_path / "mask.npy", np.zeros((4, 4))))


def test_what_is_no_mask_is_refused(tmp_path):
    with pytest.raises(FileMissing):
        load_mask(tmp_path / "absent.npy")
    with pytest.raises(GeometryError, match=r"shape \(2, 3, 4\)"):
        load_mask(save(tmp_path / "cube.npy", np.ones((2, 3, 4))))
    path = tmp_path / "text.npy"
    path.write_text("text")
    with pytest.raises(GeometryError, match="no readable mask"):
        load_mask(path)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(GeometryError, match="none of the datasets"):
        load_mask(tmp_path / "empty.h5")


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(GeometryError, match="no readable mask"):
        load_mask(path)
