"""What scattering sees of surrogate particles: S(q, t) and the field correlation, averaged over shells of wave vectors.

Wave vectors are those of the periodic box, half of them (the other half is redundant). In each shell
f(t1, t2) = Re <a(t1) a*(t2)> / sqrt(S(t1) S(t2)), with a = sum_j exp(-i q.r_j) / sqrt(n); the intensity correlation is
C2 = baseline + contrast f^2 (Siegert). f^2 is freed of the bias that few modes give it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy.special import digamma

from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array, IntArray

AT_A_TIME = 64
"""Particles whose phases are raised to powers together: the powers of more would not stay in a cache."""


@dataclass(frozen=True, slots=True)
class Shells:
    """Wave vectors of a periodic box, sorted into rings."""

    unit_inv_um: float
    """2 pi over the edge of the box."""
    modes_2d: IntArray
    """(n_vectors, 2) wave vectors in that unit."""
    ring: IntArray
    """(n_vectors,) index of the ring, 0-based, increasing."""
    n_rings: int

    @property
    def vectors_inv_um(self) -> Float64Array:
        """(n_vectors, 2)."""
        return np.asarray(self.unit_inv_um * self.modes_2d, np.float64)

    def modes(self, n_boxes: int) -> Float64Array:
        """Independent complex modes per ring over all boxes, (n_rings,)."""
        return np.bincount(self.ring, minlength=self.n_rings).astype(np.float64) * n_boxes


@dataclass(frozen=True, slots=True)
class ShellValues:
    """Observables of all rings and, where tangents were given, their derivatives."""

    log_s: Float64Array
    """(n_rings, n_times)."""
    f: Float64Array
    """(n_rings, n_times, n_times) real field correlation."""
    d_log_s: Float64Array | None = None
    """(n_rings, n_times, n_parameters)."""
    d_f: Float64Array | None = None
    """(n_rings, n_times, n_times, n_parameters)."""


def shells_of_box(box_um: float, edges_inv_um: Float64Array, max_per_ring: int, rng: np.random.Generator) -> Shells:
    """Pick at most ``max_per_ring`` wave vectors of a box for each ring between consecutive (low, high) edges.

    Raises
    ------
    FitRefused
        When a ring holds no wave vector of the box.
    """
    unit = 2.0 * np.pi / box_um
    top = int(np.ceil(edges_inv_um.max() / unit))
    m, n = np.meshgrid(np.arange(-top, top + 1), np.arange(0, top + 1), indexing="ij")
    upper = (n > 0) | ((n == 0) & (m > 0))
    vectors = np.column_stack([m[upper], n[upper]])
    length = unit * np.hypot(vectors[:, 0], vectors[:, 1])
    chosen, ring = [], []
    for k, (low, high) in enumerate(edges_inv_um):
        inside = np.flatnonzero((length >= low) & (length < high))
        if len(inside) == 0:
            raise FitRefused(
                f"A box of {box_um:.3g} um has no wave vector between {low:.3g} and {high:.3g} 1/um.",
                "Use wider q rings or a larger surrogate box.",
            )
        if len(inside) > max_per_ring:
            inside = rng.choice(inside, max_per_ring, replace=False)
        chosen.append(vectors[inside])
        ring.append(np.full(len(inside), k))
    return Shells(unit, np.concatenate(chosen), np.concatenate(ring), len(edges_inv_um))


def _clipped(tangent: Float64Array) -> Float64Array:
    """Tangents of single chaotic particles, cut to five times the median length so that none drowns the others."""
    length = np.sqrt((tangent**2).sum(axis=(1, 2)))
    limit = 5.0 * np.median(length)
    factor = np.where(length > limit, limit / np.maximum(length, 1e-300), 1.0) if limit > 0 else np.ones_like(length)
    return tangent * factor[:, None, None]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _mode_sums(x, unit, modes, out):  # type: ignore[no-untyped-def]
    """Add sum_j cos(q.r_j) and sum_j sin(q.r_j) to ``out`` (2, n_modes), from powers of two phases.

    Loops over particles are the inner ones, over memory as it lies, so that they run on vectors.
    """
    top = np.abs(modes).max()
    re, im = np.empty((2, 2 * top + 1, AT_A_TIME)), np.empty((2, 2 * top + 1, AT_A_TIME))
    for first in range(0, x.shape[0], AT_A_TIME):
        n = min(AT_A_TIME, x.shape[0] - first)
        for axis in range(2):
            for j in range(n):
                phase = unit * x[first + j, axis]
                re[axis, top, j], im[axis, top, j] = 1.0, 0.0
                re[axis, top + 1, j], im[axis, top + 1, j] = np.cos(phase), np.sin(phase)
            for k in range(1, top):
                for j in range(n):
                    c, s = re[axis, top + 1, j], im[axis, top + 1, j]
                    re[axis, top + k + 1, j] = re[axis, top + k, j] * c - im[axis, top + k, j] * s
                    im[axis, top + k + 1, j] = re[axis, top + k, j] * s + im[axis, top + k, j] * c
            for k in range(1, top + 1):
                for j in range(n):
                    re[axis, top - k, j] = re[axis, top + k, j]
                    im[axis, top - k, j] = -im[axis, top + k, j]
        for k in range(modes.shape[0]):
            ax, ay = top + modes[k, 0], top + modes[k, 1]
            cosine, sine = 0.0, 0.0
            for j in range(n):
                cosine += re[0, ax, j] * re[1, ay, j] - im[0, ax, j] * im[1, ay, j]
                sine += re[0, ax, j] * im[1, ay, j] + im[0, ax, j] * re[1, ay, j]
            out[0, k] += cosine
            out[1, k] += sine


def _amplitudes(x: Float64Array, tangent: Float64Array | None, shells: Shells) -> tuple[Float64Array, Float64Array]:
    """Fields of one box at one time as (2, n_vectors) cosine and sine sums, and (2, n_vectors, n_parameters)."""
    q = shells.vectors_inv_um
    if tangent is None:
        sums = np.zeros((2, len(q)))
        _mode_sums(x, shells.unit_inv_um, shells.modes_2d, sums)
        return sums / np.sqrt(len(x)), np.empty((2, len(q), 0))
    phase = x @ q.T
    cosine, sine = np.cos(phase).T, np.sin(phase).T
    field = np.stack([cosine.sum(axis=1), sine.sum(axis=1)]) / np.sqrt(len(x))
    n, _, m = tangent.shape
    flat = tangent.reshape(n, 2 * m)
    # d cos(q.x) = -sin(q.x) q.dx, d sin(q.x) = cos(q.x) q.dx
    by_sine = (sine @ flat).reshape(len(q), 2, m)
    by_cosine = (cosine @ flat).reshape(len(q), 2, m)
    d_cosine = -np.einsum("qd,qdm->qm", q, by_sine)
    d_sine = np.einsum("qd,qdm->qm", q, by_cosine)
    return field, np.stack([d_cosine, d_sine]) / np.sqrt(n)


def shell_values(x: Float64Array, n_boxes: int, shells: Shells, tangents: Float64Array | None = None) -> ShellValues:
    """Observables at all snapshots.

    Parameters
    ----------
    x
        (n_times, n_boxes * n_per_box, 2) um.
    tangents
        (n_times, n_boxes * n_per_box, 2, n_parameters), or None for values only.
    """
    n_times, per_box = len(x), x.shape[1] // n_boxes
    n_parameters = 0 if tangents is None else tangents.shape[3]
    order = len(shells.modes_2d)
    fields = np.empty((n_times, 2, n_boxes, order))
    d_fields = np.empty((n_times, 2, n_boxes, order, n_parameters))
    for t in range(n_times):
        tangent = None if tangents is None else _clipped(tangents[t])
        for b in range(n_boxes):
            box = slice(b * per_box, (b + 1) * per_box)
            part = None if tangent is None else tangent[box]
            fields[t, :, b], d_fields[t, :, b] = _amplitudes(x[t, box], part, shells)
    values = [_ring_values(fields, d_fields, shells.ring == k) for k in range(shells.n_rings)]
    log_s, f, d_log_s, d_f = (np.stack(part) for part in zip(*values, strict=True))
    return ShellValues(log_s, f, d_log_s, d_f) if tangents is not None else ShellValues(log_s, f)


def _ring_values(
    fields: Float64Array, d_fields: Float64Array, inside: np.ndarray
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """log S, f and their derivatives for one ring."""
    n_times, n_parameters = len(fields), d_fields.shape[4]
    a = fields[..., inside].reshape(n_times, -1)
    da = d_fields[:, :, :, inside].reshape(n_times, a.shape[1], n_parameters)
    n_modes = a.shape[1] / 2.0
    gram = a @ a.T / n_modes
    # d gram[t, s] = <da(t) a(s)> + <a(t) da(s)>
    half = np.einsum("tkp,sk->tsp", da, a, optimize=True) / n_modes
    d_gram = half + half.transpose(1, 0, 2)
    s = np.diagonal(gram).copy()
    d_s = np.diagonal(d_gram).T
    d_log_s = d_s / s[:, None]
    f = gram / np.sqrt(np.outer(s, s))
    d_f = d_gram / np.sqrt(np.outer(s, s))[:, :, None]
    d_f -= 0.5 * f[:, :, None] * (d_log_s[:, None, :] + d_log_s[None, :, :])
    # The logarithm of a mean over few modes is on average too small.
    return np.log(s) + np.log(n_modes) - digamma(n_modes), f, d_log_s, d_f


def noise_of_squared(f2: Float64Array, n_modes: Float64Array) -> Float64Array:
    """Variance of f^2, as :func:`squared` finds it from n modes, about its expected value ``f2`` (n_rings, ...).

    The real part of the correlation of n complex numbers scatters by (1 - f^2) / sqrt(2 n), as that of 2 n real ones
    does (Fisher, Metron 1, 3 (1921)); to second order, so that nothing is left out where f is zero.
    """
    inside = np.clip(f2, 0.0, 1.0)
    of_f = (1.0 - inside) ** 2 * (0.5 / n_modes).reshape(-1, *([1] * (f2.ndim - 1)))
    return np.asarray(4.0 * inside * of_f + 2.0 * of_f**2, np.float64)


def squared(f: Float64Array, n_modes: Float64Array) -> Float64Array:
    """f^2 freed of the bias of a mean over n modes, (n_rings, ...).

    The real part of the correlation of n complex numbers is that of 2 n real ones, the square of which Olkin and Pratt
    (Annals of Mathematical Statistics 29, 201 (1958)) freed of its bias; their series to second order. What is taken
    off is (1 - f^2) (1 - 2 f^2) / 2 n: one that holds at f = 0 alone would make slow decays too fast.
    """
    scale, once, twice = _unbiased(f, n_modes)
    left = 1.0 - f**2
    return np.asarray(1.0 - scale * left * (1.0 + once * left + twice * left**2), np.float64)


def slope_of_squared(f: Float64Array, n_modes: Float64Array) -> Float64Array:
    """Derivative of :func:`squared` to f, of the same shape."""
    scale, once, twice = _unbiased(f, n_modes)
    left = 1.0 - f**2
    return np.asarray(2.0 * f * scale * (1.0 + 2.0 * once * left + 3.0 * twice * left**2), np.float64)


def _unbiased(f: Float64Array, n_modes: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Coefficients of the series in 1 - f^2, of a shape that goes with ``f``."""
    n = np.maximum(2.0 * n_modes, 4.0).reshape(-1, *([1] * (f.ndim - 1)))
    return (n - 2.0) / (n - 1.0), 2.0 / (n + 1.0), 8.0 / ((n + 1.0) * (n + 3.0))
