"""What a run's metadata say of the sample decides what its correlations are taken for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from beamline_ml.correlation import QMap, fit_relaxation, g2_from_two_time, two_time
from beamline_ml.dynamics import CorrelationObservations
from beamline_ml.errors import FitRefused
from beamline_ml.records import RelaxationFits, TwoTime
from tests.correlation.speckle import counts

SHAPE = (48, 48)
COUNTS = 4.0


@pytest.fixture(scope="module")
def run() -> tuple[TwoTime, RelaxationFits]:
    qmap = QMap(
        1 + np.add.outer(np.arange(SHAPE[0]) * 3 // SHAPE[0], np.zeros(SHAPE[1], np.int64)),
        q_inv_angstrom=np.array([1e-3, 2e-3, 3e-3]),
    )
    frames = counts(np.random.default_rng(5), qmap, 100, COUNTS, 30.0)
    correlated = two_time(frames, qmap, frame_period_s=0.01)
    return correlated, fit_relaxation(g2_from_two_time(correlated), correlated)


def test_what_the_same_particles_scatter_without_order_makes_s_absolute(run: tuple[TwoTime, RelaxationFits]) -> None:
    unordered = [2.0 * COUNTS, COUNTS, 0.5 * COUNTS]
    seen = CorrelationObservations.of_run(
        *run, {"name": "gel", "number_density_per_um2": "25", "unordered_counts_per_pixel": unordered}
    )
    assert seen.absolute
    assert seen.number_density_per_um2 == 25.0
    np.testing.assert_allclose(seen.structure_factor.mean(axis=1), [0.5, 1.0, 2.0], rtol=0.1)


def test_without_it_s_is_relative_and_the_run_says_so(run: tuple[TwoTime, RelaxationFits]) -> None:
    seen = CorrelationObservations.of_run(*run, {"name": "gel"})
    assert not seen.absolute
    assert seen.number_density_per_um2 is None
    assert any("density is unknown" in said for said in seen.warnings)


def test_a_known_age_counts_from_the_first_frame_used(run: tuple[TwoTime, RelaxationFits]) -> None:
    correlated, fits = run
    late = replace(correlated, age_s=correlated.age_s + 0.4)
    seen = CorrelationObservations.of_run(late, fits, {"age_at_start_s": 2.0})
    assert seen.waiting_s == pytest.approx(2.4)
    assert not any("unordered" in said for said in seen.warnings)


@pytest.mark.parametrize(
    ("sample", "culprit"),
    [
        ({"number_density_per_um2": "many"}, "'many'"),
        ({"unordered_counts_per_pixel": ["a", "b", "c"]}, "'a'"),
        ({"unordered_counts_per_pixel": [1.0, 2.0]}, "each of the 3 rings"),
        ({"unordered_counts_per_pixel": [1.0, 2.0, 0.0]}, "positive"),
        ({"unordered_counts_per_pixel": 3.0}, "each of the 3 rings"),
        ({"age_at_start_s": "old"}, "'old'"),
        ({"age_at_start_s": -1.0}, "not before the run"),
        ({"age_at_start_s": [1.0, 2.0]}, "not one number"),
    ],
)
def test_what_is_no_number_is_refused_by_name(
    run: tuple[TwoTime, RelaxationFits], sample: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(FitRefused, match=culprit):
        CorrelationObservations.of_run(*run, sample)
