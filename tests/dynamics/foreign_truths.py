"""Samples whose laws the pair model does not contain, which a fit of theirs must admit, and others that it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics import DynamicsFit
from beamline_ml.dynamics.baselines import BASELINES, Observed
from beamline_ml.records import Forecast
from beamline_ml.simulation import RingSample, scatter_into_rings

N_BOXES, PER_BOX, DENSITY = 10, 200, 12.0
BOX_UM = float(np.sqrt(PER_BOX / DENSITY))
REACH_UM = 0.8
DIFFUSION = 0.02
BLOCK_S, STEPS = 0.25, 20
"""Fine enough that Euler's steps do not heat what a dense cluster holds together; no pair force does that."""
EDGES = np.array([[2.2, 3.8], [4.2, 5.8], [6.2, 7.8], [8.2, 9.8]])
N_BLOCKS = 12
"""Of the run; the sample is followed for twice as many."""

Law = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
"""(r, cosine, felt, age in s) of all pairs (n_boxes, n, n) -> velocity along the line away from the neighbour, um/s."""


def attraction(r: np.ndarray) -> np.ndarray:
    """Core and well, um/s per neighbour."""
    return 0.05 * np.exp(-((r / 0.15) ** 2)) - 0.04 * np.sin(np.pi * np.clip(r / REACH_UM, 0, 1)) ** 2


def pairwise(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """The control: a law that the model contains."""
    return attraction(r)


STRONG = 2.3
"""How many times stronger than ``attraction`` the three-body law is in an unordered sample."""


def strong_pairwise(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """The control of the three-body law: as strong at the start, and a law that the model contains."""
    return STRONG * attraction(r)


def free(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """No force."""
    return np.zeros_like(r)


def repulsion(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """As of screened charges."""
    return 0.12 * np.exp(-r / 0.2)


def shoulder(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """Repulsion that turns into attraction at a step, which a spline only approaches."""
    return np.where(r < 0.4, 0.06, np.where(r < 0.7, -0.03, 0.0))


def short_attraction(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """Core and a weak well that ends before the others do."""
    return 0.1 * np.exp(-((r / 0.1) ** 2)) - 0.03 * np.sin(np.pi * np.clip(r / 0.6, 0, 1)) * np.exp(-r / 0.4)


def three_body(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """Third particles near a pair weaken its attraction, and turn it round in a dense cluster."""
    near = (np.exp(-((r / 0.3) ** 2)) * felt).sum(axis=2)
    crowd = near[:, :, None] + near[:, None, :]
    return attraction(r) * (3.0 - 0.1 * crowd)


def anisotropic(r: np.ndarray, cosine: np.ndarray, felt: np.ndarray, age_s: float) -> np.ndarray:
    """Dipoles in a field along x: they attract head to tail and repel side by side."""
    return 1.5 * attraction(r) * (3.0 * cosine**2 - 1.0)


def stiffening(age_s: float) -> float:
    """Mobility of a gel that sets: the viscosity grows thirtyfold during the run."""
    return 3.0 * float(np.exp(-age_s / 0.9))


def moved(law: Law, mobility: Callable[[float], float], rng: np.random.Generator) -> np.ndarray:
    """(2 N_BLOCKS, N_BOXES, PER_BOX, 2) positions at the ends of the blocks, from a random start; Euler-Maruyama."""
    x = rng.uniform(0, BOX_UM, (N_BOXES, PER_BOX, 2))
    h = BLOCK_S / STEPS
    out = []
    for step in range(2 * N_BLOCKS * STEPS):
        ease = mobility(step * h)
        apart = x[:, :, None] - x[:, None]
        apart -= BOX_UM * np.rint(apart / BOX_UM)
        r = np.maximum(np.sqrt((apart**2).sum(axis=-1)), 1e-6)
        felt = (r < REACH_UM) & (r > 1e-5)
        push = np.where(felt, law(r, apart[..., 0] / r, felt, step * h) / r, 0.0)
        x = x + h * ease * np.einsum("bij,bijd->bid", push, apart)
        x += np.sqrt(2.0 * DIFFUSION * ease * h) * rng.standard_normal(x.shape)
        if (step + 1) % STEPS == 0:
            out.append(x)
    return np.stack(out)


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (pairwise, strong_pairwise, free, repulsion, shoulder, short_attraction, three_body, anisotropic)
} | {"drifting_density": pairwise, "ageing_viscosity": pairwise}


def sample(name: str, seed: int = 0) -> RingSample:
    """Correlations of a sample by the name of its law in ``LAWS``."""
    rng = np.random.default_rng(seed)
    ageing = name == "ageing_viscosity"
    x = moved(LAWS[name], stiffening if ageing else (lambda age_s: 1.0), rng)
    times = BLOCK_S * np.arange(1, 2 * N_BLOCKS + 1)
    weight = None
    if name == "drifting_density":
        # Particles drift into the beam from elsewhere: at the start two fifths of them are lit, at the end all.
        enters = rng.uniform(-0.4, 0.6, (N_BOXES, PER_BOX)) / 0.6 * times[-1]
        weight = (times[:, None, None] > enters).astype(float)
    return scatter_into_rings(x, BOX_UM, times, EDGES, 20.0, rng, weight)


LATER = tuple(index[np.triu_indices(2 * N_BLOCKS, 1)[1] >= N_BLOCKS] for index in np.triu_indices(2 * N_BLOCKS, 1))
"""Pairs of times whose later one nobody saw."""


@dataclass(frozen=True)
class Case:
    """A run, its fit and what is published of it."""

    truth: RingSample
    found: DynamicsFit
    ahead: Forecast

    def miss(self, f2: np.ndarray) -> float:
        """RMSE of |f|^2 over later pairs."""
        return float(np.sqrt(((f2 - self.truth.f2)[:, LATER[0], LATER[1]] ** 2).mean()))

    @property
    def published(self) -> float:
        return self.miss((self.ahead.c2 - 1.0) / self.found.contrast[:, None, None])

    @property
    def rivals(self) -> dict[str, float]:
        """Misses of the simple forecasts, each computed anew from what was measured."""
        found, contrast = self.found, self.found.contrast[:, None, None]
        seen = Observed((found.c2 - 1.0) / contrast, found.c2_err / contrast, found.times_s, found.q_inv_um)
        return {name: self.miss(law(seen, self.ahead.times_s)) for name, law in BASELINES.items()}

    @property
    def coverage(self) -> float:
        """Share of the true later C2 inside the published band."""
        true = 1.0 + self.found.contrast[:, None, None] * self.truth.f2
        return float(((self.ahead.lower <= true) & (true <= self.ahead.upper))[:, LATER[0], LATER[1]].mean())
