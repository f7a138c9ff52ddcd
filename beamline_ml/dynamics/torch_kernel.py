"""Pair velocities inside torch's graph: the fused kernel with its hand-written derivatives, and plain torch operations.

``pair_velocities`` is what any solver and optimiser of torch may call on the CPU: its reverse and forward derivatives
are the sweeps of ``pair_kernel``, so nothing of the size of pairs x coefficients is ever kept. ``dense_velocities``
says the same in torch operations on all pairs; it runs on any device, and is what the fused kernel is held against.
"""

from __future__ import annotations

from typing import Any

import torch

from beamline_ml.dynamics.neighbours import Pairs, build_pairs
from beamline_ml.dynamics.pair_kernel import CORE, pair_cotangent, pair_tangent, pair_velocity


class _PairVelocities(torch.autograd.Function):
    @staticmethod
    def forward(
        x: torch.Tensor, coefficients: torch.Tensor, cutoff_um: float, box_um: float, pairs: Pairs
    ) -> torch.Tensor:
        out = torch.zeros_like(x)
        c = coefficients.detach().numpy()
        pair_velocity(x.detach().numpy(), box_um, pairs.first, pairs.second, c, cutoff_um, out.numpy())
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, coefficients, ctx.cutoff_um, ctx.box_um, ctx.pairs = inputs
        ctx.save_for_backward(x, coefficients)
        ctx.save_for_forward(x, coefficients)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, coefficients = ctx.saved_tensors
        to_x, to_c = torch.zeros_like(x), torch.zeros_like(coefficients)
        pair_cotangent(
            *_system(ctx),
            cotangents[0].contiguous().numpy(),
            to_x.numpy(),
            to_c.numpy(),
        )
        return to_x, to_c, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        x, coefficients = ctx.saved_tensors
        along_x, along_c = tangents[:2]
        # The sweep differentiates along every coefficient and along the given displacement of the particles.
        n = len(coefficients)
        tangent = torch.zeros((*x.shape, n + 1), dtype=x.dtype)
        if along_x is not None:
            tangent[..., n] = along_x
        out, out_tangent = torch.zeros_like(x), torch.zeros_like(tangent)
        pair_tangent(*_system(ctx), tangent.numpy(), out.numpy(), out_tangent.numpy())
        total = out_tangent[..., n]
        return total if along_c is None else total + out_tangent[..., :n] @ along_c


def _system(ctx: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Particles, box, pairs and force, as the sweeps of ``pair_kernel`` take them."""
    x, coefficients = (saved.detach().numpy() for saved in ctx.saved_tensors)
    return x, ctx.box_um, ctx.pairs.first, ctx.pairs.second, coefficients, ctx.cutoff_um


def pair_velocities(
    x_um: torch.Tensor,
    coefficients: torch.Tensor,
    cutoff_um: float,
    box_um: float = 0.0,
    n_boxes: int = 1,
    pairs: Pairs | None = None,
) -> torch.Tensor:
    """Velocities (n, 2) um/s of particles that feel each other through a spline, differentiable in both directions.

    Parameters
    ----------
    x_um
        (n, 2) float64 on the CPU; ``n_boxes`` independent systems one after the other.
    coefficients
        (n_coefficients,) float64 spline in um/s, positive repels.
    pairs
        A neighbour list that still holds; None builds one.

    Raises
    ------
    FitRefused
        When the particles have collapsed into one heap.
    """
    known = pairs or build_pairs(x_um.detach().numpy(), box_um, cutoff_um, n_boxes)
    return _PairVelocities.apply(x_um.contiguous(), coefficients.contiguous(), cutoff_um, box_um, known)  # type: ignore[no-any-return]


def dense_velocities(
    x_um: torch.Tensor, coefficients: torch.Tensor, cutoff_um: float, box_um: float = 0.0
) -> torch.Tensor:
    """The same for one or many systems (..., n, 2), over all pairs, in torch operations on any device and dtype."""
    n = len(coefficients)
    spacing = cutoff_um / n
    step = x_um.unsqueeze(-2) - x_um.unsqueeze(-3)
    if box_um > 0:
        step = step - box_um * torch.round(step / box_um)
    squared = (step**2).sum(-1)
    felt = (squared < cutoff_um**2) & (squared > 0)
    # A distance of zero has no slope: pairs that are not felt are moved to a harmless one before the root.
    r = torch.sqrt(torch.where(felt, squared, cutoff_um**2)).clamp(min=CORE * spacing)
    k = torch.clamp((r / spacing).floor().long(), max=n)
    t = r / spacing - k
    padded = torch.cat([coefficients, coefficients.new_zeros(4)])
    force = sum(weight * padded[k + s] for s, weight in enumerate(_cubic_weights(t)))
    return (torch.where(felt, force / r, 0.0).unsqueeze(-1) * step).sum(-2)


def _cubic_weights(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The four B-spline weights at the fraction t of a knot interval."""
    s = 1.0 - t
    return (
        s**3 / 6.0,
        (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0,
        (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0,
        t**3 / 6.0,
    )
