"""One optimiser step of the published recipe's batch: 4 windows x 20 frames, 500 particles, 64 x 64 pixels.

The network emits the spline of the force, torchdiffeq integrates all windows, the loss is the recipe's L1 of the
intensities, Adam takes the step. A process of its own, so that the peak of memory is that of the step.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torchdiffeq import odeint

from beamline_ml.dynamics.spline import knot_radii
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.dynamics.torch_kernel import pair_velocities
from tests.benchmarks.rows import Row, row

PUBLISHED_STEP_CPU_S = 31.7
"""CPU seconds of the published code's step, measured once on a machine of this kind; that code is not run here."""
N_WINDOWS, N_FRAMES, N_PARTICLES = 4, 20, 500
CUTOFF_UM, N_COEFFICIENTS = 0.75, 24
N_STEPS = 5


def rows() -> list[Row]:
    """Step cost and memory of a fresh process."""
    out = subprocess.run([sys.executable, "-m", __spec__.name], check=True, capture_output=True, text=True)
    step_s, memory_gb = json.loads(out.stdout.splitlines()[-1])
    return [
        row("step_cost_cpu_s", step_s, "s", PUBLISHED_STEP_CPU_S, "published code, measured earlier"),
        row("step_cost_ratio", PUBLISHED_STEP_CPU_S / step_s, "times cheaper", 30.0, "goal, at least"),
        row("step_memory_gb", memory_gb, "GB", 2.0, "goal, at most"),
    ]


def _windows() -> torch.Tensor:
    """Start states, (n_windows * n_particles, 2): discs as in the published system."""
    rng = np.random.default_rng(0)
    n = N_WINDOWS * N_PARTICLES
    radius, angle = 2.5 * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    return torch.from_numpy(radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]))


def _trajectory(start: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    def field(_t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return pair_velocities(x, coefficients, CUTOFF_UM, n_boxes=N_WINDOWS)

    times = 0.1 * torch.arange(N_FRAMES, dtype=torch.float64)
    return odeint(field, start, times, rtol=1e-6, atol=1e-6, method="dopri5")


def _intensity(x: torch.Tensor) -> torch.Tensor:
    """(..., 64, 64) patterns of (..., n, 2) particles through a Gaussian probe."""
    q = 0.75 * (torch.arange(64, dtype=torch.float64) - 32)
    phase = torch.polar(torch.ones_like(x[..., None]), -x[..., None] * q)
    weight = torch.exp(-(x**2).sum(-1) / 2.0**2)
    amplitude = (phase[..., 0, :] * weight[..., None]).transpose(-1, -2) @ phase[..., 1, :]
    return amplitude.abs() ** 2


def main() -> None:
    """Print CPU seconds of a step (the least of a few) and the peak of memory in GB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start, knots = _windows(), torch.from_numpy(knot_radii(N_COEFFICIENTS, CUTOFF_UM))[:, None]
    with torch.no_grad():
        shape = (N_FRAMES, N_WINDOWS, N_PARTICLES, 2)
        truth = _intensity(_trajectory(start, torch.from_numpy(SelfOrganising().spline(96))).reshape(shape))
    layers = [torch.nn.Linear(1, 10), torch.nn.LeakyReLU(), torch.nn.Linear(10, 10), torch.nn.LeakyReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(10, 1)).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    spent = []
    for _ in range(N_STEPS):
        began = time.process_time()
        optimiser.zero_grad()
        coefficients = 0.02 * network(knots)[:, 0]
        loss = (_intensity(_trajectory(start, coefficients).reshape(shape)) - truth).abs().mean()
        loss.backward()
        optimiser.step()
        spent.append(time.process_time() - began)
    print(json.dumps([min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))


if __name__ == "__main__":
    main()
