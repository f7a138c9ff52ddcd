"""Relaxation times that change with age: recovered within their errors, or refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import QMap, fit_ageing, g2_at_ages, g2_from_two_time, two_time
from beamline_ml.errors import CorrelationError

LABELS = QMap(np.ones((1, 400), int))


def ageing_movie(rng: np.random.Generator, times: np.ndarray, mean: float = 2.0, n_modes: int = 1) -> np.ndarray:
    """(n, 1, 400) counts of speckle whose relaxation time at frame t is times[t]."""
    field = rng.standard_normal((2 * n_modes, 400))
    frames = np.empty((times.size, 1, 400), np.uint16)
    for t, relaxation in enumerate(times):
        frames[t, 0] = rng.poisson(mean * (field**2).sum(axis=0) / (2 * n_modes))
        keep = np.exp(-1 / relaxation)
        field = keep * field + np.sqrt(1 - keep**2) * rng.standard_normal(field.shape)
    return frames


def pulls(law: str, times: np.ndarray, truth: tuple[float, float], n_seeds: int, period_s: float) -> np.ndarray:
    found = []
    for seed in range(n_seeds):
        frames = ageing_movie(np.random.default_rng(seed), times)
        fits = fit_ageing(two_time(frames, LABELS, frame_period_s=period_s), law)
        assert fits.refused == (None,), fits.refused
        found.append(
            [
                (fits.relaxation_time_s[0] - truth[0]) / fits.relaxation_time_s_err[0],
                (fits.ageing[0] - truth[1]) / fits.ageing_err[0],
                (fits.contrast[0] - 1) / fits.contrast_err[0],
            ]
        )
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["linear", "power"])
def test_ageing_is_recovered_within_its_errors(law: str) -> None:
    age = np.arange(480) + 0.5
    times = 8.0 + 0.02 * (age - 240) if law == "linear" else 8.0 * (age / 240) ** 0.6
    found = pulls(law, times, (8.0 * 0.1, 0.02 if law == "linear" else 0.6), 30, 0.1)
    assert np.abs(found.mean(axis=0)).max() < 0.8
    assert np.mean(np.abs(found) < 2) > 0.85


def test_a_stationary_run_has_no_ageing() -> None:
    frames = ageing_movie(np.random.default_rng(1), np.full(300, 6.0))
    for law in ("linear", "power"):
        fits = fit_ageing(two_time(frames, LABELS), law)
        assert abs(fits.ageing[0]) < 3 * fits.ageing_err[0]
        assert abs(fits.relaxation_time_s[0] - 6) < 3 * fits.relaxation_time_s_err[0]
        assert fits.reference_age_s == 150
        error = np.sqrt(np.diagonal(fits.covariance[0]))
        np.testing.assert_allclose(error[:2], [fits.relaxation_time_s_err[0], fits.ageing_err[0]])
        correlation = fits.covariance[0] / np.outer(error, error)
        np.testing.assert_allclose(correlation, correlation.T, atol=1e-12)
        assert np.linalg.eigvalsh(correlation).min() > -1e-9


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (np.full(120, 5000.0), "longer|no decay|uncertain|reaches a relaxation time of 0"),
        (np.full(120, 0.05), "no decay|faster"),
    ],
    ids=["too slow", "too fast"],
)
def test_what_cannot_be_seen_is_refused_with_a_reason(times: np.ndarray, reason: str) -> None:
    fits = fit_ageing(two_time(ageing_movie(np.random.default_rng(0), times), LABELS))
    assert fits.refused[0] is not None
    assert any(part in fits.refused[0] for part in reason.split("|")), fits.refused
    assert np.isnan(fits.relaxation_time_s).all()
    assert np.isnan(fits.covariance).all()


def test_missing_windows_are_refused() -> None:
    frames = ageing_movie(np.random.default_rng(0), np.full(96, 5.0))
    fits = fit_ageing(two_time(frames, LABELS, bad_frames=range(70)), n_windows=4)
    assert fits.refused[0] is not None
    assert "only 1 windows" in fits.refused[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"law": "cubic"}, "law 'cubic'"), ({"n_windows": 2}, "do not make 2"), ({"n_windows": 30}, "do not make 30")],
)
def test_senseless_requests_are_refused(arguments: dict[str, object], message: str) -> None:
    frames = ageing_movie(np.random.default_rng(0), np.full(60, 5.0))
    with pytest.raises(CorrelationError, match=message):
        fit_ageing(two_time(frames, LABELS), **arguments)


def test_g2_at_chosen_ages() -> None:
    frames = ageing_movie(np.random.default_rng(0), np.linspace(3, 30, 200))
    c2 = two_time(frames, LABELS, frame_period_s=0.5)
    early, late = g2_at_ages(c2, [20.0, 80.0], 20.0)
    alone = g2_from_two_time(c2, first_frame=20, last_frame=61)
    np.testing.assert_array_equal(early.g2, alone.g2)
    assert late.g2[0, 3] > early.g2[0, 3] + 0.2
    with pytest.raises(CorrelationError, match="around age 300"):
        g2_at_ages(c2, [300.0], 20.0)
