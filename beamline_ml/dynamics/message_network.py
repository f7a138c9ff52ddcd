"""A network on every edge of the graph: the general message, without the bottleneck of a spline.

dx_i/dt = sum_j m(r_ij) (x_i - x_j) / r_ij, where m comes from a small multilayer perceptron that sees the distance. It
is evaluated for every pair at every step, which costs some hundred times what a spline costs. The logistic form
m = -rate r h (1 - h), h > 0 from the network, is that of N. Andrejevic et al., npj Comput. Mater. 10, 225 (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint
from torchdiffeq import odeint

from beamline_ml.dynamics.neighbours import build_pairs
from beamline_ml.dynamics.tangent_motion import integration_grid
from beamline_ml.errors import FitRefused, ResultError
from beamline_ml.records import Float64Array

HIDDEN = (10, 10, 10, 10)
CORE = 0.02
"""Distances below this part of the cutoff count as this: forces that diverge stay finite."""
START_RATE = 4.0
"""Rate of the logistic form in units of velocity / cutoff: h (1 - h) is at most 1/4."""


class MessageNetwork(torch.nn.Module):
    """Pair velocities from a perceptron of the distance, zero at the cutoff and beyond.

    Parameters
    ----------
    cutoff_um
        Range of the messages.
    velocity_um_per_s
        What a message of 1 means: about the largest velocity that one neighbour lends.
    logistic
        Whether messages have the form -rate r h (1 - h), with ``rate`` learnt as well.
    seed
        Of the first weights.
    """

    def __init__(self, cutoff_um: float, velocity_um_per_s: float, logistic: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.cutoff_um, self.velocity_um_per_s, self.logistic = cutoff_um, velocity_um_per_s, logistic
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = (2, *HIDDEN, 1)
            layers: list[torch.nn.Module] = []
            for n_in, n_out in pairwise(widths):
                layers += [torch.nn.Linear(n_in, n_out), torch.nn.SiLU()]
        self.perceptron = torch.nn.Sequential(*layers[:-1])
        self.log_rate = torch.nn.Parameter(torch.tensor(float(np.log(START_RATE))), requires_grad=logistic)

    def message(self, r_um: torch.Tensor) -> torch.Tensor:
        """Velocity in um/s away from a neighbour at distance ``r_um`` (any shape); negative attracts."""
        s = (r_um / self.cutoff_um).clamp(CORE, 1.0)
        if not self.logistic:
            return self.velocity_um_per_s * (1.0 - s**2) ** 2 * self._seen(s)
        h = self.h(r_um)
        return -self.velocity_um_per_s * torch.exp(self.log_rate).to(s.dtype) * s * h * (1.0 - h)

    def h(self, r_um: torch.Tensor) -> torch.Tensor:
        """What the logistic form is made of: about cutoff / r, positive, 0 at the cutoff."""
        s = (r_um / self.cutoff_um).clamp(CORE, 1.0)
        return (1.0 - s**2) ** 2 / s * torch.nn.functional.softplus(self._seen(s))

    def _seen(self, s: torch.Tensor) -> torch.Tensor:
        features = torch.stack([s, 0.2 / s], dim=-1).to(self.log_rate.dtype)
        return self.perceptron(features).squeeze(-1).to(s.dtype)

    def velocities(self, x_um: torch.Tensor) -> torch.Tensor:
        """(n, 2) velocities in um/s of particles in open space, each the sum of its neighbours' messages."""
        pairs = build_pairs(x_um.detach().cpu().numpy(), 0.0, self.cutoff_um)
        first, second = (torch.from_numpy(end).long().to(x_um.device) for end in (pairs.first, pairs.second))
        step = x_um[first] - x_um[second]
        r = torch.linalg.vector_norm(step, dim=1).clamp(min=1e-12)
        push = (self.message(r) / r)[:, None] * step
        return torch.zeros_like(x_um).index_add(0, first, push).index_add(0, second, -push)

    def positions(self, start_um: torch.Tensor, times_s: Float64Array, longest_s: float = np.inf) -> torch.Tensor:
        """(n_times, n, 2) um, from ``start_um`` at times_s[0]; one Runge-Kutta step from each time to the next.

        Between times farther apart than ``longest_s`` there are as many more steps.

        Only the positions at these times are kept for the derivative; what lies between is computed again.

        Raises
        ------
        FitRefused
            When particles do not stay at finite places.
        """
        x = {float(times_s[0]): start_um}
        at = start_um
        for low, high in pairwise(integration_grid(times_s, longest_s, 1)):
            at = checkpoint(self._step, at, float(high - low), use_reentrant=False)
            if not torch.isfinite(at).all():
                raise FitRefused("The particles do not stay at finite places.", "Use shorter steps between frames.")
            x[float(high)] = at
        return torch.stack([x[float(t)] for t in times_s])

    def _step(self, x_um: torch.Tensor, duration_s: float) -> torch.Tensor:
        times = torch.tensor([0.0, duration_s], dtype=x_um.dtype)
        return odeint(lambda _, x: self.velocities(x), x_um, times, method="rk4")[-1]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and form as named arrays; :meth:`from_arrays` makes the same network of them."""
        form = np.array([self.cutoff_um, self.velocity_um_per_s, float(self.logistic)])
        return {"form": form} | {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MessageNetwork:
        """Inverse of :meth:`to_arrays`.

        Raises
        ------
        ResultError
            When an array is missing.
        """
        try:
            cutoff_um, velocity_um_per_s, logistic = arrays["form"]
            network = cls(float(cutoff_um), float(velocity_um_per_s), bool(logistic))
            weights = {name: torch.from_numpy(np.array(arrays[name])) for name in network.state_dict()}
        except KeyError as missing:
            raise ResultError(f"The stored network lacks {missing}.", "Fit again.") from missing
        network.load_state_dict(weights)
        return network
