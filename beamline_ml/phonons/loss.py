"""What a member of the ensemble is trained to get right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from beamline_ml.phonons.dataset import LOSS_TEMPERATURES_K, Material
from beamline_ml.phonons.network import NetworkOutput
from beamline_ml.phonons.thermodynamics import displacement_kernel, heat_capacity_kernel
from beamline_ml.phonons.windows import EDGES_INV_CM, MEV_PER_INV_CM, WIDTHS_INV_CM

_WIDE = 1010.0


@dataclass(frozen=True, slots=True)
class Targets:
    """What the data say of a batch of crystals."""

    points: Tensor
    """(n, 51)."""
    shares: Tensor
    """(n, 72)."""
    heat_capacity: Tensor
    """(n, n_t) C_V/3R."""

    @staticmethod
    def of(materials: list[Material]) -> Targets:
        """Targets of these materials, in order, float32."""

        def stack(name: str) -> Tensor:
            return torch.stack([torch.as_tensor(getattr(m, name), dtype=torch.float32) for m in materials])

        return Targets(stack("points"), stack("shares"), stack("heat_capacity"))

    def rows(self, index: Tensor) -> Targets:
        """The targets of some rows."""
        return Targets(self.points[index], self.shares[index], self.heat_capacity[index])


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part of the loss counts."""

    points: float = 1.0
    """Squared error of the published points, sized as predicted."""
    renormalised: float = 0.0
    """Squared error with the prediction scaled to maximum 1."""
    transport: float = 0.8
    """Area between cumulative densities, windows and points half each."""
    thermal: float = 0.03
    """Relative errors of heat capacities and displacements."""


class DensityLoss(nn.Module):
    """Squared error of the published points + transport distance + relative errors of the thermodynamics.

    The transport distance (area between the cumulative densities) tells the network how far off a peak is, which a
    squared error does not; the heat capacities and the displacement integral keep it honest at low energy, where few
    modes lie.
    """

    def __init__(self, weights: LossWeights | None = None) -> None:
        super().__init__()
        edges = EDGES_INV_CM * MEV_PER_INV_CM
        capacity = torch.stack([torch.as_tensor(heat_capacity_kernel(edges, t)) for t in LOSS_TEMPERATURES_K], dim=1)
        self.capacity: Tensor
        self.displacement: Tensor
        self.widths: Tensor
        self.register_buffer("capacity", capacity.float())
        self.register_buffer("displacement", torch.as_tensor(displacement_kernel(edges, 300.0)).float())
        self.register_buffer("widths", torch.as_tensor(WIDTHS_INV_CM / _WIDE).float())
        self.weights = weights or LossWeights()

    def forward(self, output: NetworkOutput, targets: Targets) -> Tensor:
        """Scalar loss of a batch."""
        w = self.weights
        points = (output.points - targets.points).square().mean()
        scaled = output.points / output.points.amax(dim=1, keepdim=True).clamp(min=1e-3)
        renormalised = (scaled - targets.points).square().mean()
        distance = (torch.cumsum(output.shares - targets.shares, dim=1).abs() * self.widths).sum(dim=1).mean()
        curves = torch.cumsum(_unit_area(output.points) - _unit_area(targets.points), dim=1).abs().mean()
        shape = w.points * points + w.renormalised * renormalised + w.transport * (distance + curves) / 2.0
        return shape + w.thermal * self._thermal(output.shares, targets)

    def _thermal(self, shares: Tensor, targets: Targets) -> Tensor:
        capacity = _log_ratio(shares @ self.capacity, targets.heat_capacity)
        displacement = _log_ratio(shares @ self.displacement, targets.shares @ self.displacement)
        return capacity.mean() + displacement.mean()


def _unit_area(points: Tensor) -> Tensor:
    return points / points.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _log_ratio(predicted: Tensor, true: Tensor) -> Tensor:
    """|ln(predicted/true)|, quadratic below 0.1, so that a few odd materials do not rule."""
    difference = torch.log(predicted.clamp(min=1e-6)) - torch.log(true.clamp(min=1e-6))
    return torch.nn.functional.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=0.1) / 0.1
