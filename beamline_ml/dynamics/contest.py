"""Who forecasts this very run best? Everybody sees its beginning and is asked about the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.baselines import BASELINES, Observed
from beamline_ml.dynamics.s_baselines import S_BASELINES
from beamline_ml.records import Float64Array

NEURAL_ODE = "neural_ode"
CORRECTED = "neural_ode_corrected"
"""The same law, its decays corrected by what it missed of the blocks seen (``corrected_law``)."""
LAWS = (NEURAL_ODE, CORRECTED)
SMOOTH_ONLY = ("gp", "dmd")
"""Curves that assume no law of ageing, but that what is near is alike: further out they may go anywhere."""


@dataclass(frozen=True)
class Contest:
    """Rolling-origin scores, smaller is better."""

    scores: dict[str, float]
    """RMSE of F on entries whose later time was held out, over all origins, by competitor."""
    s_scores: dict[str, float]
    """RMSE of log S on held-out times, by competitor."""
    margin: float = 0.0
    """How far the neural ODE's score may be behind the best curve's by chance: one standard error of the difference
    of their mean squares, over rings and origins, on the scale of the scores."""
    corrected_margin: float = 0.0
    """The same of the corrected law; 0 without one."""


def published(scores: dict[str, float], margin: float = 0.0) -> str:
    """Whose forecast is published.

    The contest looks less far ahead than a forecast does, and what is behind the best in it by no more than ``margin``
    may be so by chance. There the force goes before every curve, because it knows what drives the sample, and a curve
    with a law of ageing before those that are only smooth.

    Parameters
    ----------
    scores
        Of all competitors, smaller is better; nobody: the neural ODE.
    margin
        As in :class:`Contest`.
    """
    within = [name for name, score in scores.items() if score <= min(scores.values()) + margin]
    return min(within, key=lambda name: (_after(name), scores[name]), default=NEURAL_ODE)


def _after(name: str) -> int:
    """Whose turn it is among those within chance, the first one first."""
    return int(name != NEURAL_ODE) + int(name in SMOOTH_ONLY)


def best_curve(scores: dict[str, float]) -> str | None:
    """The simple forecast with the least score; None without any."""
    return min((name for name in scores if name not in LAWS), key=lambda name: scores[name], default=None)


def held_out(n_train: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices t1 < t2 with n_train <= t2 < horizon."""
    first, second = np.triu_indices(horizon, k=1)
    late = second >= n_train
    return first[late], second[late]


def run_contest(
    observed: Observed,
    log_s: Float64Array,
    blind: dict[int, tuple[Float64Array, Float64Array]],
    corrected: dict[int, Float64Array],
) -> Contest:
    """Score the neural ODE's blind predictions and every baseline on the same held-out entries.

    Parameters
    ----------
    observed
        Measured F = (C2 - 1) / contrast of the whole run.
    log_s
        (n_q, n) measured log S.
    blind
        For each origin (number of blocks seen): the neural ODE's f^2 (n_q, h, h) and log S (n_q, h) up to a horizon h.
    corrected
        For the same origins and horizons f^2 of the corrected law; for none: it does not compete.
    """
    misses: dict[str, list[Float64Array]] = {name: [] for name in (*LAWS, *BASELINES)}
    s_misses: dict[str, list[Float64Array]] = {name: [] for name in (NEURAL_ODE, *S_BASELINES)}
    for n_train, (ode_f2, ode_log_s) in blind.items():
        horizon = ode_f2.shape[1]
        first, second = held_out(n_train, horizon)
        measured = observed.f[:, first, second]
        truth = np.where(np.isfinite(measured), measured, np.nan)
        misses[NEURAL_ODE].append(ode_f2[:, first, second] - truth)
        if n_train in corrected:
            misses[CORRECTED].append(corrected[n_train][:, first, second] - truth)
        for name, baseline in BASELINES.items():
            guess = baseline(observed.until(n_train), observed.times_s[:horizon])
            misses[name].append(guess[:, first, second] - truth)
        # The scale of S is a nuisance: every forecast starts where the training data end.
        shift = (log_s[:, :n_train] - ode_log_s[:, :n_train])[:, -3:].mean(axis=1, keepdims=True)
        s_truth = log_s[:, n_train:horizon]
        s_misses[NEURAL_ODE].append((ode_log_s[:, n_train:] + shift - s_truth).ravel())
        for name, s_baseline in S_BASELINES.items():
            s_guess = s_baseline(log_s, n_train, observed.times_s, observed.times_s[:horizon])
            s_misses[name].append((s_guess[:, n_train:horizon] - s_truth).ravel())
    scores = _rms(misses)
    return Contest(scores, _rms(s_misses), *(_margin(law, scores, misses) for law in LAWS))


def _margin(law: str, scores: dict[str, float], misses: dict[str, list[Float64Array]]) -> float:
    """From the mean squared misses of every ring and origin, which two forecasts share as a pair."""
    best = best_curve(scores)
    if best is None or law not in scores:
        return 0.0
    lead = _ring_means(misses[law]) - _ring_means(misses[best])
    if lead.size < 2:
        return 0.0
    standard_error = float(lead.std(ddof=1) / np.sqrt(lead.size))
    return float(np.sqrt(scores[best] ** 2 + standard_error)) - scores[best]


def _ring_means(misses: list[Float64Array]) -> Float64Array:
    """Mean squares of the rings (n_q, n_pairs) of all origins, without rings that were never measured."""
    rings = [ring[np.isfinite(ring).any(axis=1)] for ring in misses]
    return np.concatenate([np.nanmean(ring**2, axis=1) for ring in rings])


def _rms(misses: dict[str, list[Float64Array]]) -> dict[str, float]:
    """Over all that was measured; NaN is what was not."""
    return {
        name: float(np.sqrt(np.nanmean(np.concatenate([part.ravel() for part in parts]) ** 2)))
        for name, parts in misses.items()
        if len(parts) > 0
    }
