"""What the fit may choose from: a graph network whose messages pass through a radial B-spline.

Particles are nodes, neighbours within the cutoff share an edge, and the message along an edge is f(r) times its unit
vector. Whatever computes f, the integrator sees only the coefficients of its spline (the kernel bottleneck), and every
derivative passes through those few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from beamline_ml.errors import FitRefused

MESSAGES = ("spline", "network", "logistic_network")


@dataclass(frozen=True, slots=True)
class DynamicsModel:
    """Settings of the model and its fit; the defaults suit a run of a few hundred frames on a small computer."""

    n_coefficients: int = 12
    """B-spline coefficients of the radial force."""
    cutoff_um: float | None = None
    """Range of the force; None: 3.2 mean particle distances, at least what q_max can resolve."""
    interacting: bool = True
    """False fits free Brownian motion only."""
    n_boxes: int = 8
    """Independent periodic boxes of surrogate particles in each ensemble member."""
    n_per_box: int = 300
    """Surrogate particles per box."""
    n_members: int = 32
    """Ensemble members: force laws drawn from what is known so far, each with surrogates and noise of its own."""
    n_forecast_members: int = 16
    """Members that are followed beyond the run for the forecast's mean and band."""
    messages: str = "spline"
    """What computes the messages of a fit of patterns: "spline", "network" (a perceptron on every edge, which is slow),
    or "logistic_network" (the same in the form -rate r h (1 - h))."""
    steps_per_time: int = 6
    """Integration steps per time block."""
    n_threads: int = 2
    """Members simulated side by side; each uses one core."""

    def __post_init__(self) -> None:
        if self.n_coefficients < 4 or self.n_boxes < 1 or self.n_per_box < 2:
            raise FitRefused(
                f"A model needs at least 4 coefficients, one box and 2 particles a box: {self}.",
                "Raise the number that is too small.",
            )
        if self.n_members < self.n_coefficients + 6 or self.n_forecast_members < 4 or self.n_threads < 1:
            raise FitRefused(
                f"{self.n_members} members cannot tell {self.n_coefficients} coefficients apart.",
                "Use at least n_coefficients + 6 members, 4 forecast members and one thread.",
            )
        if self.messages not in MESSAGES:
            raise FitRefused(f"Messages of kind {self.messages!r} are unknown.", f"Choose from {', '.join(MESSAGES)}.")
        if self.cutoff_um is not None and not self.cutoff_um > 0:
            raise FitRefused(f"The cutoff {self.cutoff_um} um is not positive.", "Give a positive range or None.")
