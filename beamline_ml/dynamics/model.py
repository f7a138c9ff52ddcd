"""What the fit may choose from: a graph network whose messages pass through a radial B-spline.

Particles are nodes, neighbours within the cutoff share an edge, and the message along an edge is f(r) times its unit
vector. Whatever computes f, the integrator sees only the coefficients of its spline (the kernel bottleneck), and every
derivative passes through those few numbers. For whole patterns there may be more terms: a dependence of the force on
the direction, a drift, and what is known of either beforehand (a universal differential equation: known terms, learnt
rest; Rackauckas et al., arXiv:2001.04385).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.one_body import OneBody
from beamline_ml.dynamics.spline import fit_spline, spline_spacing
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

MESSAGES = ("spline", "network", "logistic_network")
DRIFT_PARAMETERS = {"none": 0, "uniform": 2, "linear": 6}


@dataclass(frozen=True, slots=True)
class DynamicsModel:
    """Settings of the model and its fit; the defaults suit a run of a few hundred frames on a small computer."""

    n_coefficients: int = 12
    """B-spline coefficients of the radial force."""
    cutoff_um: float | None = None
    """Range of the force; None: 3.2 mean particle distances, at least what q_max can resolve."""
    interacting: bool = True
    """False fits free Brownian motion only."""
    n_boxes: int = 2
    """Independent periodic boxes of surrogate particles in each ensemble member."""
    n_per_box: int = 1200
    """Surrogate particles per box. Few large boxes are better than many small ones: rings at small q hold more of the
    wave vectors that fit into a box."""
    n_members: int = 32
    """Ensemble members: force laws drawn from what is known so far, each with surrogates and noise of its own."""
    n_forecast_members: int = 16
    """Members that are followed beyond the run for the forecast's mean and band."""
    messages: str = "spline"
    """What computes the messages of a fit of patterns: "spline", "network" (a perceptron on every edge, which is slow),
    or "logistic_network" (the same in the form -rate r h (1 - h))."""
    drift: str = "none"
    """What moves every particle beside its neighbours, in fits of patterns: "none", "uniform" (the same velocity
    everywhere), or "linear" (and a gradient of it: shear, rotation, a trap, expansion)."""
    angular_harmonics: int = 0
    """Fits of patterns: how many even harmonics, cos 2 m phi and sin 2 m phi, of a pair's direction phi in the
    laboratory the force may have beside its radial part."""
    known_force: Callable[[Float64Array], Float64Array] | None = None
    """Radial force in um/s, (n,), at distances (n,) in um, as far as it is known: the fit starts there, and learns the
    rest. Where the density is not known, it is the force times density over the assumed one. A fit of patterns that
    goes on with new frames keeps what it knew at its beginning."""
    known_drift: OneBody | None = None
    """Fits of patterns: drift as far as it is known. What ``drift`` lets the fit find starts there, the rest stays."""
    steps_per_time: int = 4
    """Integration steps (Heun's method) per time block."""
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
        self._check_terms()
        if self.cutoff_um is not None and not self.cutoff_um > 0:
            raise FitRefused(f"The cutoff {self.cutoff_um} um is not positive.", "Give a positive range or None.")

    def _check_terms(self) -> None:
        if self.drift not in DRIFT_PARAMETERS:
            raise FitRefused(f"A drift {self.drift!r} is unknown.", f"Choose from {', '.join(DRIFT_PARAMETERS)}.")
        if self.angular_harmonics < 0:
            raise FitRefused(f"{self.angular_harmonics} angular harmonics are negative.", "Give their number, or 0.")
        if self.terms and self.messages != "spline":
            raise FitRefused(
                f"Messages of kind {self.messages!r} do not go with {', '.join(self.terms)}.", 'Use messages="spline".'
            )
        if self.known_force is not None and not self.interacting:
            raise FitRefused("A model without interaction has no known_force.", "Leave interacting or known_force out.")

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the settings that ask for more than an unknown radial force."""
        asked = {
            "drift": self.drift != "none",
            "known_drift": self.known_drift is not None,
            "angular_harmonics": self.angular_harmonics > 0,
            "known_force": self.known_force is not None,
        }
        return tuple(name for name, is_asked in asked.items() if is_asked)

    def known_coefficients(self, cutoff_um: float) -> Float64Array:
        """(n_coefficients,) um/s: ``known_force`` on the spline, zeros where there is none.

        A force that grows without bound at contact is followed down to half a knot spacing.

        Raises
        ------
        FitRefused
            When the known force is not finite there, or not one number for each distance.
        """
        force = self.known_force
        if force is None:
            return np.zeros(self.n_coefficients)

        def checked(r_um: Float64Array) -> Float64Array:
            value = np.asarray(force(r_um), np.float64)
            if value.shape != r_um.shape or not np.isfinite(value).all():
                raise FitRefused(
                    f"known_force gives numbers of shape {value.shape} at {len(r_um)} distances, or not finite ones.",
                    f"Give a finite velocity in um/s for each distance between 0 and {cutoff_um:.3g} um.",
                )
            return value

        nearest_um = 0.5 * spline_spacing(self.n_coefficients, cutoff_um)
        return fit_spline(checked, self.n_coefficients, cutoff_um, nearest_um)
