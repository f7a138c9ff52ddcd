"""The process that compiles the kernels and those that load them from the cache compute the same, bit for bit.

Motion is chaotic: a difference in the last digit is another sample some seconds later. A compiler that sees what a
function calls may order sums otherwise than one that links it from the cache, so kernels are compiled in one piece.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MOTION = """
import hashlib
import numpy as np
from beamline_ml.dynamics.flow import Surrogates, follow_with_tangents, move
from beamline_ml.dynamics.motion_law import MotionLaw
from beamline_ml.dynamics.pattern_law import open_particles
from beamline_ml.dynamics.phase_fit import phase_motion

rng = np.random.default_rng(0)
particles = open_particles(rng.uniform(0.0, 2.0, (60, 2)), 0.1 * np.arange(21))
splines = rng.normal(0.0, 0.1, (3, 8))
path = np.cumsum(rng.normal(0.0, 0.1, (21, 200, 2)), axis=0)
boxes = Surrogates(rng.uniform(0.0, 4.0, (200, 2)), 2, 4.0, 0.1 * np.arange(21), np.arange(21), path)
found = [
    move(boxes, rng.normal(0.0, 0.1, 8), 0.8, 1.0),
    move(particles, rng.normal(0.0, 0.1, 96), 0.8, 0.0),
    *follow_with_tangents(particles, MotionLaw(splines[:1], 0.8), 0.0, "rk4", np.zeros((60, 2, 9))),
    *follow_with_tangents(particles, MotionLaw(splines, 0.8), 0.0, "rk4", np.zeros((60, 2, 25))),
]
found += phase_motion(rng.uniform(0.0, 2.0, (60, 3)), 0.1 * np.arange(21), splines, 0.8, True, 24)
print(*[hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in found])
"""


def test_a_first_process_computes_what_later_ones_do(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", MOTION], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbi"))
    assert len(first) == 8
    assert first == second
