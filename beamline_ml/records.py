"""What the rooms hand each other: frozen records with units in their names.

Arrays in a record are never changed in place by whoever receives them. A record holds numbers and says nothing about
where they came from or go to; that is the business of ``documents``, ``frames`` and ``results``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the detector sees the sample: everything a q-map is computed from."""

    photon_energy_kev: float
    """Photon energy in keV."""
    detector_distance_m: float
    """Sample to detector distance in m."""
    pixel_size_m: float
    """Edge of a square pixel in m."""
    beam_center_row_px: float
    """Row of the direct beam, in pixels, pixel centres at integers."""
    beam_center_column_px: float
    """Column of the direct beam, in pixels, pixel centres at integers."""

    @property
    def wavelength_angstrom(self) -> float:
        """Wavelength in angstrom, from hc = 12.398419843 keV angstrom (CODATA 2018)."""
        return 12.398419843320026 / self.photon_energy_kev


@dataclass(frozen=True, slots=True)
class FrameBlock:
    """Consecutive detector frames with their place in the run."""

    first_index: int
    """Index in the run of the first frame (0-based)."""
    frames: NDArray[Any]
    """Counts, (n_frames, rows, cols), integer as the detector wrote them."""


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What a run says about itself that the analysis needs."""

    uid: str
    scan_id: int | None
    sample_name: str
    sample: dict[str, Any]
    """The whole sample entry of the start document (name, composition, ...)."""
    geometry: Geometry
    frame_period_s: float
    """Time between the starts of two frames in s."""
    exposure_s: float
    """Exposure of one frame in s."""
    n_frames: int
    frame_shape: tuple[int, int]
    """(rows, cols)."""
    started_at: float
    """Start time, seconds since the epoch."""
    finished: bool
    """Whether the run has a stop document."""
    exit_status: str | None
    """The stop document's exit status: success, abort, fail; None while the run goes on."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The start document, as it stands in the catalogue."""
    stream: str = "primary"
    """Name of the stream that holds the detector frames."""
    detector: str = ""
    """Data key of the detector frames in that stream."""
    warnings: tuple[str, ...] = ()
    """What the run says twice and differently, and which of the two was used."""


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """What is wrong with which frame; NaN-free, one entry a frame of the run."""

    missing: BoolArray
    """(n_frames,) no data arrived for this frame."""
    zero: BoolArray
    """(n_frames,) the frame holds no photon in any used pixel (shutter closed, beam dump)."""
    saturated: BoolArray
    """(n_frames,) at least one used pixel is at or above the saturation value."""
    outlier: BoolArray
    """(n_frames,) total intensity far from its neighbours (top-up, flash, drift)."""
    n_masked_pixels: int = 0
    """How many pixels were taken out as bad before correlating."""


@dataclass(frozen=True)
class TwoTime:
    """Two-time correlation functions of one run."""

    c2: Float32Array
    """(n_q, n_frames, n_frames) normalised, symmetric, unbiased diagonal; NaN rows where a frame is missing."""
    lower_sums: NDArray[Any]
    """(n_q, n_frames, n_frames) exact sum over pixels of I(t1) I(t2) for t1 >= t2, in any type that holds it; what is
    above the diagonal means nothing. :attr:`numerator` is the whole of it."""
    frame_sum: NDArray[Any]
    """(n_q, n_frames) exact sum of counts: int64 for integer frames, float64 otherwise."""
    n_pixels: IntArray
    """(n_q,) pixels per dynamic bin."""
    q_inv_angstrom: Float64Array
    """(n_q,) mean momentum transfer of each bin."""
    age_s: Float64Array
    """(n_frames,) time of each row since the start of the run."""
    frame_period_s: float
    """Time between two rows (a multiple of the detector's period when rows are binned)."""
    normalization: str
    """'plain' or 'static'."""
    quality: FrameQuality

    @cached_property
    def numerator(self) -> NDArray[Any]:
        """(n_q, n_frames, n_frames) exact sum over pixels of I(t1) I(t2): int64 for integer frames, float64 otherwise.

        Made from ``lower_sums`` when it is asked for first, as it takes twice the memory of C2.
        """
        lower = self.lower_sums
        whole = np.empty(lower.shape, np.float64 if lower.dtype.kind == "f" else np.int64)
        for one, result in zip(lower, whole, strict=True):
            result[:] = np.tril(one)
            result += np.tril(one, -1).T
        return whole


@dataclass(frozen=True, slots=True)
class AgeLagTwoTime:
    """Two-time correlation of a long run: linear in age, logarithmic in lag, of bounded size."""

    age_s: Float64Array
    """(n_ages,) mean time of the frames of each age since the start of the run; a pair counts by its later frame."""
    delay_s: Float64Array
    """(n_tau,) lag time."""
    delay_frames: IntArray
    """(n_tau,) lag in frames."""
    c2: Float64Array
    """(n_q, n_ages, n_tau) P sum x x' / sum S S' over the pairs of an age; NaN where there is none."""
    n_pairs: IntArray
    """(n_ages, n_tau) pairs of rows in each element."""
    frames_per_age: int
    q_inv_angstrom: Float64Array
    """(n_q,)."""


@dataclass(frozen=True, slots=True)
class G2:
    """Intensity correlation function of each q bin."""

    delay_s: Float64Array
    """(n_tau,) lag time."""
    delay_frames: IntArray
    """(n_tau,) lag in frames."""
    g2: Float64Array
    """(n_q, n_tau)."""
    g2_err: Float64Array
    """(n_q, n_tau) standard error."""
    q_inv_angstrom: Float64Array
    """(n_q,)."""
    definition: str
    """'mean_of_ratios', 'ratio_of_sums' or 'symmetric': how numerator and normalisation were averaged."""
    error_method: str
    """'block_jackknife', 'pixel_std' or 'diagonal_std'."""
    replicates: Float64Array | None = None
    """(n_blocks, n_q, n_tau) g2 without each block of time, or None; g2_err^2 = (n_blocks - 1) * their variance."""


