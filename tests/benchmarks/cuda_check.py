"""``python -m tests.benchmarks.cuda_check``: does a CUDA device give what the processor gives, and how fast is it?

Velocities and their reverse derivative of the pair forces, patterns, and a trajectory of twenty frames are compared in
double and single precision with the fused kernel on the processor, then timed. Ends with status 0 when all agree, 1
when something differs, 3 when there is no CUDA device, so that nothing was checked.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torchdiffeq import odeint

from beamline_ml.dynamics import PatternScattering
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.dynamics.torch_kernel import dense_velocities, pair_velocities
from beamline_ml.dynamics.torch_patterns import torch_intensity

SYSTEM = SelfOrganising()
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3}
"""Largest difference over the largest value."""
N_REPEATS = 5
NO_DEVICE = 3


def scene(n: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Particles at the published density (n, 2) and spline coefficients."""
    edge = float(np.sqrt(n / SYSTEM.number_density_per_um2))
    x = np.random.default_rng(0).uniform(0, edge, (n, 2))
    return torch.tensor(x, dtype=dtype, device=device), torch.tensor(SYSTEM.spline(24), dtype=dtype, device=device)


def _with_gradients(velocities: Callable[..., torch.Tensor], x: torch.Tensor, c: torch.Tensor) -> list[torch.Tensor]:
    x, c = x.clone().requires_grad_(), c.clone().requires_grad_()
    u = velocities(x, c, SYSTEM.cutoff_um)
    weight = torch.linspace(-1.0, 1.0, u.numel(), dtype=u.dtype, device=u.device).reshape(u.shape)
    return [u.detach(), *torch.autograd.grad((u * weight).sum(), (x, c))]


def trajectory(velocities: Callable[..., torch.Tensor], x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Twenty frames, a tenth of the system's time unit apart."""
    times = 0.1 * torch.arange(20, dtype=x.dtype, device=x.device)
    return odeint(lambda _t, at: velocities(at, c, SYSTEM.cutoff_um), x, times, method="rk4")


def differences(device: str, dtype: torch.dtype, n: int = 300) -> dict[str, float]:
    """Largest difference over the largest value, between the device's torch operations and the fused kernel here."""
    here, there = scene(n, torch.float64, "cpu"), scene(n, dtype, device)
    fused, dense = _with_gradients(pair_velocities, *here), _with_gradients(dense_velocities, *there)
    found = {
        name: _apart(a, b)
        for name, a, b in zip(("velocity", "to positions", "to coefficients"), fused, dense, strict=True)
    }
    optics = PatternScattering(64, 0.75, probe_um=2.0)
    found["pattern"] = _apart(torch_intensity(optics, here[0][None]), torch_intensity(optics, there[0][None]))
    found["trajectory"] = _apart(trajectory(pair_velocities, *here), trajectory(dense_velocities, *there))
    return found


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).abs().max() / a.abs().max())


def seconds(work: Callable[[], object], device: str) -> float:
    """Least wall time of a few repeats, the device waited for."""
    spent = []
    for _ in range(N_REPEATS + 1):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return min(spent[1:])


def check(device: str) -> bool:
    """Print differences; True when all are within tolerance. Patterns are single precision everywhere."""
    good = True
    for dtype, tolerance in TOLERANCES.items():
        for name, value in differences(device, dtype).items():
            allowed = TOLERANCES[torch.float32] if name == "pattern" else tolerance
            good &= value <= allowed
            verdict = "equal" if value <= allowed else "DIFFERENT"
            print(f"{dtype!s:>14} {name:>16} {value:9.2e} (allowed {allowed:.0e}) {verdict}")
    return good


def timings(device: str) -> None:
    """Print wall times of one right-hand side with its derivative, processor and device."""
    for n in (500, 2000, 4096):
        here, there = scene(n, torch.float64, "cpu"), scene(n, torch.float32, device)
        fused = seconds(lambda at=here: _with_gradients(pair_velocities, *at), "cpu")
        dense = seconds(lambda at=there: _with_gradients(dense_velocities, *at), device)
        print(f"{n:6d} particles: fused on the processor {1e3 * fused:8.2f} ms, {device} {1e3 * dense:8.2f} ms")


def main() -> int:
    """Check and time the first CUDA device, or say that there is none."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was checked and nothing timed.")
        return NO_DEVICE
    print(torch.cuda.get_device_name(0))
    good = check("cuda")
    timings("cuda")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
