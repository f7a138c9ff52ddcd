"""What a run says about its dynamics: two-time correlations and structure in time blocks, or whole patterns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beamline_ml.dynamics.time_blocks import Blocks, blocks_of_age, blocks_of_lag, is_stationary
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, RelaxationFits, TwoTime

INV_UM_PER_INV_ANGSTROM = 1e4
POSSIBLE_S = (0.02, 50.0)
POSSIBLE_LAST_S = (0.4, 2.5)
"""Between which S lies in any ring, and in the one of the largest q; counts per pixel are seldom there by chance."""
UNORDERED = "S(q, t) is relative: the sample is taken to be unordered at the first frame."


@dataclass(frozen=True)
class CorrelationObservations:
    """C2 and structure of a run on a coarse time grid.

    Times may be ages of an evolving sample, or lags of a stationary one (``stationary``), where C2[i, j] belongs to any
    two frames ``times_s[j] - times_s[i]`` apart.
    """

    c2: Float64Array
    """(n_q, n_times, n_times) baseline + contrast |f|^2, averaged over a time block; NaN where nothing was measured."""
    c2_err: Float64Array
    """(n_q, n_times, n_times) standard error from counting noise alone; speckle sampling noise is modelled."""
    structure_factor: Float64Array
    """(n_q, n_times): S(q, t), or mean intensity, whose scale per q is then a nuisance (see ``absolute``)."""
    q_inv_um: Float64Array
    """(n_q,)."""
    times_s: Float64Array
    """(n_times,) middle of each block since the start of the observation."""
    number_density_per_um2: float | None
    """Particles per um^2; None: the force is known only times the density."""
    structure_factor_err: Float64Array | None = None
    """(n_q, n_times) standard error of ``structure_factor`` from counting alone; None: as its own scatter shows."""
    n_speckles: Float64Array | None = None
    """(n_q,) independent speckles per ring; None: as many as the scatter of C2 shows (``shown_noise``)."""
    contrast: Float64Array | None = None
    """(n_q,) speckle contrast; None: that of C2 at lag 0 where C2 was normalised to one, else found with the law."""
    contrast_err: Float64Array | None = None
    """(n_q,) how far it may be off; None: 3 %."""
    stationary: bool = False
    absolute: bool | None = None
    """Whether ``structure_factor`` is S(q, t) itself. None: if it may be, by its size at the beginning (``POSSIBLE_S``
    in every ring, ``POSSIBLE_LAST_S`` at the largest q, where there is little order); afterwards True or False."""
    waiting_s: float = 0.0
    """How long before the first frame used the sample was without order; 0: at that frame, unless an absolute S(q, t)
    says otherwise."""
    begin_s: float = 0.0
    """Age of the sample at the first frame used; ``times_s`` count from there."""
    duration_s: float = 0.0
    """Length of the run in s; 0 means: up to the last block."""
    n_averages: Float64Array | None = None
    """(n_times,) independent start times behind each lag of a stationary run."""
    by_age: CorrelationObservations | None = None
    """The same run in blocks of age, where the fit itself uses lags: forecasts are judged and given on ages."""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n_q, n_times = self.structure_factor.shape
        if self.c2.shape != (n_q, n_times, n_times) or self.c2_err.shape != self.c2.shape:
            raise FitRefused(
                f"C2 {self.c2.shape}, its error {self.c2_err.shape} and S {self.structure_factor.shape} do not match.",
                "Give (n_q, n_times, n_times) twice and (n_q, n_times).",
            )
        if self.q_inv_um.shape != (n_q,) or self.times_s.shape != (n_times,) or not (np.diff(self.times_s) > 0).all():
            raise FitRefused(
                "q and times do not match C2, or times do not increase.", "Give one q per ring and increasing times."
            )
        if not (np.isfinite(self.q_inv_um).all() and (self.q_inv_um > 0).all()):
            raise FitRefused("A ring has no positive momentum transfer.", "Give the q-map its q values.")

        self._refuse_poison()
        if self.absolute is None:
            object.__setattr__(self, "absolute", self._may_be_absolute())

    def _may_be_absolute(self) -> bool:
        first = self.structure_factor[:, 0]
        (low, high), (last_low, last_high) = POSSIBLE_S, POSSIBLE_LAST_S
        return bool(((low < first) & (first < high)).all() and last_low < first[self.q_inv_um.argmax()] < last_high)

    def _refuse_poison(self) -> None:
        if not (np.isfinite(self.structure_factor).all() and (self.structure_factor > 0).all()):
            raise FitRefused(
                "The structure factor (mean intensity) of a block is not a positive number.",
                "Leave out frames without counts and rings without light.",
            )
        err = self.structure_factor_err
        if err is not None and not (err.shape == self.structure_factor.shape and (err >= 0).all()):
            raise FitRefused(
                "The error of the structure factor is negative, not a number, or not one for each of its values.",
                "Give (n_q, n_times) standard errors, or None.",
            )
        unseen = np.flatnonzero(~self.measured.any(axis=(1, 2)))
        if not (self.c2_err[self.measured] >= 0).all() or len(unseen):
            raise FitRefused(
                "C2 holds no measured pair of blocks"
                + (f" in ring {', '.join(str(k + 1) for k in unseen)}" if len(unseen) else "")
                + ", or an error of it is negative or not a number.",
                "Leave such rings out, and mark what was not measured by NaN in C2 itself.",
            )
        density = self.number_density_per_um2
        if density is not None and not (np.isfinite(density) and density > 0):
            raise FitRefused(
                f"A number density of {density} per um^2 means no particles.",
                "Give the sample's density, or None where it is not known.",
            )

    @property
    def measured(self) -> BoolArray:
        """(n_q, n_times, n_times) entries t1 < t2 with a finite C2 and less than infinite error."""
        upper = np.triu(np.ones(self.c2.shape[1:], bool), k=1)
        return np.isfinite(self.c2) & ~np.isposinf(self.c2_err) & upper[None]

    @classmethod
    def from_two_time(
        cls,
        two_time: TwoTime,
        fits: RelaxationFits,
        number_density_per_um2: float | None = None,
        mean_intensity: Float64Array | None = None,
        n_blocks: int = 20,
    ) -> CorrelationObservations:
        """Observations of a run: its C2 and ring intensities, averaged into about ``n_blocks`` time blocks.

        A run whose g2 decays within a few blocks and whose intensity and g2 do not change with age is folded onto lags
        instead (``stationary``), because blocks would hide its dynamics.

        Parameters
        ----------
        fits
            Relaxation fits of the same run: first guess of contrast per ring.
        number_density_per_um2
            From the run's sample metadata; None when unknown.
        mean_intensity
            (n_q,) scattering of the same particles without order, in counts per pixel: makes S(q, t) absolute. Without
            it the sample is taken to be unordered at the first frame.

        Raises
        ------
        FitRefused
            When fewer than 8 frames or no ring can be used, or ``mean_intensity`` is not one positive number per ring.
        """
        ages = blocks_of_age(two_time, n_blocks)
        stationary = is_stationary(two_time, ages)
        blocks = blocks_of_lag(two_time, n_blocks) if stationary else ages
        keep = blocks.usable_rings
        if not keep.any():
            raise FitRefused(
                "No q ring shows a correlation above its noise.",
                "Check the q-map and the contrast, or record more frames.",
            )
        absolute = None if mean_intensity is None else _one_per_ring(mean_intensity, len(keep))
        q = two_time.q_inv_angstrom * INV_UM_PER_INV_ANGSTROM
        said = _warnings(blocks, number_density_per_um2, absolute)
        by_age = cls._from_blocks(ages, keep, q, number_density_per_um2, absolute, None, ()) if stationary else None
        return cls._from_blocks(blocks, keep, q, number_density_per_um2, absolute, by_age, said)

    @classmethod
    def of_run(cls, two_time: TwoTime, fits: RelaxationFits, sample: Mapping[str, Any]) -> CorrelationObservations:
        """:meth:`from_two_time` with what the run's metadata say of its sample.

        Parameters
        ----------
        sample
            Entry ``sample`` of the start document, of which these are looked for: ``number_density_per_um2``;
            ``unordered_counts_per_pixel``, what the same particles without order scatter into each ring, in counts per
            pixel and frame (their form factor times the flux), which makes S(q, t) absolute; ``age_at_start_s``, how
            long before the run the sample was without order (mixed, melted, quenched).

        Raises
        ------
        FitRefused
            As :meth:`from_two_time`; or when one of these is not a number, not one for each ring, or an age negative.
        """
        density, age_s = _number(sample, "number_density_per_um2"), _number(sample, "age_at_start_s")
        seen = cls.from_two_time(two_time, fits, density, _numbers(sample, "unordered_counts_per_pixel"))
        if age_s is None:
            return seen
        if not (np.isfinite(age_s) and age_s >= 0.0):
            raise FitRefused(f"An age_at_start_s of {age_s} s is not before the run.", "Correct the sample's entry.")
        said = tuple(each for each in seen.warnings if each != UNORDERED)
        return replace(seen, waiting_s=age_s + seen.begin_s, warnings=said)

    @classmethod
    def _from_blocks(
        cls,
        blocks: Blocks,
        keep: BoolArray,
        q_inv_um: Float64Array,
        number_density_per_um2: float | None,
        mean_intensity: Float64Array | None,
        by_age: CorrelationObservations | None,
        warnings: tuple[str, ...],
    ) -> CorrelationObservations:
        unit = 1.0 if mean_intensity is None else mean_intensity[keep, None]
        return cls(
            c2=blocks.c2[keep],
            c2_err=blocks.c2_err[keep],
            structure_factor=blocks.intensity[keep] / unit,
            structure_factor_err=blocks.intensity_err[keep] / unit,
            q_inv_um=q_inv_um[keep],
            times_s=blocks.times_s,
            number_density_per_um2=number_density_per_um2,
            n_speckles=blocks.n_speckles[keep],
            contrast=blocks.contrast[keep],
            contrast_err=blocks.contrast_err[keep],
            stationary=blocks.stationary,
            absolute=mean_intensity is not None,
            begin_s=blocks.begin_s,
            duration_s=blocks.duration_s,
            n_averages=blocks.n_averages,
            by_age=by_age,
            warnings=warnings,
        )


def _number(sample: Mapping[str, Any], name: str) -> float | None:
    """What a sample's metadata say under a name; None where they say nothing."""
    values = _numbers(sample, name)
    if values is not None and values.shape:
        raise FitRefused(f"The sample's {name}, {sample[name]!r}, is not one number.", "Correct the sample's entry.")
    return None if values is None else float(values)


