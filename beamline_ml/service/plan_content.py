"""A measurement plan as a result in tiled (spec ``MeasurementPlan``) and in the artifact that people see."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from beamline_ml.records import Float64Array
from beamline_ml.results.content import ResultArray, ResultContent, ResultTable
from beamline_ml.results.identity import json_safe, sample_in_key
from beamline_ml.results.plan_figure import PlanPicture, advice_text, draw
from beamline_ml.service.plan_sample import GUIDANCE_VERSION, SamplePlan, error_curve

SPEC = "MeasurementPlan"
CONTAINER = "plans"
"""Below ``results/``: plans belong to samples, not to runs."""
_N_TEMPERATURES = 48
_HOTTEST_K = 600.0
_COLDEST_K = 5.0


def plan_content(planned: SamplePlan, flow_run_id: str | None) -> ResultContent:
    """Everything that is published for one sample."""
    identity = planned.identity
    metadata = {
        "technique": "measurement-plan",
        "result_id": identity,
        "request_id": identity,
        "sample": {"name": planned.name, "structure_id": planned.structure_id},
        "run_uids": list(planned.run_uids),
        "fit": planned.fit_key,
        "model": planned.dos.model if planned.dos else None,
        "flow_run_id": flow_run_id,
        "versions": {"guidance": GUIDANCE_VERSION},
        "conditions": asdict(planned.conditions),
        "goal": asdict(planned.goal),
        "advice": asdict(planned.advice) if planned.advice else None,
        "warnings": list(planned.plan.warnings),
        "headline": {line.quantity: line.value for line in planned.plan.lines},
    }
    key = f"{sample_in_key(planned.name)}_{identity[:8]}"
    return ResultContent(identity, key, json_safe(metadata), _arrays(planned), _tables(planned), SPEC)


def _tables(planned: SamplePlan) -> tuple[ResultTable, ...]:
    lines, missing = planned.plan.lines, planned.plan.missing
    tables = []
    if lines:
        names = ("quantity", "value", "lower", "upper", "unit", "limit", "reason")
        columns: dict[str, Any] = {name: [getattr(line, name) for line in lines] for name in names}
        tables.append(ResultTable("plan", columns, "one line a number, with its 90 % band, what binds, and why"))
    if missing:
        wanting: dict[str, Any] = {
            "quantity": [line.quantity for line in missing],
            "needs": [", ".join(line.needs) for line in missing],
            "reason": [line.reason for line in missing],
        }
        tables.append(ResultTable("missing", wanting, "what cannot be said, what it needs, and why"))
    return tuple(tables)


def _arrays(planned: SamplePlan) -> tuple[ResultArray, ...]:
    picture = picture_of(planned)
    found = []
    if picture.temperature_k is not None and picture.heat_capacity is not None:
        found += [
            ResultArray("temperature_k", picture.temperature_k, ("temperature",), "K", "temperatures of the capacity"),
            ResultArray("heat_capacity", picture.heat_capacity, ("value_lower_upper", "temperature"), "J/(K mol)",
                        "harmonic heat capacity per mol of atoms, with its 90 % band"),
        ]  # fmt: skip
    if picture.total_s is not None and picture.relative_error is not None:
        found += [
            ResultArray("total_s", picture.total_s, ("time",), "s", "length of the run"),
            ResultArray("relative_error", picture.relative_error, ("q", "time"), "1",
                        "relative error of the relaxation time to expect"),
        ]  # fmt: skip
    return tuple(found)


def picture_of(planned: SamplePlan) -> PlanPicture:
    """What is drawn of a plan."""
    curve = error_curve(planned)
    temperature_k, capacity = _heat_capacity(planned)
    points = [line.value for line in planned.plan.lines if line.quantity.startswith("temperature_point_")]
    advice = planned.advice
    return PlanPicture(
        title=planned.name,
        temperature_k=temperature_k,
        heat_capacity=capacity,
        temperature_points_k=tuple(points),
        total_s=None if curve is None else curve[0],
        relative_error=None if curve is None else curve[1],
        wanted=planned.goal.relative_error,
        advice="" if advice is None else advice_text(advice.action, advice.go_on_s, advice.reason),
        go_on_until_s=None if planned.run is None or advice is None else planned.run.duration_s + advice.go_on_s,
    )


def _heat_capacity(planned: SamplePlan) -> tuple[Float64Array | None, Float64Array | None]:
    if planned.dos is None:
        return None, None
    low, high = planned.conditions.temperature_range_k or (_COLDEST_K, _HOTTEST_K)
    temperature_k = np.linspace(low, high, _N_TEMPERATURES)
    dos = planned.dos
    rows = np.array([(dos.heat_capacity(float(t)), *dos.heat_capacity_band(float(t))) for t in temperature_k])
    return temperature_k, rows.T


def _order(first: Sequence[tuple[str, float]], most: int = 10) -> list[str]:
    """The samples whose phonon spectra would tell most, each counted after those above it."""
    if not first:
        return []
    rows = "\n".join(f"| {place} | {name} | {nats:.2g} |" for place, (name, nats) in enumerate(first[:most], 1))
    return ["## Whose phonons to measure first\n\n| | sample | adds (nat/h) |\n|---|---|---|\n" + rows]


def markdown(plans: Sequence[SamplePlan], unchanged: int, first: Sequence[tuple[str, float]] = ()) -> str:
    """Artifact: of every new plan a picture, its lines, and what is missing."""
    parts = [f"# Measurement plans: {len(plans)} new, {unchanged} unchanged", *_order(first)]
    for planned in plans:
        parts += [f"## {planned.name}", f"![plan]({_picture_address(planned)})"] if _drawable(planned) else [
            f"## {planned.name}"
        ]  # fmt: skip
        parts.append(_lines_table(planned))
        parts += [
            f"**Missing**: {line.quantity} (needs {', '.join(line.needs)}). {line.reason}"
            for line in planned.plan.missing
        ]
        parts += [f"**Note**: {warning}" for warning in planned.plan.warnings]
    return "\n\n".join(parts)


def _lines_table(planned: SamplePlan) -> str:
    head = "| quantity | value | 90 % band | unit | limit | why |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {line.quantity} | {line.value:.4g} | {line.lower:.3g} to {line.upper:.3g} | {line.unit} | {line.limit} "
        f"| {line.reason} |"
        for line in planned.plan.lines
    )


def _drawable(planned: SamplePlan) -> bool:
    return planned.dos is not None or error_curve(planned) is not None


def _picture_address(planned: SamplePlan) -> str:
    buffer = io.BytesIO()
    draw(picture_of(planned)).savefig(buffer, format="png", dpi=80)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def answer(planned: SamplePlan) -> dict[str, Any]:
    """A plan for machines and for the command line."""
    told: dict[str, Any] = json_safe(
        {
            "sample": planned.name,
            "lines": [asdict(line) for line in planned.plan.lines],
            "missing": [asdict(line) for line in planned.plan.missing],
            "warnings": planned.plan.warnings,
            "advice": asdict(planned.advice) if planned.advice else None,
            "fit": planned.fit_key,
        }
    )
    return told
