"""What profile, sample entry and results say of the conditions of an experiment; a published run as one to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import Conditions, Goal, RunSoFar
from beamline_ml.records import G2, RelaxationFits
from beamline_ml.results.client import XPCSFit
from beamline_ml.results.picture import g2_of, relaxation_of
from beamline_ml.settings import GuidanceSettings

_NAMES = tuple(entry.name for entry in fields(Conditions))
_FROM_PROFILE = tuple(name for name in GuidanceSettings.model_fields if name in _NAMES)


def conditions_of(
    profile: GuidanceSettings,
    entry: Mapping[str, Any],
    experiment: Mapping[str, Any] | None = None,
    q_inv_angstrom: float | None = None,
    number_density_per_angstrom3: float | None = None,
) -> Conditions:
    """Conditions of one sample: what its entry says over what its latest run used over what the profile knows.

    Parameters
    ----------
    entry
        What the catalogue says of the sample; the names are those of ``Conditions``.
    experiment
        Of the sample's latest result: photon energy and frame period.
    q_inv_angstrom
        Largest momentum transfer of that result.
    number_density_per_angstrom3
        Of the crystal.

    Raises
    ------
    GuidanceError
        An entry is no number, or makes no sense.
    """
    told: dict[str, Any] = {name: getattr(profile, name) for name in _FROM_PROFILE}
    found = {
        "photon_energy_kev": (experiment or {}).get("photon_energy_kev"),
        "frame_period_s": (experiment or {}).get("frame_period_s"),
        "q_inv_angstrom": q_inv_angstrom,
        "number_density_per_angstrom3": number_density_per_angstrom3,
    }
    told |= {name: value for name, value in found.items() if value is not None}
    told |= {name: _number(name, entry[name]) for name in _NAMES if entry.get(name) is not None}
    return Conditions(**told)


def _number(name: str, value: Any) -> Any:
    """A value of a sample's entry, as ``Conditions`` takes it."""
    try:
        if name == "temperature_steps":
            return str(value)
        if name == "temperature_range_k":
            low, high = value
            return float(low), float(high)
        return int(value) if name == "n_temperatures" else float(value)
    except (TypeError, ValueError) as error:
        raise GuidanceError(f"The sample's {name} is {value!r}.", "Write a number in the unit of its name.") from error


def goal_of(profile: GuidanceSettings) -> Goal:
    """What runs are for, and what they may cost."""
    return Goal(profile.relative_error, profile.longest_run_s, profile.shortest_frame_period_s)


def run_of(result: XPCSFit) -> RunSoFar:
    """A published result as a run that could go on.

    Raises
    ------
    GuidanceError
        The result has no map of its bins, so that their pixels cannot be counted.
    """
    if "roi_map" not in result:
        raise GuidanceError(f"{result.key} has no map of its q bins.", "Reprocess the run with frames under 32 MiB.")
    # Not the whole result: its C2 can be larger than everything else together.
    return _run(result, g2_of(result), relaxation_of(result))


def _run(result: XPCSFit, g2: G2, fits: RelaxationFits) -> RunSoFar:
    # Lags count frames as they were correlated, which may be several of the detector's.
    period_s = float(g2.delay_s[0])
    per_frame = period_s / float(result.metadata["experiment"]["frame_period_s"])
    n_q = g2.g2.shape[0]
    pixels = np.bincount(np.asarray(result["roi_map"].read()).ravel().astype(np.int64), minlength=n_q + 1)[1:]
    span_s = float(result.age_s[-1] - result.age_s[0] + result.age_s[1] - result.age_s[0])
    counts = np.nanmean(result.intensity.astype(np.float64), axis=1) * per_frame
    return RunSoFar(g2, fits, round(span_s / period_s), period_s, pixels, counts, adds_frames=False)
