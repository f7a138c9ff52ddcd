"""Fit of a message network to speckle patterns: the slow path, for messages that no spline should limit.

The spline's Gauss-Newton fit says what the messages are like; the network learns its curve, and is then trained on the
photons themselves, by back-propagation through torchdiffeq and L-BFGS on the same weighted squares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from beamline_ml.dynamics.message_network import CORE, MessageNetwork
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.pattern_fit import fit_patterns
from beamline_ml.dynamics.pattern_law import PatternFit
from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering, expected_photons
from beamline_ml.dynamics.photon_squares import DARK, HUBER
from beamline_ml.dynamics.spline import spline_deviation
from beamline_ml.dynamics.tangent_motion import shortest_spacing_s
from beamline_ml.dynamics.torch_patterns import torch_intensity
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

SHARE_OF_SPLINE = 0.4
"""Part of the time budget that the first look through a spline may take."""
N_CURVE = 256
CURVE_STEPS = 4000
CURVE_RATE, FINE_RATE = 1e-2, 2e-3
POLISH_STEPS = 2000
"""A quarter of both left errors of the curve that were larger than those of the photons."""
SMALLEST_H = 1e-2
MAX_ROUNDS = 4
"""More gained nothing that shows in the force."""
PATIENCE = 2
"""Rounds without progress that end the training."""
PROGRESS = 1e-5
ROUND = 10
"""Iterations of L-BFGS between two changes of the weights, which take up to half as many evaluations more."""
NEAR = 0.05
"""Of the cutoff: nearer, where few pairs come, the spline may be anything, and does not say how strong forces are."""
COST_OF_DERIVATIVE = 4.0
"""Times that of the patterns alone."""


@dataclass(frozen=True)
class NetworkFit:
    """Messages learnt by a network, and the patterns that they predict; asked as a ``PatternFit`` is."""

    network: MessageNetwork
    covariance: Float64Array
    """Of the spline fit to the same frames: how far photons alone leave the force open."""
    cutoff_um: float
    chi2: float
    """Mean squared weighted residual; 1 where photons alone explain it, less where they are few."""
    scattering: PatternScattering
    start_um: Float64Array
    times_s: Float64Array
    used_frames: int
    photons_per_intensity: float
    mode: str = "patterns; start known; a network on every edge"
    warnings: tuple[str, ...] = ()

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Radial force (um/s) and its standard deviation at r."""
        r = np.asarray(r_um, np.float64)
        with torch.no_grad():
            force = self.network.message(torch.from_numpy(r)).numpy()
        return np.where(r < self.cutoff_um, force, 0.0), spline_deviation(r, self.covariance, self.cutoff_um)

    def positions(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Particles at the given times, (n_times, n, 2) um; another start asks about another sample of its kind."""
        start = self.start_um if start_um is None else start_um
        longest_s = shortest_spacing_s(self.times_s)
        with torch.no_grad():
            x = self.network.positions(torch.from_numpy(start), np.asarray(times_s, np.float64), longest_s)
        return np.asarray(x.numpy(), np.float64)

    def patterns(self, times_s: Float64Array, start_um: Float64Array | None = None) -> Float64Array:
        """Expected photons, (n_times, size, size), at any times from the first one on."""
        x = self.positions(times_s, start_um)
        return expected_photons(self.scattering, self.photons_per_intensity, x)


def fit_network(
    observations: PatternObservations,
    model: DynamicsModel,
    time_budget_s: float,
    seed: int = 0,
    state: NetworkFit | None = None,
) -> NetworkFit:
    """Train a message network on a run of patterns, from what a spline finds or from an earlier network.

    Raises
    ------
    NotIdentifiable, FitRefused
        As :func:`~beamline_ml.dynamics.pattern_fit.fit_patterns`.
    """
    deadline = time.monotonic() + time_budget_s
    spline = fit_patterns(observations, model, SHARE_OF_SPLINE * time_budget_s, seed)
    observations = replace(observations, start_um=spline.start_um)  # which that fit may have corrected
    if state is None:
        network = _like(spline, model.messages == "logistic_network", seed)
    else:
        network = MessageNetwork.from_arrays(state.network.to_arrays())
    chi2, said = _trained(network, _Photons(observations, spline.photons_per_intensity), deadline)
    return NetworkFit(
        network=network,
        covariance=spline.covariance,
        cutoff_um=spline.cutoff_um,
        chi2=chi2,
        scattering=observations.scattering,
        start_um=observations.start_um,
        times_s=observations.times_s,
        used_frames=len(observations.times_s),
        photons_per_intensity=spline.photons_per_intensity,
        warnings=spline.warnings + said,
    )


def _like(spline: PatternFit, logistic: bool, seed: int) -> MessageNetwork:
    """A network that has learnt the curve of a spline."""
    r = np.linspace(CORE, 1.0, N_CURVE) * spline.cutoff_um
    force, error = spline.kernel(r)
    strongest = float(np.abs(force[r > NEAR * spline.cutoff_um]).max())
    network = MessageNetwork(spline.cutoff_um, max(strongest, 1e-30), logistic, seed)
    wanted, at = torch.from_numpy(force), torch.from_numpy(r)
    # Where the photons say nothing the spline's curve is its prior, which the network need not share.
    trust = r / (error**2 + (0.02 * network.velocity_um_per_s) ** 2)
    weight = torch.from_numpy(trust / trust.sum() / network.velocity_um_per_s**2)

    def misfit() -> torch.Tensor:
        return (weight * (network.message(at) - wanted) ** 2).sum()

    if logistic:
        _learn_h(network, at, force)
    _learn(network, misfit, FINE_RATE if logistic else CURVE_RATE)
    _polish(network, misfit)
    return network


def _learn_h(network: MessageNetwork, at: torch.Tensor, force: Float64Array) -> None:
    """Bring h near what the force asks for: from elsewhere the force has no slope that leads there."""
    h = _start_of_h(network, at.numpy(), force)
    weight = torch.where(h > 3.0 * SMALLEST_H, 1.0, 0.02) * at
    weight[-1] = 0.0

    def misfit() -> torch.Tensor:
        off = torch.log(network.h(at) + SMALLEST_H) - torch.log(h + SMALLEST_H)
        return (weight * off**2).sum() / weight.sum()

    _learn(network, misfit, CURVE_RATE)


def _start_of_h(network: MessageNetwork, r_um: Float64Array, force: Float64Array) -> torch.Tensor:
    """The h > 0 whose h (1 - h) gives a force: above 1/2 up to the strongest pull, below it beyond."""
    s = r_um / network.cutoff_um
    pull = -force / s / network.velocity_um_per_s
    strongest = int(pull.argmax())
    rate = 4.0 * max(float(pull[strongest]), 1e-3)
    with torch.no_grad():
        network.log_rate.fill_(float(np.log(rate)))
    root = np.sqrt(np.maximum(1.0 - 4.0 * pull / rate, 0.0))
    h = np.where(np.arange(len(r_um)) < strongest, 1.0 + root, 1.0 - root) / 2.0
    return torch.from_numpy(np.maximum(h, SMALLEST_H))


def _learn(network: MessageNetwork, misfit: Callable[[], torch.Tensor], rate: float) -> None:
    optimiser = torch.optim.Adam(network.parameters(), rate)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, CURVE_STEPS)
    for _ in range(CURVE_STEPS):
        _slope(optimiser, misfit)
        optimiser.step()
        slower.step()


def _slope(optimiser: torch.optim.Optimizer, misfit: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The misfit, its derivatives left with the optimiser's parameters."""
    optimiser.zero_grad()
    loss = misfit()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def _polish(network: MessageNetwork, misfit: Callable[[], torch.Tensor]) -> None:
    """The last factor of ten; weights that are worse than before are not kept."""
    before, kept = float(misfit().detach()), network.to_arrays()
    optimiser = torch.optim.LBFGS(
        network.parameters(),
        max_iter=POLISH_STEPS,
        max_eval=2 * POLISH_STEPS,
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
        history_size=50,
        line_search_fn="strong_wolfe",
    )
    optimiser.step(lambda: _slope(optimiser, misfit))  # type: ignore[no-untyped-call]
    if not float(misfit().detach()) < before:
        _set(network, kept)


class _Photons:
    """How far the photons lie from a network's patterns."""

    def __init__(self, observations: PatternObservations, photons_per_intensity: float) -> None:
        self._scattering, self._times_s = observations.scattering, observations.times_s
        self._used = torch.from_numpy(observations.scattering.used)
        self._counts = torch.from_numpy(np.asarray(observations.counts, np.float64))[:, self._used]
        self._start_um = torch.from_numpy(observations.start_um)
        self._scale = photons_per_intensity

    def expected(self, network: MessageNetwork) -> torch.Tensor:
        """(n_frames, n_used) photons."""
        x = network.positions(self._start_um, self._times_s)
        return self._scale * torch_intensity(self._scattering, x)[:, self._used].double()

    def misfit(self, expected: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Mean weighted square of the differences, with a Huber cut."""
        residual = (self._counts - expected) / torch.sqrt(variance)
        size = residual.abs()
        return torch.where(size < HUBER, residual**2, HUBER * (2.0 * size - HUBER)).mean()

    def of(self, network: MessageNetwork) -> tuple[float, torch.Tensor]:
        """Misfit, and the variances that these patterns say the photons have."""
        with torch.no_grad():
            expected = self.expected(network)
            return float(self.misfit(expected, expected + DARK)), expected + DARK


def _trained(network: MessageNetwork, photons: _Photons, deadline: float) -> tuple[float, tuple[str, ...]]:
    """Train until nothing is gained or the time is over; the best weights stay, and their misfit is returned."""
    (best, variance), kept, idle = photons.of(network), network.to_arrays(), 0
    said: tuple[str, ...] = ()
    for _ in range(MAX_ROUNDS):
        if idle == PATIENCE or time.monotonic() > deadline:
            break
        try:
            _improve(network, photons, variance, deadline)
            found, variance_now = photons.of(network)
        except FitRefused as refusal:  # a step too long; what was there before it stays
            said = (f"The network's training ended early: {refusal}",)
            break
        idle = 0 if found < best * (1.0 - PROGRESS) else idle + 1
        if not found < best:
            break
        best, variance, kept = found, variance_now, network.to_arrays()
    _set(network, kept)
    if time.monotonic() > deadline:
        said = ("The time budget ended before the network stopped improving.",)
    return best, said


def _improve(network: MessageNetwork, photons: _Photons, variance: torch.Tensor, deadline: float) -> None:
    """A few steps with the weights held, which the derivative must not see."""
    began = time.monotonic()
    photons.of(network)
    affordable = int((deadline - time.monotonic()) / (COST_OF_DERIVATIVE * (time.monotonic() - began)))
    if affordable < 1:
        return
    optimiser = torch.optim.LBFGS(
        network.parameters(), max_iter=ROUND, max_eval=min(affordable, 3 * ROUND // 2), line_search_fn="strong_wolfe"
    )
    optimiser.step(  # type: ignore[no-untyped-call]
        lambda: _slope(optimiser, lambda: photons.misfit(photons.expected(network), variance))
    )


def _set(network: MessageNetwork, weights: Mapping[str, NDArray[Any]]) -> None:
    network.load_state_dict(MessageNetwork.from_arrays(weights).state_dict())
