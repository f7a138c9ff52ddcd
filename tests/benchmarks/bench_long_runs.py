"""Correlation of long runs, half an hour of measuring: ``python -m tests.benchmarks.bench_long_runs``.

Two-time functions of 1,000 to 5,000 frames against the two best peers, how much of our time the system takes to hand
out memory (``python -m tests.benchmarks.bench_long_runs system`` for that alone), and every one of 100,000 frames of
1 Mpixel through the bounded correlators, with the memory of the whole process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from beamline_ml.correlation import LongTwoTimeAccumulator, MultiTauAccumulator, QMap, two_time
from tests.benchmarks.bench_correlation import GEOMETRY, SHAPE, Row, _row, against, cpu_seconds, peers, speckle

LENGTHS = (1000, 2000, 5000)
N_BOUNDED = 100_000
BLOCK = 64
N_BLOCKS = 4
"""Different ones, sent in turn."""
REPEATS = 2


def two_time_rows(n_frames: int) -> list[Row]:
    """C2 of all bins of so many sparse frames, against the two best peers."""
    qmap = QMap.from_geometry(GEOMETRY, SHAPE, n_q=18, n_static=36)
    frames = speckle(0.05, n_frames)
    own = cpu_seconds(lambda: two_time(frames, qmap), REPEATS)
    theirs = peers(frames, qmap, ("boost_two_time", "xpcs_correlator_from_dense"), REPEATS)
    name = f"two_time_sparse_{n_frames}_vs"
    return [
        against(f"{name}_boost_corr", own, "boost_corr", theirs["boost_two_time"]),
        against(f"{name}_xpcs_correlator", own, "xpcs-correlator", theirs["xpcs_correlator_from_dense"]),
    ]


def system_row(n_frames: int = LENGTHS[-1]) -> Row:
    """Seconds that the system takes beside those of the correlator, in the quickest of some repeats."""
    qmap = QMap.from_geometry(GEOMETRY, SHAPE, n_q=18, n_static=36)
    frames = speckle(0.05, n_frames)
    took = []
    for _ in range(1 + REPEATS):
        before = resource.getrusage(resource.RUSAGE_SELF)
        two_time(frames, qmap)
        after = resource.getrusage(resource.RUSAGE_SELF)
        took.append((after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime))
    system, user = min(took)
    return _row(f"two_time_sparse_{n_frames}_system_cpu_s", system, "CPU s", "user time", user, user / system)


def bounded_rows() -> list[Row]:
    """CPU seconds of a block, early and late, when every frame is sent, and the process's largest memory."""
    shape = (1024, 1024)
    qmap = QMap.from_geometry(replace(GEOMETRY, beam_center_row_px=511.5, beam_center_column_px=511.5), shape, 18)
    rng = np.random.default_rng(0)
    # Frame by frame: drawn at once, the numbers would take more memory than what is measured.
    blocks = [np.stack([rng.poisson(0.05, shape).astype(np.uint8) for _ in range(BLOCK)]) for _ in range(N_BLOCKS)]
    long, stream = LongTwoTimeAccumulator(qmap, max_rows=512), MultiTauAccumulator(qmap)
    took = np.zeros(N_BOUNDED // BLOCK)
    for number in range(len(took)):
        block = blocks[number % len(blocks)]
        began = time.process_time()
        long.add(block, long.n_frames)
        stream.add(block, stream.n_frames)
        took[number] = time.process_time() - began
    tenth = len(took) // 10
    # The mean, for the products of a row are taken in one of its blocks only.
    early, late = (float(part.mean()) for part in (took[tenth : 2 * tenth], took[-tenth:]))
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return [
        _row("bounded_frames_sent", long.n_frames, "frames"),
        _row("bounded_block_last_tenth_cpu_s", late, "CPU s", "second tenth of the run", early, early / late),
        _row("bounded_process_memory_gb", memory_gb, "GB", "goal", 4.0, 4.0 / memory_gb),
    ]


def rows() -> list[Row]:
    """Benchmark rows of long runs."""
    torch.set_num_threads(1)
    return [*bounded_rows(), system_row(), *(row for n_frames in LENGTHS for row in two_time_rows(n_frames))]


if __name__ == "__main__":
    json.dump([system_row()] if sys.argv[1:] == ["system"] else rows(), sys.stdout, indent=1)
