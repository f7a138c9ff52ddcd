"""What to measure next, for how long, and why: from the density of states of a sample and from its running scan.

Pure: records and arrays in, records and arrays out. What is not known is not assumed; the plan says what is missing.
"""

from __future__ import annotations

from beamline_ml.guidance.advice import Advice, Goal, advise, expected_relative_error, nats_per_minute
from beamline_ml.guidance.agent import BurstAgent
from beamline_ml.guidance.conditions import Conditions
from beamline_ml.guidance.expected_errors import Bin, relative_time_error
from beamline_ml.guidance.forecast_gain import expected_forecast_error
from beamline_ml.guidance.from_dos import plan_from_dos
from beamline_ml.guidance.ranking import Ranking, expected_information_nats, greedy_ranking
from beamline_ml.guidance.run_so_far import RunSoFar
from beamline_ml.guidance.sampling import (
    log_spaced_bursts_s,
    pairs_per_octave,
    undersampled_ages,
    undersampled_delays,
    weakest_transmission,
)

__all__ = [
    "Advice",
    "Bin",
    "BurstAgent",
    "Conditions",
    "Goal",
    "Ranking",
    "RunSoFar",
    "advise",
    "expected_forecast_error",
    "expected_information_nats",
    "expected_relative_error",
    "greedy_ranking",
    "log_spaced_bursts_s",
    "nats_per_minute",
    "pairs_per_octave",
    "plan_from_dos",
    "relative_time_error",
    "undersampled_ages",
    "undersampled_delays",
    "weakest_transmission",
]
