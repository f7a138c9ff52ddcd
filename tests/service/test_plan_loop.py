"""What stops the closed loop before anything is queued; the loop itself runs in ``tests.flows.test_closed_loop``."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import BurstAgent, Goal
from beamline_ml.service.plan_loop import Allowance, MeasurementLoop
from beamline_ml.settings import GuidanceSettings


def test_nothing_is_submitted_beyond_the_allowance(tmp_path: Path) -> None:
    agent = BurstAgent(Goal(longest_s=60.0), (600, 0.05))
    allowed = GuidanceSettings(submit=True, queue_control_address="tcp://127.0.0.1:9")
    for allowance, said in (
        (Allowance(20.0), "beam time to 30 s of 20 s"),
        (Allowance(60.0, dose_rate_mgy_per_s=0.1, dose_mgy=2.0), "dose to 3 MGy of 2 MGy"),
    ):
        loop = MeasurementLoop(allowed, None, agent, allowance, tmp_path / "loop.jsonl")  # type: ignore[arg-type]
        assert list(loop) == []
        assert said in loop.ended
    assert not (tmp_path / "loop.jsonl").exists()


def test_without_the_opt_in_nothing_is_submitted(tmp_path: Path) -> None:
    agent = BurstAgent(Goal(longest_s=60.0), (600, 0.05))
    loop = MeasurementLoop(GuidanceSettings(), None, agent, Allowance(60.0), tmp_path / "loop.jsonl")  # type: ignore[arg-type]
    with pytest.raises(GuidanceError, match="opt in"):
        list(loop)
    assert not (tmp_path / "loop.jsonl").exists()


def test_a_limited_dose_needs_its_rate() -> None:
    with pytest.raises(GuidanceError, match="rate is not known"):
        Allowance(60.0, dose_mgy=1.0)
