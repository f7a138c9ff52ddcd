"""Q-maps that people already have are read as they were meant, or refused by name."""

import h5py
import numpy as np
import pytest

from beamline_ml.errors import FileMissing, GeometryError
from beamline_ml.frames import load_qmap

ROWS, COLS, N_Q, N_PHI = 40, 30, 5, 4


@pytest.fixture
def maps():
    """Rings x sectors with one empty bin, so that positions in the value list and bin numbers differ."""
    row, column = np.mgrid[:ROWS, :COLS]
    radius = np.hypot(row - 19.5, column - 14.5)
    ring = np.clip((radius / 3).astype(int), 0, N_Q)
    sector = ((np.arctan2(row - 19.5, column - 14.5) + np.pi) / (2 * np.pi) * N_PHI).astype(int) % N_PHI
    flat = np.where(ring < N_Q, ring * N_PHI + sector, -1)
    flat[flat == 6] = -1
    kept, labels = np.unique(flat, return_inverse=True)
    return labels.reshape(flat.shape).astype(np.uint32), kept[1:]


def write_aps(path, maps, group="qmap", unit="1/A", **replaced):
    labels, index = maps
    fields = {
        "dynamic_roi_map": labels,
        "static_roi_map": labels,
        "mask": np.ones((ROWS, COLS), bool),
        "dynamic_v_list_dim0": np.linspace(0.01, 0.05, N_Q),
        "dynamic_v_list_dim1": np.linspace(0, 270, N_PHI),
        "dynamic_num_pts": np.array([N_Q, N_PHI]),
        "dynamic_index_mapping": index,
    } | replaced
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file.create_dataset(f"{group}/{name}", data=value)
        file[f"{group}/dynamic_v_list_dim0"].attrs["unit"] = unit
    return path


@pytest.mark.parametrize("group", ["qmap", "xpcs/qmap"])
def test_aps_files(tmp_path, maps, group):
    qmap = load_qmap(write_aps(tmp_path / "map.hdf", maps, group), (ROWS, COLS))
    np.testing.assert_array_equal(qmap.labels, maps[0])
    expected = np.linspace(0.01, 0.05, N_Q)[maps[1] // N_PHI]
    np.testing.assert_allclose(qmap.q_inv_angstrom, expected)


def test_inverse_nanometres_are_converted(tmp_path, maps):
    qmap = load_qmap(write_aps(tmp_path / "map.hdf", maps, unit="1/nm"))
    assert qmap.q_inv_angstrom[0] == pytest.approx(0.001)


def test_another_unit_is_refused(tmp_path, maps):
    with pytest.raises(GeometryError, match="'deg'"):
        load_qmap(write_aps(tmp_path / "map.hdf", maps, unit="deg"))


def test_a_map_without_q_values_has_none(tmp_path, maps):
    path = write_aps(tmp_path / "map.hdf", maps)
    with h5py.File(path, "r+") as file:
        del file["qmap/dynamic_v_list_dim0"]
    assert np.isnan(load_qmap(path).q_inv_angstrom).all()


def test_a_map_that_contradicts_itself_is_refused(tmp_path, maps):
    path = write_aps(tmp_path / "map.hdf", maps, dynamic_index_mapping=maps[1][:-1])
    with pytest.raises(GeometryError, match="contradicts itself"):
        load_qmap(path)


def test_a_transposed_map_is_refused_naming_both_shapes(tmp_path, maps):
    path = write_aps(tmp_path / "map.hdf", maps)
    with pytest.raises(GeometryError, match=r"\(30, 40\).*\(40, 30\).*transposed"):
        load_qmap(path, (COLS, ROWS))


def test_what_is_no_qmap_is_refused(tmp_path):
    with pytest.raises(FileMissing, match="no q-map file"):
        load_qmap(tmp_path / "absent.h5")
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.zeros(3))
    with pytest.raises(GeometryError, match="dynamic_roi_map"):
        load_qmap(path)
    path.write_text("text")
    with pytest.raises(GeometryError, match="no readable HDF5"):
        load_qmap(path)
    with pytest.raises(GeometryError, match="no q-map file that can be read"):
        load_qmap(__file__)


def write_poni(path, rotation=0.0, shape=(ROWS, COLS)):
    path.write_text(
        "poni_version: 2.1\nDetector: Detector\n"
        f'Detector_config: {{"pixel1": 75e-6, "pixel2": 75e-6, "max_shape": {list(shape)}, "orientation": 3}}\n'
        f"Distance: 5.0\nPoni1: {20 * 75e-6}\nPoni2: {15 * 75e-6}\n"
        f"Rot1: {rotation}\nRot2: 0.0\nRot3: 0.0\nWavelength: 1.5498e-10\n"
    )
    return path


def test_rings_from_a_poni_file_have_the_q_of_the_geometry(tmp_path):
    qmap = load_qmap(write_poni(tmp_path / "det.poni"), (ROWS, COLS), n_q=4)
    row, column = np.mgrid[:ROWS, :COLS]
    # pyFAI counts pixel edges: the centre of pixel i lies at (i + 0.5) pixels.
    radius_m = np.hypot(row + 0.5 - 20, column + 0.5 - 15) * 75e-6
    q = 4 * np.pi / 1.5498 * np.sin(np.arctan(radius_m / 5.0) / 2)
    for ring in range(1, 5):
        assert qmap.q_inv_angstrom[ring - 1] == pytest.approx(q[qmap.labels == ring].mean(), rel=1e-6)
    widths = np.diff(qmap.q_inv_angstrom)
    assert widths.max() < 1.4 * widths.min()
    assert q[qmap.labels > 0].max() < q[0].min() + 1e-9


def test_a_poni_of_another_detector_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"\(30, 40\).*det\.poni is \(40, 30\); they look transposed"):
        load_qmap(write_poni(tmp_path / "det.poni"), (COLS, ROWS))


def test_a_broken_poni_is_refused(tmp_path):
    path = tmp_path / "det.poni"
    path.write_text("Distance: far\n")
    with pytest.raises(GeometryError, match="poni"):
        load_qmap(path, (ROWS, COLS))
