"""The gate behind event-model's schema: numbers must be finite scalars that make sense, and must not contradict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from beamline_ml.documents.fields import ABSENT, RELATIVE_TOLERANCE, Field, Lookup, Place
from beamline_ml.errors import MetadataMissing


def lookup_in(start: Mapping[str, Any], configuration: Mapping[str, Any], detector: str) -> Lookup:
    """Look up dotted paths in a start document and in a detector's configuration readings.

    Parameters
    ----------
    start
        The start document.
    configuration
        Configuration readings, ``{name: value}``; names may hold dots and dashes.
    detector
        Name that replaces ``{detector}`` in a path.
    """
    roots: dict[str, Mapping[str, Any]] = {"start": start, "config": configuration}

    def look_up(path: str) -> object:
        root, _, rest = path.replace("{detector}", detector).partition(".")
        return _descend(roots.get(root, {}), rest)

    return look_up


def _descend(node: object, rest: str) -> object:
    if isinstance(node, Mapping) and rest in node:
        return node[rest]
    key, dot, deeper = rest.partition(".")
    if not dot or not isinstance(node, Mapping) or key not in node:
        return ABSENT
    return _descend(node[key], deeper)


def read_field(
    field: Field, look_up: Lookup, run_name: str, first: Sequence[Place] = ()
) -> tuple[float, tuple[str, ...]]:
    """Value of a field and what contradicts it.

    Parameters
    ----------
    field
        What is asked.
    look_up
        Access to the documents.
    run_name
        How to call the run in a message.
    first
        Places of this beamline, looked at before the built-in ones.

    Returns
    -------
    value, warnings
        The value of the first place that says anything, in the field's unit, and a sentence for each later place
        that says something else.

    Raises
    ------
    MetadataMissing
        When no place says anything, or the first that does holds no finite plausible number.
    """
    found = list(_recorded((*first, *field.places), look_up))
    if not found:
        raise MetadataMissing(
            f"{run_name} does not say its {field.name}.",
            f"Record it in the start document as start['xpcs']['{field.name}'], or name the place where your "
            f"beamline records it under [metadata.places] {field.name} in the profile's beamline.toml.",
        )
    place, raw = found[0]
    value = _number(field, place, raw, run_name)
    return value, tuple(_disagreements(field, place, value, found[1:]))


def _recorded(places: Sequence[Place], look_up: Lookup) -> Iterator[tuple[Place, object]]:
    for place in places:
        raw = look_up(place.path)
        if raw is not ABSENT:
            yield place, raw


def _is_finite_number(raw: object) -> bool:
    return isinstance(raw, Real) and not isinstance(raw, bool) and math.isfinite(raw)


def _number(field: Field, place: Place, raw: object, run_name: str) -> float:
    if not _is_finite_number(raw):
        raise MetadataMissing(
            f"{run_name} records {field.name} at {place.path} as {raw!r:.60}, which is no finite number.",
            "Record a plain number there (no text, no array), or remove it so that another place is used.",
        )
    number = float(raw)  # type: ignore[arg-type]
    value = place.convert(number) if number or not place.is_wavelength else math.nan
    if not field.plausible(value):
        raise MetadataMissing(
            f"{run_name} records {field.name} at {place.path} as {raw!r}, which makes {value:g}: "
            f"outside the range from {field.lowest:g} to {field.highest:g} that makes sense.",
            "Correct the value or its unit in the plan that records it, then reprocess the run.",
        )
    return value


def _disagreements(field: Field, used: Place, value: float, others: Sequence[tuple[Place, object]]) -> Iterator[str]:
    for place, raw in others:
        if not _is_finite_number(raw) or not raw:
            continue
        other = place.convert(float(raw))  # type: ignore[arg-type]
        if abs(other - value) > RELATIVE_TOLERANCE * abs(value):
            yield (
                f"{field.name} is {value:g} at {used.path}, but {other:g} at {place.path}; "
                f"used {value:g}, because {used.path} comes first."
            )


def require_consistent_timing(frame_period_s: float, exposure_s: float, run_name: str) -> None:
    """Refuse an exposure that is longer than the time between frames.

    Raises
    ------
    MetadataMissing
        When it is: one of the two numbers is not what the detector did, and every rate would be wrong by an unknown
        factor.
    """
    if exposure_s > frame_period_s * (1 + RELATIVE_TOLERANCE):
        raise MetadataMissing(
            f"{run_name} records an exposure_s of {exposure_s:g}, longer than its frame_period_s of "
            f"{frame_period_s:g}.",
            "Record the frame period that the detector really kept (a detector asked for too short a period takes "
            "frames as fast as it can).",
        )
