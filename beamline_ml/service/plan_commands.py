"""What the command line does for ``beamline-ml plan`` and ``beamline-ml measure``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import BurstAgent
from beamline_ml.results import open_results
from beamline_ml.results.identity import json_safe
from beamline_ml.service.plan_catalogue import PlanCatalogue
from beamline_ml.service.plan_conditions import goal_of
from beamline_ml.service.plan_content import answer
from beamline_ml.service.plan_loop import Allowance, Measured, MeasurementLoop
from beamline_ml.settings import load_settings

JOURNAL = "submissions.jsonl"
"""In the state directory: every submission of the loop with its reason, and what came of it."""


def plan_samples(names: Sequence[str] | None, publish: bool) -> list[dict[str, Any]]:
    """Plan for every sample that is catalogued, or for those named; a sample that is refused says why.

    Raises
    ------
    GuidanceError
        The catalogue knows none of the samples.
    ServiceError
        tiled does not answer.
    """
    with closing(PlanCatalogue.open(patient=False)) as catalogue:
        found = catalogue.samples(names or None)
        if not found:
            asked = ", ".join(names or ()) or "any sample"
            raise GuidanceError(
                f"The catalogue does not know {asked}.", "Name samples as the runs' start documents or samples/ do."
            )
        plans = catalogue.plan(found)
        if publish:
            catalogue.publish(plans)
    answers = [answer(planned) for planned in (*plans.made, *plans.unchanged)]
    answers += [{"sample": name, "refused": reason} for name, reason in plans.refused.items()]
    return sorted(answers, key=lambda told: str(told["sample"]))


def measure_and_tell(first: tuple[int, float], allowance: Allowance, console: Console | None) -> dict[str, Any]:
    """Run the closed loop from a first burst (frames, period in s); returns what was taken, and why it ended.

    Raises
    ------
    GuidanceError
        The profile does not opt in or does not allow a proposal, or a run has no fit to learn from.
    ResultError
        tiled does not answer, or nothing has been published yet.
    ServiceError
        The queue server does not answer, a burst failed, or nothing happened for too long.
    """
    settings = load_settings()
    taken = []
    agent = BurstAgent(goal_of(settings.guidance), first)
    with open_results() as results:
        loop = MeasurementLoop(settings.guidance, results, agent, allowance, settings.state_dir / JOURNAL)
        for measured in loop:
            taken.append(asdict(measured))
            if console is not None:
                console.print(_turn(measured), markup=False)
    if console is not None:
        console.print(f"no further burst: {loop.ended}", markup=False)
    told: dict[str, Any] = json_safe({"measured": taken, "ended": loop.ended})
    return told


def _turn(measured: Measured) -> str:
    error = f", relaxation time to {100 * measured.relative_error:.2g} %" if measured.relative_error > 0 else ""
    burst = f"{measured.n_frames} frames every {measured.frame_period_s:g} s"
    return f"{measured.run_uid[:8]}  {burst}{error}; {measured.because}"


def print_plans(console: Console, answers: Sequence[Mapping[str, Any]]) -> None:
    """Print a table for each sample, then what is missing and what to be cautious about."""
    for told in answers:
        console.print(f"[bold]{told['sample']}[/]")
        if "refused" in told:
            console.print(told["refused"], markup=False)
            continue
        if told["lines"]:
            console.print(_table(told["lines"]))
        for line in told["missing"]:
            console.print(
                f"missing: {line['quantity']} needs {', '.join(line['needs'])}. {line['reason']}", markup=False
            )
        for warning in told["warnings"]:
            console.print(f"note: {warning}", markup=False)


def _table(lines: Sequence[Mapping[str, Any]]) -> Table:
    table = Table()
    for heading in ("quantity", "value", "90 % band", "unit", "limit", "why"):
        table.add_column(heading)
    for line in lines:
        band = f"{_text(line['lower'])} to {_text(line['upper'])}"
        fixed = line["lower"] == line["upper"]
        table.add_row(
            line["quantity"], _text(line["value"]), "" if fixed else band, line["unit"], line["limit"], line["reason"]
        )
    return table


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.3g}"
