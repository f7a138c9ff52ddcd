"""A beam scanned over a mapped object: forward model, its derivative, files of the public record, fit and forecast."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from beamline_ml.dynamics import MappedScattering, RigidObservations, fit
from beamline_ml.dynamics.systems.probe_scan import ProbeScan
from beamline_ml.errors import BudgetExceeded, FileMissing, FileRefused, FitRefused
from beamline_ml.frames import load_ptychographic_scan
from beamline_ml.frames.ptychographic_scan import PUBLIC_ORIGINAL

PIXEL_UM, SIZE, N_FRAMES = 0.06, 48, 40
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "measured_probe_scan.py"


def mapped(seed: int = 0) -> MappedScattering:
    """Grains of phase and absorption, and a beam of two modes."""
    rng = np.random.default_rng(seed)
    phase, absorption = (gaussian_filter(rng.standard_normal((150, 160)), 2.0) for _ in range(2))
    at = (np.arange(SIZE) - (SIZE - 1) / 2) * PIXEL_UM
    row, column = at[:, None], at[None, :]
    beam = np.exp(-(row**2 + column**2) / 0.7**2) * np.exp(0.5j * (row**2 - 0.5 * column**2))
    modes = np.stack([beam, 0.4 * beam * column / 0.7])
    return MappedScattering(np.exp(6j * phase - 2.0 * np.abs(absorption)), modes, PIXEL_UM)


@pytest.fixture(scope="module")
def path_um() -> np.ndarray:
    return ProbeScan().trajectory(np.array([0.5, 0.1]), 0.2 * np.arange(2 * N_FRAMES))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, path_um: np.ndarray) -> Path:
    """A small scan in the files of the public record."""
    folder, scattering = tmp_path_factory.mktemp("scan"), mapped()
    (folder / "raw").mkdir()
    (folder / "data").mkdir()
    np.savetxt(folder / "raw" / "positions.csv", 1e-6 * path_um, delimiter=",")
    np.savetxt(folder / "data" / "run0_object_0.csv", scattering.object_map, delimiter=",")
    np.savetxt(folder / "data" / "run0_probes_0.csv", scattering.modes.reshape(-1, SIZE), delimiter=",")
    truth = np.stack([scattering.intensity(u) for u in path_um])
    counts = np.random.default_rng(0).poisson(1000.0 * truth / truth.max()).astype("<f4")
    for k, frame in enumerate(counts):
        frame.tofile(folder / "raw" / f"image_{k:06d}.bin")
    return folder


def test_a_shift_by_whole_pixels_is_the_shifted_map() -> None:
    scattering = mapped()
    rows, columns = ((extent - SIZE) // 2 for extent in scattering.object_map.shape)
    patch = scattering.object_map[rows + 3 : rows + 3 + SIZE, columns - 5 : columns - 5 + SIZE]
    field = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(scattering.modes * patch, axes=(1, 2))), axes=(1, 2)) / SIZE
    found = scattering.intensity(PIXEL_UM * np.array([3.0, -5.0]))
    np.testing.assert_allclose(found, (np.abs(field) ** 2).sum(axis=0), rtol=1e-9, atol=1e-12)


def test_derivative_of_a_mapped_pattern() -> None:
    scattering = mapped()
    u, tangent, pixels = np.array([0.21, -0.13]), np.array([[1.0, 0.3], [0.2, -1.0]]), np.array([5, 600, 1180, 1200])
    value, slope = scattering.with_tangents(u[None], tangent[None], pixels)
    np.testing.assert_allclose(value, scattering.intensity(u).ravel()[pixels])
    for k in range(2):
        plus, minus = (scattering.intensity(u + s * tangent[:, k]).ravel()[pixels] for s in (1e-6, -1e-6))
        np.testing.assert_allclose(slope[:, k], (plus - minus) / 2e-6, rtol=1e-5, atol=1e-6)


def test_maps_without_room_or_numbers_are_refused() -> None:
    scattering = mapped()
    with pytest.raises(FitRefused, match="cannot move"):
        MappedScattering(scattering.object_map[: SIZE + 1], scattering.modes, PIXEL_UM)
    with pytest.raises(FitRefused, match="not finite"):
        MappedScattering(scattering.object_map * np.nan, scattering.modes, PIXEL_UM)


def test_the_path_is_found_and_followed(record: Path, path_um: np.ndarray) -> None:
    scan = load_ptychographic_scan(record, pixel_um=PIXEL_UM)
    scattering = MappedScattering(scan.object_map, scan.modes, scan.pixel_um)
    times = 0.2 * np.arange(2 * N_FRAMES)
    seen = RigidObservations(scan.counts(0, N_FRAMES), times[:N_FRAMES], scattering, scan.positions_um[0] + 0.004)
    found = fit(seen, time_budget_s=600.0)
    off = np.hypot(*(found.positions(times) - path_um).T)
    assert found.chi2 == pytest.approx(1.0, abs=0.1)
    assert off[:N_FRAMES].max() < 0.02
    assert off[N_FRAMES:].max() < 0.1


def test_example_measured_probe_scan(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _example().main(record, N_FRAMES, tmp_path / "figure.png", pixel_um=PIXEL_UM)
    said = capsys.readouterr().out
    assert "seen: median error 0.00" in said
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_public_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The measured scan itself, where somebody has unpacked it."""
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "probe_scan"
    if not folder.is_dir():
        pytest.skip(f"no probe_scan in the folder that BEAMLINE_ML_TEST_DATA names; the original: {PUBLIC_ORIGINAL}")
    _example().main(folder, 80, tmp_path / "figure.png")
    assert float(capsys.readouterr().out.split("seen: median error ")[1].split()[0]) < 0.75


def test_files_that_are_not_what_they_should_be(record: Path, tmp_path: Path) -> None:
    scan = load_ptychographic_scan(record, pixel_um=PIXEL_UM)
    with pytest.raises(FileMissing, match="image_000080"):
        scan.counts(79, 81)
    with pytest.raises(BudgetExceeded, match="allowed"):
        scan.counts(0, 10, max_bytes=1000)
    with pytest.raises(FileMissing, match=r"positions\.csv"):
        load_ptychographic_scan(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "image_000000.bin").write_bytes(b"1234")
    with pytest.raises(FileRefused, match="holds 1 values"):
        replace(scan, folder=tmp_path).counts(0, 1)
    (tmp_path / "raw" / "positions.csv").write_text("a,b\n")
    with pytest.raises(FileRefused, match="no table of numbers"):
        load_ptychographic_scan(tmp_path)


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("measured_probe_scan", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
