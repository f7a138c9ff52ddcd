"""Motion and its derivatives to the parameters, integrated together by torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torchdiffeq import odeint

from beamline_ml.records import Float64Array

STEPS_PER_FRAME = 2

Rates = Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]]


def motion_with_tangents(
    rates: Rates, state: Float64Array, tangent: Float64Array, times_s: Float64Array, longest_s: float = np.inf
) -> tuple[Float64Array, Float64Array]:
    """States (n_times, ...) and tangents (n_times, ..., m) at the given times, by the classical scheme of order 4.

    Parameters
    ----------
    rates
        Time derivatives of state and tangent.
    state, tangent
        Those at times_s[0].
    longest_s
        Between times farther apart than this there are as many more steps.
    """

    def both(_: torch.Tensor, now: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        rate, tangent_rate = rates(now[0].numpy(), now[1].numpy())
        return torch.from_numpy(rate), torch.from_numpy(tangent_rate)

    times = np.asarray(times_s, np.float64) - times_s[0]
    grid = torch.from_numpy(integration_grid(times, longest_s, STEPS_PER_FRAME))
    begin = torch.from_numpy(np.array(state, np.float64)), torch.from_numpy(tangent)
    options = {"grid_constructor": lambda *_: grid}
    path, tangents = odeint(both, begin, torch.from_numpy(times), method="rk4", options=options)
    return path.numpy(), tangents.numpy()


def integration_grid(times_s: Float64Array, longest_s: float, steps: int) -> Float64Array:
    """Times at which to integrate: ``steps`` steps from each time to the next, more where these are farther apart."""
    pieces = [np.asarray(times_s[:1], np.float64)]
    for low, high in pairwise(times_s):
        n = steps * max(1, int(np.ceil((high - low) / longest_s - 1e-6)))
        pieces.append(np.linspace(low, high, n + 1)[1:])
    return np.concatenate(pieces)


def shortest_spacing_s(times_s: Float64Array) -> float:
    """Of the times at which a run was seen: asked about other times, its fit must not integrate more coarsely."""
    return float(np.diff(times_s).min()) if len(times_s) > 1 else np.inf
