"""Scattered amplitude on a whole detector: many particles spread onto a grid, then one FFT (type-1 NUFFT).

A(q) = sum_j w_j exp(-i q.r_j) on the square grid q = (m, n) dq, m, n = -size/2 .. size/2 - 1. As q is a multiple of dq,
positions count modulo 2 pi / dq, so the field of view may be smaller than the sample. Spreading uses the
"exponential of a semicircle" kernel of Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019), width
6 on a twofold oversampled grid: relative error about 1e-5.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from beamline_ml.records import Float64Array

WIDTH = 6
_SHARPNESS = 2.30 * WIDTH
_TABLE_POINTS = 4096


def _kernel(z: Float64Array) -> Float64Array:
    """Spreading kernel on -1..1."""
    inside = np.clip(1.0 - z**2, 0.0, None)
    return np.where(np.abs(z) <= 1.0, np.exp(_SHARPNESS * (np.sqrt(inside) - 1.0)), 0.0)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _spread(x, weight, scale, table, grid):  # type: ignore[no-untyped-def]
    """Add every particle's weight to the WIDTH x WIDTH nodes around it; ``scale`` turns um into grid steps."""
    n = grid.shape[0] - WIDTH
    half = 0.5 * WIDTH
    step = (table.shape[0] - 2) / WIDTH
    kx = np.empty(WIDTH)
    ky = np.empty(WIDTH)
    for p in range(x.shape[0]):
        u = x[p, 0] * scale
        v = x[p, 1] * scale
        u -= n * np.floor(u / n)
        v -= n * np.floor(v / n)
        i0 = int(np.ceil(u - half))
        j0 = int(np.ceil(v - half))
        for a in range(WIDTH):
            s = (i0 + a - u + half) * step
            k = int(s)
            kx[a] = weight[p] * (table[k] + (s - k) * (table[k + 1] - table[k]))
            s = (j0 + a - v + half) * step
            k = int(s)
            ky[a] = table[k] + (s - k) * (table[k + 1] - table[k])
        # The grid has WIDTH spare rows and columns, so nothing wraps in here; node i lies in row i + WIDTH / 2.
        i0 += WIDTH // 2
        j0 += WIDTH // 2
        for a in range(WIDTH):
            for b in range(WIDTH):
                grid[i0 + a, j0 + b] += kx[a] * ky[b]


def _fold(grid: Float64Array) -> Float64Array:
    """Add the spare margins of a spread grid to the nodes that they are periodic images of."""
    n = grid.shape[0] - WIDTH
    margin = WIDTH // 2
    rows = grid[margin : margin + n].copy()
    rows[:margin] += grid[margin + n :]
    rows[n - margin :] += grid[:margin]
    folded = rows[:, margin : margin + n].copy()
    folded[:, :margin] += rows[:, margin + n :]
    folded[:, n - margin :] += rows[:, :margin]
    return folded


@dataclass(frozen=True)
class GriddedScattering:
    """Amplitudes of particles in a coherent beam on a square detector grid."""

    size: int
    """Rows and columns of the detector; the direct beam is at [size // 2, size // 2]."""
    dq_inv_um: float
    """Momentum transfer between neighbouring pixels in 1/um."""
    _table: Float64Array = field(init=False, repr=False)
    _correction: Float64Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        nodes = np.linspace(-1.0, 1.0, _TABLE_POINTS + 1)
        object.__setattr__(self, "_table", np.append(_kernel(nodes), 0.0))
        m = np.arange(self.size) - self.size // 2
        # Fourier transform of the kernel at each detector frequency, by Gauss-Legendre quadrature.
        z, quadrature = np.polynomial.legendre.leggauss(40)
        phase = np.cos(np.outer(m, z) * (2.0 * np.pi / self.fine_size) * 0.5 * WIDTH)
        object.__setattr__(self, "_correction", 0.5 * WIDTH * phase @ (quadrature * _kernel(z)))

    @property
    def fine_size(self) -> int:
        """Edge of the oversampled grid."""
        return 2 * self.size

    def amplitude(self, x_um: Float64Array, weight: Float64Array) -> NDArray[np.complex128]:
        """A(q), (size, size) complex; positions (n, 2) um as (row, column) direction, weights (n,) real."""
        grid = np.zeros((self.fine_size + WIDTH, self.fine_size + WIDTH))
        # The fine grid covers one period 2 pi / dq of positions.
        _spread(x_um, weight, self.fine_size * self.dq_inv_um / (2.0 * np.pi), self._table, grid)
        half = self.size // 2
        spectrum = scipy.fft.rfft2(_fold(grid))[:, : half + 1]
        rows = (np.arange(-half, half + 1)) % self.fine_size
        right = spectrum[rows]
        # A real density scatters A(-q) = A(q)*: the left half is the right half turned by 180 degrees.
        full = np.concatenate([right[::-1, :0:-1].conj(), right], axis=1)[: self.size, : self.size]
        return np.asarray(full / np.outer(self._correction, self._correction), np.complex128)