def _numbers(sample: Mapping[str, Any], name: str) -> Float64Array | None:
    if sample.get(name) is None:
        return None
    try:
        return np.asarray(sample[name], np.float64)
    except (TypeError, ValueError) as error:
        raise FitRefused(
            f"The sample's {name}, {sample[name]!r}, is no number.",
            "Correct the entry sample of the run's metadata, or leave out what is not known.",
        ) from error


def _one_per_ring(mean_intensity: Float64Array, n_rings: int) -> Float64Array:
    values = np.asarray(mean_intensity, np.float64)
    if values.shape != (n_rings,) or not (np.isfinite(values).all() and (values > 0).all()):
        raise FitRefused(
            f"The scattering without order, {values}, is not one positive number for each of the {n_rings} rings.",
            "Correct unordered_counts_per_pixel in the sample's metadata, or leave it out: S(q, t) is relative then.",
        )
    return values


def _warnings(blocks: Blocks, density: float | None, mean_intensity: Float64Array | None) -> tuple[str, ...]:
    said = []
    left_out = np.flatnonzero(~blocks.usable_rings)
    if len(left_out):
        said.append(
            f"Rings {', '.join(str(k + 1) for k in left_out)} show no correlation above noise and were left out."
        )
    if density is None:
        said.append("The number density is unknown: the force is given times density, for a nominal density.")
    if mean_intensity is None and not blocks.stationary:
        said.append(UNORDERED)
    return tuple(said)
