"""Laws that the pair model does not contain, and six that it does: what a fit with default settings says of each.

The samples are those of the tests (``tests/dynamics/foreign_truths.py``), three of each law. Rows that end in
``_large`` are of two larger ones. ``published_over_best_...`` is about the sample, |f|^2 of its fields;
``own_over_best_...`` about what its very speckles go on to show, which is what the flows publish. Rows that begin with
``pattern_`` are of whole patterns (``tests/dynamics/foreign_patterns.py``).
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from beamline_ml.dynamics import DynamicsModel, fit, forecast
from beamline_ml.dynamics.contest import CORRECTED
from tests.benchmarks.bench_dynamics import NO_LIMIT_S
from tests.benchmarks.rows import Row, row
from tests.dynamics import foreign_patterns
from tests.dynamics.foreign_truths import N_BLOCKS, N_BOXES, PER_BOX, REACH_UM, Case, sample

CONTAINED = ("pairwise", "strong_pairwise", "free", "repulsion", "shoulder", "short_attraction")
FOREIGN = ("three_body", "anisotropic", "drifting_density", "ageing_viscosity")
SAMPLES = (0, 1, 2)
LARGE = (12, 1000)
"""Boxes and particles in each: 360 to 768 speckles a ring instead of 60 to 200."""
OF_PATTERNS = {
    "pairwise": (0.0,),
    "three_body": (0.3, 1.0),
    "anisotropic": (0.2, 1.0),
    "stiffening": (0.3, 1.0),
    "diffusing": (0.03, 1.0),
    "leaving": (0.1, 0.5),
}
"""A strength that a force nearly imitates, and one that it does not."""
BRIGHTEST = (100.0, 3.0)
"""Photons in the brightest pixel."""
PATTERN_BUDGET_S = 60.0
"""Half of which may go into other starts, were the given one to blame."""
OF_LARGE = ("pairwise", "strong_pairwise", *FOREIGN)


def judged(name: str, seed: int, boxes: tuple[int, int] = (N_BOXES, PER_BOX)) -> dict[str, float]:
    """Chi-squared; how many standard errors the force was behind in the contest; errors over the best in hindsight."""
    truth = sample(name, seed, *boxes)
    model = DynamicsModel(cutoff_um=REACH_UM, n_threads=1)
    found = fit(truth.observations(N_BLOCKS), model, time_budget_s=NO_LIMIT_S, seed=seed)
    until_s = float(truth.times_s[-1])
    case, own = Case(truth, found, forecast(found, until_s)), forecast(found, until_s, own_speckles=True)
    _, behind_by = found.best_curve or ("", np.nan)
    return {
        "chi2": found.chi2,
        "behind": behind_by,
        "described": float(found.describes_data),
        "corrected": float(case.ahead.method == CORRECTED),
        "published_over_best": case.published_over_best,
        "own_over_best": case.over_best(own, case.shown),
        "coverage": case.coverage,
        "d_um2_per_s": found.diffusion_um2_per_s,
        "d_err_um2_per_s": found.diffusion_um2_per_s_err,
    }


def rows() -> list[Row]:
    """Of each law how many samples are said to be described, and how good what is published is."""
    torch.set_num_threads(1)
    small = [_of_law(name, [judged(name, seed) for seed in SAMPLES]) for name in (*CONTAINED, *FOREIGN)]
    large = [_of_law(f"{name}_large", [judged(name, seed, LARGE) for seed in SAMPLES[:2]]) for name in OF_LARGE]
    whole = [_of_patterns(name, brightest) for name in OF_PATTERNS for brightest in BRIGHTEST]
    return [each for law in (*small, *large, *whole) for each in law]


def _of_patterns(name: str, brightest: float) -> list[Row]:
    """Three samples of each strength."""
    cases = [_pattern_case(name, strength, brightest, seed) for strength in OF_PATTERNS[name] for seed in SAMPLES]
    what, wanted = f"{name}_{brightest:g}_photons", len(cases) * (name == foreign_patterns.CONTAINED)
    over_best = float(np.exp(np.mean([np.log(case.over_best) for case in cases])))
    described = sum(case.found.describes_data for case in cases)
    coverage = min(case.coverage for case in cases)
    return [
        row(f"pattern_described_{what}", described, f"of {len(cases)}", wanted, "goal"),
        row(f"pattern_published_over_best_{what}", over_best, "geometric mean", 1.0, "goal, at most"),
        row(f"pattern_coverage_2sigma_{what}", coverage, "share, worst sample", 0.85, "goal"),
    ]


def _pattern_case(name: str, strength: float, brightest: float, seed: int) -> foreign_patterns.PatternCase:
    """One run, and what is said of it on the way."""
    case = foreign_patterns.judged(name, strength, brightest, seed, PATTERN_BUDGET_S)
    found = case.found
    said = {
        "chi2": found.chi2,
        "chi2_err": found.chi2_err,
        "parts": found.steadiness.beyond_chance,
        "described": float(found.describes_data),
        "over_best": case.over_best,
        "coverage": case.coverage,
        **case.ahead.contest,
    }
    numbers = {key: float(f"{value:.4g}") for key, value in said.items()}
    print(name, strength, brightest, seed, case.ahead.method, numbers, file=sys.stderr, flush=True)
    return case


def _of_law(name: str, cases: list[dict[str, float]]) -> list[Row]:
    for seed, case in enumerate(cases):
        print(name, seed, {key: float(f"{value:.3g}") for key, value in case.items()}, file=sys.stderr)
    wanted = len(cases) * (name.removesuffix("_large") in CONTAINED)
    coverage = min(case["coverage"] for case in cases)
    described = sum(case["described"] for case in cases)
    return [
        row(f"described_{name}", described, f"of {len(cases)}", wanted, "goal"),
        row(f"published_over_best_{name}", _over_best(cases, "published"), "geometric mean", 1.0, "goal, at most"),
        row(f"own_over_best_{name}", _over_best(cases, "own"), "geometric mean", 1.0, "goal, at most"),
        row(f"coverage_2sigma_{name}", coverage, "share, worst sample", 0.85, "goal"),
    ]


def _over_best(cases: list[dict[str, float]], which: str) -> float:
    return float(np.exp(np.mean([np.log(case[f"{which}_over_best"]) for case in cases])))
