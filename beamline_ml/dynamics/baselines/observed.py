"""What a classical forecaster is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.records import Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class Observed:
    """A normalised two-time correlation up to some age."""

    f: Float64Array
    """(n_q, n, n) (C2 - baseline) / contrast; NaN where nothing was measured; the diagonal is not used."""
    f_err: Float64Array
    """(n_q, n, n) standard error."""
    times_s: Float64Array
    """(n,) increasing ages."""
    q_inv_um: Float64Array
    """(n_q,)."""

    def until(self, n: int) -> Observed:
        """The same, ending after ``n`` rows."""
        return Observed(self.f[:, :n, :n], self.f_err[:, :n, :n], self.times_s[:n], self.q_inv_um)

    def pairs(self, ring: int) -> tuple[IntArray, IntArray]:
        """Indices (earlier, later) of the measured pairs of one ring."""
        earlier, later = np.nonzero(np.triu(np.isfinite(self.f[ring]) & (self.f_err[ring] > 0), k=1))
        return earlier, later


def on_grid(values: Float64Array, earlier: IntArray, later: IntArray, n: int) -> Float64Array:
    """Symmetric (n_q, n, n) map from values of the pairs (n_q, n_pairs), one on the diagonal, clipped to [0, 1]."""
    grid = np.ones((values.shape[0], n, n))
    grid[:, earlier, later] = grid[:, later, earlier] = np.clip(np.nan_to_num(values), 0.0, 1.0)
    return grid


def all_pairs(times_s: Float64Array) -> tuple[IntArray, IntArray, Float64Array, Float64Array]:
    """Earlier and later index, and both ages, of every pair of a grid."""
    earlier, later = np.triu_indices(len(times_s), k=1)
    return earlier, later, times_s[earlier], times_s[later]
