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
    rates: Rates, state: Float64Array, tangent: Float64Array, times_s: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """States (n_times, ...) and tangents (n_times, ..., m) at the given times, by the classical scheme of order 4.

    Parameters
    ----------
    rates
        Time derivatives of state and tangent.
    state, tangent
        Those at times_s[0].
    """

    def both(_: torch.Tensor, now: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        rate, tangent_rate = rates(now[0].numpy(), now[1].numpy())
        return torch.from_numpy(rate), torch.from_numpy(tangent_rate)

    times = np.asarray(times_s, np.float64) - times_s[0]
    pieces = [low + (high - low) * np.arange(1, STEPS_PER_FRAME + 1) / STEPS_PER_FRAME for low, high in pairwise(times)]
    grid = torch.from_numpy(np.concatenate([np.zeros(1), *pieces]))
    begin = torch.from_numpy(np.array(state, np.float64)), torch.from_numpy(tangent)
    options = {"grid_constructor": lambda *_: grid}
    path, tangents = odeint(both, begin, torch.from_numpy(times), method="rk4", options=options)
    return path.numpy(), tangents.numpy()
