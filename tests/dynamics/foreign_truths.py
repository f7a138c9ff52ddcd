"""Samples whose laws the pair model does not contain, which a fit of theirs must admit, and others that it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from beamline_ml.dynamics import DynamicsFit
from beamline_ml.dynamics.baselines import BASELINES, Observed
from beamline_ml.records import Forecast
from beamline_ml.simulation import RingSample, scatter_into_rings

N_BOXES, PER_BOX, DENSITY = 10, 200, 12.0
"""Of the tests: 60 to 200 speckles a ring."""
REACH_UM = 0.8
DIFFUSION = 0.02
BLOCK_S, STEPS = 0.25, 20
"""Fine enough that Euler's steps do not heat what a dense cluster holds together; no pair force does that."""
EDGES = np.array([[2.2, 3.8], [4.2, 5.8], [6.2, 7.8], [8.2, 9.8]])
N_BLOCKS = 12
"""Of the run; the sample is followed for twice as many."""

Law = Callable[[float, float, float], float]
"""(r in um, cosine, crowd) of a pair -> velocity along the line away from the neighbour, um/s.

The cosine is that of the line's angle to x; ``crowd`` is how many particles are near either of the two.
"""


@numba.njit
def attraction(r: float) -> float:
    """Core and well, um/s per neighbour."""
    return 0.05 * np.exp(-((r / 0.15) ** 2)) - 0.04 * np.sin(np.pi * r / REACH_UM) ** 2


@numba.njit
def pairwise(r: float, cosine: float, crowd: float) -> float:
    """The control: a law that the model contains."""
    return attraction(r)


STRONG = 2.3
"""How many times stronger than ``attraction`` the three-body law is in an unordered sample."""


@numba.njit
def strong_pairwise(r: float, cosine: float, crowd: float) -> float:
    """The control of the three-body law: as strong at the start, and a law that the model contains."""
    return STRONG * attraction(r)


@numba.njit
def free(r: float, cosine: float, crowd: float) -> float:
    """No force."""
    return 0.0


@numba.njit
def repulsion(r: float, cosine: float, crowd: float) -> float:
    """As of screened charges."""
    return 0.12 * np.exp(-r / 0.2)


@numba.njit
def shoulder(r: float, cosine: float, crowd: float) -> float:
    """Repulsion that turns into attraction at a step, which a spline only approaches."""
    return 0.06 if r < 0.4 else -0.03 if r < 0.7 else 0.0


@numba.njit
def short_attraction(r: float, cosine: float, crowd: float) -> float:
    """Core and a weak well that ends before the others do."""
    well = np.sin(np.pi * r / 0.6) * np.exp(-r / 0.4) if r < 0.6 else 0.0
    return 0.1 * np.exp(-((r / 0.1) ** 2)) - 0.03 * well


@numba.njit
def three_body(r: float, cosine: float, crowd: float) -> float:
    """Third particles near a pair weaken its attraction, and turn it round in a dense cluster."""
    return attraction(r) * (3.0 - 0.1 * crowd)


@numba.njit
def anisotropic(r: float, cosine: float, crowd: float) -> float:
    """Dipoles in a field along x: they attract head to tail and repel side by side."""
    return 1.5 * attraction(r) * (3.0 * cosine**2 - 1.0)


def stiffening(age_s: float) -> float:
    """Mobility of a gel that sets: the viscosity grows thirtyfold during the run."""
    return 3.0 * float(np.exp(-age_s / 0.9))


@numba.njit(fastmath=True)
def _apart(x, i, j, box):  # type: ignore[no-untyped-def]
    dx, dy = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1]
    dx -= box * np.rint(dx / box)
    dy -= box * np.rint(dy / box)
    return dx, dy, max(np.sqrt(dx * dx + dy * dy), 1e-6)


@numba.njit(fastmath=True)
def _velocity(x, box, law):  # type: ignore[no-untyped-def]
    """(n, 2) um/s of the particles of one box."""
    near, velocity = np.zeros(len(x)), np.zeros(x.shape)
    for i in range(len(x)):
        for j in range(i):
            r = _apart(x, i, j, box)[2]
            if r < REACH_UM:
                weight = np.exp(-((r / 0.3) ** 2))
                near[i] += weight
                near[j] += weight
    for i in range(len(x)):
        for j in range(i):
            dx, dy, r = _apart(x, i, j, box)
            if r < REACH_UM:
                push = law(r, dx / r, near[i] + near[j]) / r
                velocity[i, 0] += push * dx
                velocity[i, 1] += push * dy
                velocity[j, 0] -= push * dx
                velocity[j, 1] -= push * dy
    return velocity


