"""A long run is published in fewer rows, and says so; the numbers are those of longer exposures."""

import numpy as np
import pytest

from beamline_ml.correlation import QMap, bad_pixels, fit_power_law, fit_relaxation, g2_from_two_time, two_time
from beamline_ml.service import analysis
from beamline_ml.service.analysis import Correlated, published_rows
from tests.correlation.speckle import counts

N = 60
PERIOD_S = 0.01


@pytest.fixture(scope="module")
def movie():
    labels = np.zeros((12, 12), int)
    labels[:, 1:] = np.arange(11) // 6 + 1
    qmap = QMap(labels, q_inv_angstrom=[1e-3, 2e-3])
    return qmap, counts(np.random.default_rng(5), qmap, N, 3.0, 8.0)


def correlated(movie, normalization):
    qmap, frames = movie
    done = two_time(frames, qmap.without(bad_pixels(frames)), normalization, PERIOD_S)
    g2 = g2_from_two_time(done)
    fits = fit_relaxation(g2, done)
    return Correlated(qmap, done, g2, fits, fit_power_law(fits), frames.mean(axis=0).astype(np.float32), "file")


def test_a_short_run_is_published_as_it_is(movie):
    whole = correlated(movie, "plain")
    rows, factor = published_rows(whole)
    assert factor == 1
    assert rows is whole.two_time


def test_a_long_run_is_binned_exactly(movie, monkeypatch):
    monkeypatch.setattr(analysis, "MOST_ROWS_PUBLISHED", 25)
    whole = correlated(movie, "plain")
    rows, factor = published_rows(whole)
    qmap, frames = movie
    longer = frames.reshape(N // 3, 3, 12, 12).sum(axis=1).astype(np.uint16)
    expected = two_time(longer, qmap.without(bad_pixels(frames)), "plain", 3 * PERIOD_S)
    assert factor == 3
    np.testing.assert_allclose(rows.c2, expected.c2, rtol=1e-6)
    np.testing.assert_allclose(rows.age_s, whole.two_time.age_s.reshape(-1, 3).mean(axis=1))


def test_a_long_run_with_static_normalisation_is_averaged(movie, monkeypatch):
    monkeypatch.setattr(analysis, "MOST_ROWS_PUBLISHED", 25)
    whole = correlated(movie, "static")
    whole.two_time.c2[:, 7, :] = whole.two_time.c2[:, :, 7] = np.nan
    rows, factor = published_rows(whole)
    assert (factor, rows.normalization) == (3, "static")
    assert rows.c2.shape == (2, 20, 20)
    block = whole.two_time.c2[1, 6:9, 12:15]
    assert rows.c2[1, 2, 4] == pytest.approx(np.nanmean(block), rel=1e-6)
    assert np.isfinite(rows.c2).all()