def stretched_g2(
    delay_s: Float64Array, relaxation_time_s: Any, contrast: Any, stretching: Any, baseline: Any
) -> Float64Array:
    """baseline + contrast exp(-2 (delay / relaxation_time)^stretching); numbers, or arrays that broadcast."""
    return np.asarray(baseline + contrast * np.exp(-2.0 * (delay_s / relaxation_time_s) ** stretching))


@dataclass(frozen=True, slots=True)
class RelaxationFits:
    """KWW fits g2 = baseline + contrast exp(-2 (tau/relaxation_time)^stretching), one per q bin.

    Entries of a bin whose fit was refused are NaN and ``refused`` says why.
    """

    q_inv_angstrom: Float64Array
    relaxation_time_s: Float64Array
    relaxation_time_s_err: Float64Array
    contrast: Float64Array
    contrast_err: Float64Array
    stretching: Float64Array
    stretching_err: Float64Array
    baseline: Float64Array
    baseline_err: Float64Array
    reduced_chi2: Float64Array
    refused: tuple[str | None, ...]
    """(n_q,) None where the fit holds, else the reason."""

    def curves(self, delay_s: Float64Array) -> Float64Array:
        """(n_q, n_tau) the fitted g2 at these delays; NaN for refused bins."""
        names = ("relaxation_time_s", "contrast", "stretching", "baseline")
        return stretched_g2(delay_s, *(getattr(self, name)[:, None] for name in names))


@dataclass(frozen=True, slots=True)
class AgeingFits:
    """KWW fits whose relaxation time changes with age, one per q bin; refused ones are NaN as in RelaxationFits."""

    q_inv_angstrom: Float64Array
    law: str
    """'linear': time + ageing (age - reference age); 'power': time (age / reference age)^ageing."""
    reference_age_s: float
    relaxation_time_s: Float64Array
    """(n_q,) at the reference age."""
    relaxation_time_s_err: Float64Array
    ageing: Float64Array
    """(n_q,) slope in s per s, or exponent."""
    ageing_err: Float64Array
    contrast: Float64Array
    contrast_err: Float64Array
    stretching: Float64Array
    stretching_err: Float64Array
    baseline: Float64Array
    baseline_err: Float64Array
    covariance: Float64Array
    """(n_q, 5, 5) of relaxation time, ageing, contrast, stretching, baseline."""
    reduced_chi2: Float64Array
    refused: tuple[str | None, ...]
    """(n_q,) None where the fit holds, else the reason."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """relaxation_time = amplitude q^-exponent over the q bins with a fit, and what it means when the exponent is 2."""

    exponent: float
    exponent_err: float
    diffusion_coefficient_um2_per_s: float | None
    """D = 1/(tau q^2), only where the dynamics are diffusive (exponent compatible with 2, stretching with 1)."""
    diffusion_coefficient_um2_per_s_err: float | None
    diffusive: bool
    reason: str
    """One sentence: why the dynamics are, or are not, called diffusive."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """How the sample goes on after the last observed frame, with bands and the honest name of the method."""

    times_s: Float64Array
    """(n_times,) age of every row of ``c2``, observed and forecast, since the start of the run."""
    observed_until_s: float
    """Rows later than this are forecast."""
    q_inv_angstrom: Float64Array
    """(n_q,)."""
    c2: Float32Array
    """(n_q, n_times, n_times) in the same normalisation as the observed C2: baseline + contrast |f|^2."""
    lower: Float32Array
    """(n_q, n_times, n_times) lower edge of the 95 % band."""
    upper: Float32Array
    """(n_q, n_times, n_times) upper edge of the 95 % band."""
    s_q: Float64Array
    """(n_q, n_times) structure factor (mean intensity, scaled), observed and forecast."""
    s_q_lower: Float64Array
    s_q_upper: Float64Array
    method: str
    """The winner of the rolling-origin contest: 'neural_ode', 'neural_ode_corrected', 'ageing_kww', 'homodyne',
    'persistence', ..."""
    score: float
    """Its rolling-origin RMSE of (C2 - baseline)/contrast on held-out blocks of this run."""
    contest: dict[str, float]
    """Rolling-origin RMSE of every competitor, by name."""
    refused: str | None = None
    """None, or why no forecast beats persistence on this run."""


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One number of a measurement plan, with its band, what bounds it, and why."""

    quantity: str
    """Stable name, such as 'steady_heating' or 'temperature_point_2'."""
    value: float
    lower: float
    """Lower edge of the 90 % band."""
    upper: float
    """Upper edge of the 90 % band."""
    unit: str
    limit: str
    """The limit that binds: beam, sample, instrument, knowledge, ..."""
    reason: str
    """One sentence."""


@dataclass(frozen=True, slots=True)
class MissingLine:
    """A number that the plan would hold if something more were known."""

    quantity: str
    needs: tuple[str, ...]
    """Names of the conditions that were not given."""
    reason: str
    """One sentence: why the number cannot be had without them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure and how, one line a number."""

    lines: tuple[PlanLine, ...]
    missing: tuple[MissingLine, ...]
    warnings: tuple[str, ...] = ()

    def line(self, quantity: str) -> PlanLine | None:
        """The line of this name, or None."""
        return next((line for line in self.lines if line.quantity == quantity), None)
