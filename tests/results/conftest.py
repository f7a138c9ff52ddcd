"""An analysis with all of its parts, made from arrays whose answer is known."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamline_ml.records import (
    G2,
    Forecast,
    FrameQuality,
    Geometry,
    PowerLaw,
    RelaxationFits,
    RunDescription,
    TwoTime,
)
from beamline_ml.results.assembly import Analysis

N, N_Q = 24, 3
PERIOD_S = 0.1
Q = np.array([4e-4, 8e-4, 1.2e-3])
TAU = 1 / (0.02 * (Q * 1e4) ** 2)
CONTRAST = np.array([0.3, 0.25, 0.2])


class FittedKernel:
    """What publication asks of a dynamics fit, for a soft repulsion."""

    diffusion_um2_per_s = 0.021
    diffusion_um2_per_s_err = 0.002
    chi2 = 1.05
    describes_data = True
    warnings = ("S(q, t) is relative.",)
    mode = "correlations"
    resolution_um = 1.0

    def kernel(self, r_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 0.5 * np.exp(-r_um), 0.05 + 0.1 * r_um


def c2_at(times: np.ndarray) -> np.ndarray:
    lag = np.abs(times[:, None] - times[None])
    return (1 + CONTRAST[:, None, None] * np.exp(-2 * lag / TAU[:, None, None])).astype(np.float32)


def make_two_time() -> TwoTime:
    age = PERIOD_S * np.arange(N)
    c2 = c2_at(age)
    c2[:, 5, :] = c2[:, :, 5] = np.nan
    sums = np.full((N_Q, N), 400, np.int64)
    missing = np.zeros(N, bool)
    missing[5] = True
    none = np.zeros(N, bool)
    quality = FrameQuality(missing, none, none, none, n_masked_pixels=2)
    numerator = (np.nan_to_num(c2) * 1600).astype(np.int64)
    return TwoTime(c2, numerator, sums, np.full(N_Q, 100), Q, age, PERIOD_S, "plain", quality)


def make_g2() -> G2:
    lags = np.array([1, 2, 3, 5, 8, 12, 18])
    g2 = 1 + CONTRAST[:, None] * np.exp(-2 * lags * PERIOD_S / TAU[:, None])
    return G2(lags * PERIOD_S, lags, g2, np.full_like(g2, 0.01), Q, "ratio_of_sums", "block_jackknife")


def make_relaxation() -> RelaxationFits:
    some = np.array([np.nan, *TAU[1:]])
    error = np.array([np.nan, 0.1, 0.05])
    reason = "g2 decays by 9 % within the measured delays"
    return RelaxationFits(
        Q,
        some,
        error,
        CONTRAST,
        error / 10,
        np.ones(N_Q),
        error,
        np.ones(N_Q),
        error / 100,
        error,
        (reason, None, None),
    )


def make_forecast() -> Forecast:
    times = np.linspace(0, 2 * N * PERIOD_S, 17)
    c2 = c2_at(times)
    s_q = np.ones((N_Q, 17))
    contest = {"persistence": 0.2, "neural_ode": 0.1, "ageing_kww": 0.15}
    return Forecast(
        times, (N - 1) * PERIOD_S, Q, c2, c2 - 0.02, c2 + 0.02, s_q, s_q - 0.1, s_q + 0.1, "neural_ode", 0.1, contest
    )


def make_description(uid: str) -> RunDescription:
    start = {"uid": uid, "scan_id": 12, "technique": "xpcs", "plan_name": "xpcs_burst", "time": 1.8e9}
    return RunDescription(
        uid=uid,
        scan_id=12,
        sample_name="latex 5%",
        sample={"name": "latex 5%", "composition": "C8H8"},
        geometry=Geometry(8.0, 10.0, 75e-6, 31.5, 31.5),
        frame_period_s=PERIOD_S,
        exposure_s=0.09,
        n_frames=N,
        frame_shape=(64, 64),
        started_at=1.8e9,
        finished=True,
        exit_status="success",
        metadata=start,
    )


@pytest.fixture(scope="session")
def make_analysis():
    def make(uid: str = "0a1b2c3d-0000-4000-8000-000000000000", **changes: Any) -> Analysis:
        law = PowerLaw(2.02, 0.05, 0.02, 0.001, True, "The exponent agrees with 2.")
        content: dict[str, Any] = {
            "description": make_description(uid),
            "settings": {"n_q": 3, "qmap": None, "first_frame": 0},
            "two_time": make_two_time(),
            "time_binning": 1,
            "g2": make_g2(),
            "relaxation": make_relaxation(),
            "power_law": law,
            "dynamics": FittedKernel(),
            "kernel_r_um": np.linspace(0.1, 5, 30),
            "forecast": make_forecast(),
            "average_frame": np.full((64, 64), 4.0, np.float32),
            "roi_map": np.ones((64, 64), np.int64),
            "warnings": ("One frame is missing.",),
            "provenance": {"flow_run_id": "f00", "versions": {"beamline_ml": "0.1.0"}},
            "timings_s": {"correlate": 0.5},
        }
        return Analysis(**(content | changes))

    return make


@pytest.fixture
def seen_by_viewer() -> Callable[[Path], dict[str, Any]]:
    """Let pyXpcsViewer open a file in an interpreter of its own, and return what it read."""
    viewer_python = os.environ.get("BEAMLINE_ML_VIEWER_PYTHON", "")
    if not Path(viewer_python).is_file():
        pytest.skip(
            "BEAMLINE_ML_VIEWER_PYTHON names no interpreter with pyXpcsViewer (pip install xpcs-viewer in a virtual "
            "environment of its own)."
        )

    def read(path: Path) -> dict[str, Any]:
        script = Path(__file__).with_name("read_with_viewer.py")
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""}
        run = subprocess.run([viewer_python, script, path], capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stderr
        return dict(json.loads(run.stdout))

    return read
