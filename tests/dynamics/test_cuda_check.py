"""The check for CUDA machines says when there is none, and what it compares holds on the processor."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks import cuda_check


def test_without_a_device_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_check.main() == cuda_check.NO_DEVICE
    assert "nothing was checked" in capsys.readouterr().out


def test_torch_operations_agree_with_the_fused_kernel() -> None:
    found = cuda_check.differences("cpu", torch.float64, n=120)
    assert max(value for name, value in found.items() if name != "pattern") < 1e-9
    assert found["pattern"] < 1e-3


def test_a_difference_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_check, "differences", lambda _device, _dtype: {"velocity": 0.1})
    assert not cuda_check.check("cpu")
