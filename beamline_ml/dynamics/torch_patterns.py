"""Speckle patterns in torch's operations: differentiable, on any device."""

from __future__ import annotations

import torch

from beamline_ml.dynamics.patterns import PatternScattering


def torch_intensity(scattering: PatternScattering, x_um: torch.Tensor) -> torch.Tensor:
    """Patterns of (n_frames, n, 2) particles, (n_frames, size, size) float32, beam stop and mask not applied."""
    q = torch.from_numpy(scattering.q_inv_um).to(x_um)
    phase = (-x_um[..., None] * q).float()
    wave = torch.polar(torch.ones_like(phase), phase)
    weight = torch.ones_like(x_um[..., 0])
    if scattering.probe_um is not None:
        weight = torch.exp(-(x_um**2).sum(-1) / scattering.probe_um**2)
    amplitude = (wave[:, :, 0] * weight.float()[..., None]).transpose(-1, -2) @ wave[:, :, 1]
    return amplitude.abs() ** 2 * torch.from_numpy(scattering.response).to(phase)
