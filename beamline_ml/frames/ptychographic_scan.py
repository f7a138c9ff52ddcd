"""A scan with its reconstruction, as published with the probe-trajectory case: Zenodo record 10204976.

The folder holds ``raw/positions.csv`` (row and column of the beam in m, one line a frame), ``raw/image_000000.bin`` and
so on (frames of float32), and ``data/run0_object_0.csv`` and ``data/run0_probes_0.csv`` (complex numbers; the modes of
the beam one below the other), all on one pixel size (N. Andrejevic et al., npj Comput. Mater. 10, 225 (2024)).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import BudgetExceeded, FileMissing, FileRefused
from beamline_ml.records import Float64Array

PUBLIC_ORIGINAL = "https://zenodo.org/records/10204976"
PIXEL_UM = 6.82e-3
"""Of object and beam in that record."""
MAX_BYTES = 2**31
_UM_PER_M = 1e6


@dataclass(frozen=True)
class PtychographicScan:
    """What a scan says beside its frames."""

    folder: Path
    positions_um: Float64Array
    """(n_frames, 2) row and column of the beam as the stage told them, from the middle of the object."""
    object_map: NDArray[np.complex128]
    """(rows, columns) transmission."""
    modes: NDArray[np.complex128]
    """(n_modes, size, size) amplitudes of the beam."""
    pixel_um: float

    def counts(self, first: int, last: int, max_bytes: int = MAX_BYTES) -> NDArray[np.float32]:
        """Frames ``first`` to ``last - 1``, (last - first, size, size).

        Raises
        ------
        FileMissing, FileRefused
            When a frame is not there, or is not of the beam's size.
        BudgetExceeded
            When they would take more than ``max_bytes``.
        """
        size = self.modes.shape[-1]
        needed = (last - first) * size * size * 4
        if needed > max_bytes:
            raise BudgetExceeded(
                f"{last - first} frames take {needed} bytes, allowed are {max_bytes}.", "Ask for fewer."
            )
        return np.stack([self._frame(k, size) for k in range(first, last)])

    def _frame(self, k: int, size: int) -> NDArray[np.float32]:
        path = _there(self.folder / "raw" / f"image_{k:06d}.bin")
        frame = np.fromfile(path, "<f4")
        if frame.size != size * size:
            raise FileRefused(
                f"{path} holds {frame.size} values, not {size} x {size} as the beam's modes do.", "Fetch it again."
            )
        return frame.reshape(size, size)


def load_ptychographic_scan(folder: Path | str, run: int = 0, pixel_um: float = PIXEL_UM) -> PtychographicScan:
    """Positions, object and beam of a scan.

    Parameters
    ----------
    folder
        Where the record was unpacked: it holds ``raw`` and ``data``.
    run
        Which reconstruction.
    pixel_um
        Size of the pixels of object and beam, which the files do not say.

    Raises
    ------
    FileMissing, FileRefused
        When a file is not there, or does not hold what its name says.
    """
    folder = Path(folder)
    positions = _table(folder / "raw" / "positions.csv", np.float64)
    object_map = _table(folder / "data" / f"run{run}_object_0.csv", np.complex128)
    path = folder / "data" / f"run{run}_probes_0.csv"
    modes = _table(path, np.complex128)
    if positions.shape[1] != 2 or len(modes) % modes.shape[1] != 0:
        raise FileRefused(
            f"{folder}: positions {positions.shape} are not (n, 2), or modes {modes.shape} are no squares.",
            f"Fetch them again: {PUBLIC_ORIGINAL}.",
        )
    squares = modes.reshape(-1, modes.shape[1], modes.shape[1])
    return PtychographicScan(folder, _UM_PER_M * positions, object_map, squares, pixel_um)


def _table(path: Path, dtype: type) -> NDArray[Any]:
    try:
        table: NDArray[Any] = np.loadtxt(_there(path), dtype=dtype, delimiter=",", ndmin=2)
    except ValueError as error:
        raise FileRefused(f"{path} is no table of numbers: {error}.", f"Fetch it again: {PUBLIC_ORIGINAL}.") from error
    if not np.isfinite(table).all():
        raise FileRefused(f"{path} holds numbers that are not finite.", f"Fetch it again: {PUBLIC_ORIGINAL}.")
    return table


def _there(path: Path) -> Path:
    if not path.is_file():
        raise FileMissing(f"There is no {path}.", f"Unpack the record: {PUBLIC_ORIGINAL}.")
    return path