def moved(
    x: np.ndarray, box: float, law: Law, mobility: Callable[[float], float], rng: np.random.Generator
) -> np.ndarray:
    """(2 N_BLOCKS, n_boxes, per_box, 2) positions at the ends of the blocks; Euler-Maruyama."""
    h = BLOCK_S / STEPS
    out = []
    for step in range(2 * N_BLOCKS * STEPS):
        ease = mobility(step * h)
        x = x + h * ease * np.stack([_velocity(one, box, law) for one in x])
        x += np.sqrt(2.0 * DIFFUSION * ease * h) * rng.standard_normal(x.shape)
        if (step + 1) % STEPS == 0:
            out.append(x)
    return np.stack(out)


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (pairwise, strong_pairwise, free, repulsion, shoulder, short_attraction, three_body, anisotropic)
} | {"drifting_density": pairwise, "ageing_viscosity": pairwise}


def sample(name: str, seed: int = 0, n_boxes: int = N_BOXES, per_box: int = PER_BOX) -> RingSample:
    """Correlations of a sample by the name of its law in ``LAWS``."""
    rng = np.random.default_rng(seed)
    box = float(np.sqrt(per_box / DENSITY))
    start = rng.uniform(0, box, (n_boxes, per_box, 2))
    ageing = name == "ageing_viscosity"
    x = moved(start, box, LAWS[name], stiffening if ageing else (lambda age_s: 1.0), rng)
    times = BLOCK_S * np.arange(1, 2 * N_BLOCKS + 1)
    weight = None
    if name == "drifting_density":
        # Particles drift into the beam from elsewhere: at the start two fifths of them are lit, at the end all.
        enters = rng.uniform(-0.4, 0.6, (n_boxes, per_box)) / 0.6 * times[-1]
        weight = (times[:, None, None] > enters).astype(float)
    return scatter_into_rings(x, box, times, EDGES, 20.0, rng, weight)


LATER = tuple(index[np.triu_indices(2 * N_BLOCKS, 1)[1] >= N_BLOCKS] for index in np.triu_indices(2 * N_BLOCKS, 1))
"""Pairs of times whose later one nobody saw."""


@dataclass(frozen=True)
class Case:
    """A run, its fit and what is published of it."""

    truth: RingSample
    found: DynamicsFit
    ahead: Forecast

    @property
    def shown(self) -> np.ndarray:
        """F as these very speckles show it, later ones too."""
        return (self.truth.c2 - 1.0) / self.found.contrast[:, None, None]

    def miss(self, ahead: Forecast, truth: np.ndarray) -> float:
        """RMSE of a forecast's F over later pairs."""
        return _rms_later((ahead.c2 - 1.0) / self.found.contrast[:, None, None] - truth)

    def rivals(self, truth: np.ndarray) -> dict[str, float]:
        """RMSE of the simple forecasts over later pairs, each computed anew from what was measured."""
        found, contrast = self.found, self.found.contrast[:, None, None]
        seen = Observed((found.c2 - 1.0) / contrast, found.c2_err / contrast, found.times_s, found.q_inv_um)
        return {name: _rms_later(law(seen, self.ahead.times_s) - truth) for name, law in BASELINES.items()}

    def over_best(self, ahead: Forecast, truth: np.ndarray) -> float:
        """Error of a forecast over that of the simple one which turned out best."""
        return self.miss(ahead, truth) / min(self.rivals(truth).values())

    @property
    def published_over_best(self) -> float:
        return self.over_best(self.ahead, self.truth.f2)

    @property
    def coverage(self) -> float:
        """Share of the true later C2 inside the published band."""
        true = 1.0 + self.found.contrast[:, None, None] * self.truth.f2
        return float(((self.ahead.lower <= true) & (true <= self.ahead.upper))[:, LATER[0], LATER[1]].mean())


def _rms_later(off: np.ndarray) -> float:
    return float(np.sqrt((off[:, LATER[0], LATER[1]] ** 2).mean()))
