"""Counting errors of a simulated ring's C2 are those with which counts scatter around the C2 of its intensities."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.simulation import scatter_into_rings

BOX_UM, N_TIMES = 6.0, 4
EDGES = np.array([[4.0, 6.0]])
LATER = np.triu_indices(N_TIMES, k=1)


@pytest.mark.parametrize("photons", [0.1, 1.0, 10.0])
def test_counts_scatter_by_the_counting_error(photons: float) -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(rng.uniform(0.0, BOX_UM, (1, 6, 100, 2)), N_TIMES, axis=0)
    times = np.arange(1.0, N_TIMES + 1.0)
    seen = [scatter_into_rings(still, BOX_UM, times, EDGES, photons, np.random.default_rng(k)) for k in range(300)]
    c2, err = (np.array([[one.c2[0][LATER], one.c2_err[0][LATER]] for one in seen])[:, k] for k in (0, 1))
    assert c2.std() == pytest.approx(np.sqrt((err**2).mean()), rel=0.15)
