"""The fused kernel inside torch: gradients in both directions, and equality with plain torch operations."""

from __future__ import annotations

import pytest
import torch

from beamline_ml.dynamics.torch_kernel import dense_velocities, pair_velocities

CUTOFF = 0.8


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.rand((14, 2), generator=generator, dtype=torch.float64)
    return x, torch.randn(7, generator=generator, dtype=torch.float64)


# torch scripts a function of its own when forward derivatives are first asked for.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("box", [0.0, 2.0])
def test_derivatives_in_both_directions(scene: tuple[torch.Tensor, torch.Tensor], box: float) -> None:
    inputs = tuple(part.clone().requires_grad_() for part in scene)
    assert torch.autograd.gradcheck(
        lambda x, c: pair_velocities(x, c, CUTOFF, box), inputs, check_forward_ad=True, check_batched_grad=False
    )


@pytest.mark.parametrize("box", [0.0, 2.0])
def test_fused_equals_dense(scene: tuple[torch.Tensor, torch.Tensor], box: float) -> None:
    found = []
    for velocities in (pair_velocities, dense_velocities):
        x, c = (part.clone().requires_grad_() for part in scene)
        u = velocities(x, c, CUTOFF, box)
        (u * torch.arange(28, dtype=torch.float64).reshape(14, 2)).sum().backward()
        found.append((u.detach(), x.grad, c.grad))
    for fused, dense in zip(*found, strict=True):
        torch.testing.assert_close(fused, dense, rtol=1e-10, atol=1e-12)


def test_systems_side_by_side_do_not_feel_each_other(scene: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, c = scene
    both = pair_velocities(torch.cat([x, x]), c, CUTOFF, n_boxes=2)
    torch.testing.assert_close(both, torch.cat([pair_velocities(x, c, CUTOFF)] * 2))
    torch.testing.assert_close(dense_velocities(torch.stack([x, x]), c, CUTOFF).reshape(-1, 2), both)
