"""The plan of one sample: what its density of states and its latest run say, and what they cannot say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from beamline_ml.guidance import (
    Advice,
    Conditions,
    Goal,
    RunSoFar,
    advise,
    expected_information_nats,
    expected_relative_error,
    greedy_ranking,
    plan_from_dos,
    undersampled_delays,
    weakest_transmission,
)
from beamline_ml.phonons import PhononDos
from beamline_ml.records import Float64Array, MissingLine, Plan, PlanLine

GUIDANCE_VERSION = "1"
"""Changes when plans from the same input would differ."""
SPECTRUM_NOISE = 0.1
"""Standard deviation of a measured point of a density of states, whose maximum is 1."""
_N_TIMES = 24


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Everything that is said about one sample."""

    name: str
    plan: Plan
    conditions: Conditions
    goal: Goal
    dos: PhononDos | None
    run: RunSoFar | None
    advice: Advice | None
    run_uids: tuple[str, ...] = ()
    fit_key: str | None = None
    """The result that the advice rests on."""
    structure_id: str | None = None

    @property
    def identity(self) -> str:
        """What makes this plan this one: sample, structure, weights, run, conditions and goal."""
        told = {
            "version": GUIDANCE_VERSION,
            "sample": self.name,
            "structure": self.structure_id,
            "model": self.dos.model if self.dos else None,
            "fit": self.fit_key,
            "refused": [line.reason for line in self.plan.missing],
            "conditions": asdict(self.conditions),
            "goal": asdict(self.goal),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def sample_plan(
    name: str,
    conditions: Conditions,
    goal: Goal,
    dos: PhononDos | None,
    run: RunSoFar | None,
    unknown: Mapping[str, str],
    **about: Any,
) -> SamplePlan:
    """Put together what can be said of a sample.

    Parameters
    ----------
    unknown
        Why there is no density of states ('structure') or no run ('run').
    about
        More fields of ``SamplePlan``.
    """
    lines: list[PlanLine] = []
    missing: list[MissingLine] = []
    warnings: tuple[str, ...] = ()
    if dos is None:
        missing.append(MissingLine("density_of_states", ("structure",), unknown["structure"]))
    else:
        plan = plan_from_dos(dos, conditions)
        lines = [*plan.lines, information_line(dos, conditions)]
        missing, warnings = [*plan.missing], plan.warnings
    advice = None
    if run is None:
        missing.append(MissingLine("advice", ("run",), unknown["run"]))
    else:
        advice = advise(run, goal)
        lines += run_lines(run, advice)
    return SamplePlan(name, Plan(tuple(lines), tuple(missing), warnings), conditions, goal, dos, run, advice, **about)


def information_line(dos: PhononDos, conditions: Conditions) -> PlanLine:
    """What a phonon spectrum of the sample would tell, per hour of beam time."""
    nats = expected_information_nats(dos.member_points[:, None, :], SPECTRUM_NOISE)[0]
    per_hour = float(nats) / conditions.measurement_hours
    reason = (
        f"The ensemble disagrees by {dos.spread:.2g} of the maximum, and a measured spectrum would settle "
        f"it to {SPECTRUM_NOISE:g}; the most similar known material is {dos.nearest.formula}."
    )
    return PlanLine("phonon_information", per_hour, per_hour, per_hour, "nat/h", "knowledge", reason)


def measure_first(plans: Sequence[SamplePlan]) -> list[tuple[str, float]]:
    """Samples with a predicted density in the order in which to measure them, and what each adds, in nats per hour."""
    known = [(planned, planned.dos) for planned in plans if planned.dos is not None]
    if not known:
        return []
    points = np.stack([dos.member_points for _, dos in known], axis=1)
    hours = np.array([planned.conditions.measurement_hours for planned, _ in known])
    ranking = greedy_ranking(points, SPECTRUM_NOISE, hours, len(known))
    named = [known[index][0].name for index in ranking.order]
    return list(zip(named, ranking.nats_per_hour.tolist(), strict=True))


def run_lines(run: RunSoFar, advice: Advice) -> list[PlanLine]:
    """The advice, and what the run knows too poorly or pays too much for, as lines of the plan."""
    longer = advice.go_on_s if advice.action == "go on" else 0.0
    lines = [PlanLine("go_on_for", longer, longer, longer, "s", advice.limit, advice.reason)]
    if advice.action == "change frame period":
        period = advice.frame_period_s
        lines.append(PlanLine("frame_period", period, period, period, "s", advice.limit, advice.reason))
    if not run.fitted.any():
        return lines
    nats = advice.nats_per_minute
    lines.append(
        PlanLine(
            "information_next_minute", nats, nats, nats, "nat", advice.limit,
            "So much the logarithms of the errors of all relaxation times together will fall in the next minute.",
        )
    )  # fmt: skip
    return [*lines, *_delay_lines(run), *_transmission_lines(run)]


def _delay_lines(run: RunSoFar) -> list[PlanLine]:
    poor = undersampled_delays(run.g2, run.fits)
    share = float(poor[run.fitted].mean())
    if not poor.any():
        reason = "Every delay within the decays is known better than a tenth of the contrast."
        return [PlanLine("undersampled_delays", 0.0, 0.0, 0.0, "1", "none", reason)]
    delay_s = run.g2.delay_s[poor.any(axis=0)]
    reason = f"From {delay_s.min():.3g} to {delay_s.max():.3g} s g2 is known worse than a tenth of the contrast."
    return [PlanLine("undersampled_delays", share, share, share, "1", "photons", reason)]


def _transmission_lines(run: RunSoFar) -> list[PlanLine]:
    shares = [weakest_transmission(run.bin(int(q)), run.n_frames) for q in np.flatnonzero(run.fitted)]
    value, low, high = float(np.median(shares)), min(shares), max(shares)
    limit = "speckles" if value < 0.9 else "photons"
    reason = "With this share of the beam errors grow by 5 %: beyond it light is dose without information."
    return [PlanLine("sufficient_transmission", value, low, high, "1", limit, reason)]


def error_curve(planned: SamplePlan) -> tuple[Float64Array, Float64Array] | None:
    """(n,) lengths of the run in s and (n_q, n) relative errors to expect then; None without fitted bins."""
    run = planned.run
    if run is None or not run.fitted.any():
        return None
    longest = max(planned.goal.longest_s, 2.0 * run.duration_s)
    total_s = np.geomspace(run.duration_s, longest, _N_TIMES)
    errors = np.stack([expected_relative_error(run, float(t) - run.duration_s) for t in total_s], axis=1)
    return total_s, errors
