"""A wrong law's decays are corrected by the blocks that were seen, for later ones too; a right law's hardly at all."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations
from beamline_ml.dynamics.corrected_law import corrected_law
from tests.dynamics.speckle_runs import CONTRAST, speckle_run

Q = np.linspace(2.0, 5.0, 5)
N, N_SEEN = 24, 12
TIMES = 0.25 * np.arange(1, N + 1)
LAG, AGE = np.abs(TIMES[:, None] - TIMES), 0.5 * (TIMES[:, None] + TIMES)
LATER = np.triu_indices(N, 1)
LATER = tuple(index[LATER[1] >= N_SEEN] for index in LATER)

LAW = np.exp(-0.02 * Q[:, None, None] ** 2 * LAG)
"""What a law of free particles says."""
WRONG = [(0.5, 0.0, 0.0), (-0.5, 0.0, 0.0), (0.0, -0.8, 0.0), (0.3, -0.5, 0.3)]
"""(rate, ageing, bend) of the sample against that law."""


def sample(rate: float, ageing: float, bend: float) -> np.ndarray:
    return np.asarray(np.exp(-np.exp(rate) * (AGE / TIMES[N_SEEN - 1]) ** ageing * (-np.log(LAW)) ** (1.0 + bend)))


def seen(f2: np.ndarray, n_speckles: float, seed: int = 0) -> CorrelationObservations:
    """The first blocks, as so many speckles show them."""
    return speckle_run(f2, TIMES, N_SEEN, n_speckles, 1e-4, seed)[0]


def rms(f2: np.ndarray) -> float:
    return float(np.sqrt((f2[:, *LATER] ** 2).mean()))


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_law_missed_is_corrected_in_later_blocks(wrong: tuple[float, float, float]) -> None:
    truth = sample(*wrong)
    many, few = (corrected_law(seen(truth, n), N_SEEN, LAW, TIMES) for n in (1e6, 2000.0))
    assert rms(many - truth) < 0.15 * rms(LAW - truth)
    assert rms(few - truth) < 0.6 * rms(LAW - truth)


def test_a_right_law_is_changed_by_less_than_its_speckles_stray() -> None:
    strayed = [seen(LAW, 200.0, seed) for seed in range(4)]
    off = np.sqrt(np.mean([rms(corrected_law(run, N_SEEN, LAW, TIMES) - LAW) ** 2 for run in strayed]))
    blocks = np.triu_indices(N_SEEN, 1)
    noise = [((run.c2 - 1.0) / CONTRAST - LAW[:, :N_SEEN, :N_SEEN])[:, *blocks] for run in strayed]
    assert 0.0 < off < 0.8 * np.sqrt(np.mean(np.square(noise)))


def test_decays_that_are_over_or_have_not_begun_stay_what_they_are() -> None:
    """Also where a block is missing, and the first is at age 0."""
    still, over = np.ones((N, N)), np.eye(N)
    law = np.stack([still, over, *LAW[2:]])
    run = seen(law, 500.0)
    run.c2[:, 3] = run.c2[:, :, 3] = np.nan
    found = corrected_law(run, N_SEEN, law, TIMES - TIMES[0])
    assert np.isfinite(found).all()
    assert (found >= 0.0).all()
    assert (found <= 1.0).all()
    np.testing.assert_allclose(found[0], still, atol=0.02)
    np.testing.assert_allclose(found[1], over, atol=0.02)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    np.testing.assert_array_equal(np.diagonal(found, axis1=1, axis2=2), 1.0)
