"""Correlation against its peers and against the machine: single-thread CPU seconds, ratios taken in one run.

Peers live in an environment of their own; the variable ``BEAMLINE_ML_PEERS`` names its Python interpreter. There:
``pip install torch numpy scipy h5py numba tqdm xpcs-correlator scikit-beam`` and
``pip install --ignore-requires-python --no-deps boost-corr pyCHX``. A peer that is not there has a row that says so.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beamline_ml.correlation import (
    LongTwoTimeAccumulator,
    MultiTauAccumulator,
    QMap,
    TwoTimeAccumulator,
    multi_tau,
    multi_tau_events,
    two_time,
)
from beamline_ml.correlation.bit_kernels import popcount_pairs
from beamline_ml.correlation.choice import KERNELS, choose_kernel, kernel_rates
from beamline_ml.correlation.two_time import STRIP
from beamline_ml.records import Geometry

Row = dict[str, Any]

SHAPE = (512, 512)
N_FRAMES = 1000
GEOMETRY = Geometry(8.0, 5.0, 75e-6, 255.5, 255.5)
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq", "amx_int8")
REPEATS = 6
SKBEAM_FRAMES = 40
"""As in peer_correlators."""


def speckle(mean: float, n_frames: int = N_FRAMES) -> np.ndarray:
    """(n_frames, 512, 512) uint8 counts of speckle that decays over 50 frames, contrast 0.2."""
    rng = np.random.default_rng(0)
    keep = np.exp(-1 / 50)
    field = rng.standard_normal((2, *SHAPE), dtype=np.float32)
    frames = np.empty((n_frames, *SHAPE), np.uint8)
    for t in range(n_frames):
        intensity = 0.55 + 0.45 * (field**2).sum(axis=0) / 2  # contrast 0.45^2
        frames[t] = np.minimum(rng.poisson(mean * intensity), 255)
        field = keep * field + np.sqrt(1 - keep**2) * rng.standard_normal((2, *SHAPE), dtype=np.float32)
    return frames


def cpu_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Least CPU time of some runs; the first call, which compiles, is not counted."""
    best = np.inf
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def peers(frames: np.ndarray, qmap: QMap, names: tuple[str, ...], repeats: int = REPEATS) -> dict[str, float | str]:
    """CPU seconds of each peer, the least of some runs, or the reason why there are none."""
    interpreter = os.environ.get("BEAMLINE_ML_PEERS")
    if not interpreter:
        return dict.fromkeys(names, "BEAMLINE_ML_PEERS names no interpreter with the peers")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        np.savez(path, counts=frames, labels=qmap.labels, static_labels=qmap.static_labels)
        script = Path(__file__).with_name("peer_correlators.py")
        done = subprocess.run(
            [interpreter, str(script), str(path), str(repeats), *names],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | SINGLE_THREAD,
        )
    answer: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return answer


def against(name: str, own: float, peer: str, theirs: float | str) -> Row:
    """Row of a CPU time and a peer's; the ratio says how many times less ours is."""
    if isinstance(theirs, str):
        return _row(name, own, "CPU s", f"{peer}: not measured ({theirs.splitlines()[0]})", None, None)
    return _row(name, own, "CPU s", peer, theirs, theirs / own)


def two_time_rows(qmap: QMap) -> list[Row]:
    """Sparse and dense two-time functions, all bins, from dense frames to C2."""
    sparse, dense = speckle(0.05), speckle(20.0)
    two_time(sparse[:64], qmap, "static")
    own_sparse = cpu_seconds(lambda: two_time(sparse, qmap))
    names = ("boost_two_time", "xpcs_correlator_from_dense", "pychx_two_time", "skbeam_two_time")
    sparse_input = ("xpcs_correlator_two_time",)
    theirs = peers(sparse, qmap, (*names, *sparse_input))
    if isinstance(theirs["skbeam_two_time"], float):
        theirs["skbeam_two_time"] *= (N_FRAMES / SKBEAM_FRAMES) ** 2  # work goes with the square
    rows = [against("two_time_sparse_vs_boost_corr", own_sparse, "boost_corr", theirs["boost_two_time"])]
    known = {name: took for name in names if isinstance(took := theirs[name], float)}
    best = min(known, key=lambda name: known[name], default="")
    rows += [against("two_time_sparse_vs_best_peer", own_sparse, best or "no peer", known.get(best, "none installed"))]
    rows += [
        against(f"two_time_sparse_vs_{name}", own_sparse, name, theirs[name]) for name in (*names[1:], *sparse_input)
    ]
    own_dense = cpu_seconds(lambda: two_time(dense, qmap))
    dense_peer = peers(dense, qmap, ("boost_two_time",))["boost_two_time"]
    return [*rows, against("two_time_dense_vs_boost_corr", own_dense, "boost_corr", dense_peer)]


def multi_tau_rows(qmap: QMap) -> list[Row]:
    """Multi-tau g2 of all bins."""
    frames = speckle(0.05)
    multi_tau(frames[:300], qmap)
    own = cpu_seconds(lambda: multi_tau(frames, qmap))
    theirs = peers(frames, qmap, ("boost_multi_tau", "skbeam_multi_tau"))
    if isinstance(theirs["skbeam_multi_tau"], float):
        theirs["skbeam_multi_tau"] *= N_FRAMES / SKBEAM_FRAMES
    return [
        against("multi_tau_vs_boost_corr", own, "boost_corr", theirs["boost_multi_tau"]),
        against("multi_tau_vs_scikit_beam", own, "scikit-beam", theirs["skbeam_multi_tau"]),
    ]


def limit_rows() -> list[Row]:
    """What the machine can do, and how near the two-time kernel that it chose comes."""
    rng = np.random.default_rng(0)
    n, words = 512, 170
    bits = rng.integers(0, 2**62, (n, words)).astype(np.uint64)
    gram = np.zeros((n, n), np.int64)
    popcount_pairs(gram, bits, 0, n, n, 0, words)
    took = cpu_seconds(lambda: popcount_pairs(gram, bits, 0, n, n, 0, words), 5)
    product_rate = n * (n + 1) / 2 * words * 64 / took
    a = torch.rand(512, 8192)
    float_rate = 512 * 512 * 8192 / cpu_seconds(lambda: a @ a.T, 5)
    source = np.ones(2**26, np.uint8)
    copy_rate = 2 * source.size / cpu_seconds(source.copy, 5)
    rates = kernel_rates()
    return [
        _row("limit_float32_products_per_s", float_rate, "1/s"),
        _row("limit_popcount_products_per_s", product_rate, "1/s"),
        _row("limit_copy_bytes_per_s", copy_rate, "B/s"),
        *(_row(f"kernel_{name}_products_per_s", rate, "1/s") for name, rate in rates.items()),
    ]


def gemm_share_rows(qmap: QMap) -> list[Row]:
    """Products per second of a two-time's matrix and popcount stages, over those of int8 matrices of the same size.

    The stages add strip after strip as two_time does; only the products that are needed (half of the square) count.
    """
    n, n_pixels = 4096, int(qmap.n_pixels[-1])
    rows = np.random.default_rng(0).integers(0, 232, (n, n_pixels)).astype(np.uint8)
    name = "int8" if "int8" in kernel_rates() else "float"
    matrix = torch.from_numpy(rows.view(np.int8))
    limit = n**2 * n_pixels / cpu_seconds(_product_of(matrix if name == "int8" else matrix.float(), name), 5)
    dense = _stage_rate(name, rows)
    sparse = _stage_rate(choose_kernel(rows < 12, 1), (rows < 12).astype(np.uint8))
    reference = f"{name} product of the same matrices"
    return [
        _row("limit_matrix_products_per_s", limit, "1/s", reference),
        _row("gemm_share_of_limit", dense / limit, "", reference, 1.0, dense / limit),
        _row("sparse_stage_share_of_limit", sparse / limit, "", reference, 1.0, sparse / limit),
    ]


def _product_of(matrix: torch.Tensor, name: str) -> Callable[[], Any]:
    multiply = torch._int_mm if name == "int8" else torch.mm
    return lambda: multiply(matrix, matrix.T)


def _stage_rate(name: str, rows: np.ndarray) -> float:
    n, n_pixels = rows.shape
    gram = np.zeros((1, n, n), np.int64)

    def stage() -> None:
        kernel = KERNELS[name](np.array([0, n_pixels]))
        for lo in range(0, n, STRIP):
            kernel.add(gram, rows, lo, lo + STRIP, lo + STRIP)

    return n * (n + 1) / 2 * n_pixels / cpu_seconds(stage, 4)


def streaming_rows(qmap: QMap) -> list[Row]:
    """CPU time of a block of 64 frames when 5,000 frames are there already, and of a long multi-tau stream."""
    few = speckle(0.05, 512)
    # The second time, memory is used that the machine has handed out before.
    block = min(_block_s(qmap, few) for _ in range(2))
    stream = MultiTauAccumulator(qmap)
    stream.add(few, 0)
    took = cpu_seconds(lambda: stream.add(few[:256], stream.n_frames), 3)
    return [
        _row("block_latency_cpu_s", block, "CPU s", "goal", 0.35, 0.35 / block),
        _row("multi_tau_stream_frames_per_s", 256 / took, "1/s"),
    ]


def _block_s(qmap: QMap, few: np.ndarray) -> float:
    accumulator = TwoTimeAccumulator(qmap, n_frames=5000 + 64 * 5)
    for first in range(0, 5000, 500):
        accumulator.add(few[:500], first)
    places = iter(range(5000, accumulator.n_frames, 64))
    return cpu_seconds(lambda: accumulator.add(few[:64], next(places)), 5)


def event_rows() -> list[Row]:
    """Multi-tau from events: 1 Mpixel, 1e-4 photons per pixel and frame, as sparse detectors deliver."""
    n_frames, shape = 50_000, (1024, 1024)
    qmap = QMap.from_geometry(replace(GEOMETRY, beam_center_row_px=511.5, beam_center_column_px=511.5), shape, 18)
    rng = np.random.default_rng(0)
    n_events = int(1e-4 * shape[0] * shape[1] * n_frames)
    frame = np.sort(rng.integers(0, n_frames, n_events))
    pixel = rng.integers(0, shape[0] * shape[1], n_events)
    multi_tau_events(frame[:1000], pixel[:1000], qmap, n_frames)
    rate = n_frames / cpu_seconds(lambda: multi_tau_events(frame, pixel, qmap, n_frames), 8)
    return [_row("event_multi_tau_frames_per_s", rate, "1/s", "goal", 5e4, rate / 5e4)]


def bounded_rows() -> list[Row]:
    """Memory of the bounded correlators at 1 Mpixel, and the time of a block early and 100,000 frames on."""
    shape = (1024, 1024)
    qmap = QMap.from_geometry(replace(GEOMETRY, beam_center_row_px=511.5, beam_center_column_px=511.5), shape, 18)
    block = np.random.default_rng(0).poisson(0.05, (64, *shape)).astype(np.uint8)
    long, stream = LongTwoTimeAccumulator(qmap, max_rows=512), MultiTauAccumulator(qmap)
    for accumulator in (long, stream):
        accumulator.add(block, 0)
    early = _bounded_block_s(long, block)
    long.add(block, 100_000)
    late = _bounded_block_s(long, block)
    used = (long.n_bytes + stream.n_bytes) / 1e9
    return [
        _row("bounded_memory_gb", used, "GB", "goal", 4.0, 4.0 / used),
        _row("bounded_block_early_cpu_s", early, "CPU s"),
        _row("bounded_block_after_100000_frames_cpu_s", late, "CPU s", "early block", early, early / late),
    ]


def _bounded_block_s(long: LongTwoTimeAccumulator, block: np.ndarray) -> float:
    """Mean over the blocks of a row: only the last of them makes it whole, and has its products taken."""
    n_blocks = max(1, long.factor // len(block))
    return cpu_seconds(lambda: [long.add(block, long.n_frames) for _ in range(n_blocks)], 4) / n_blocks


def machine() -> str:
    """What processor this is and which of its instructions matter here."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    facts = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = [flag for flag in FLAGS if flag in facts.get("flags", "").split()]
    return ", ".join([facts.get("model name", platform.machine()), *flags])


def _row(
    name: str,
    value: float,
    unit: str,
    reference: str | None = None,
    reference_value: float | None = None,
    ratio: float | None = None,
) -> Row:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_value": reference_value,
        "ratio": ratio,
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def rows() -> list[Row]:
    """Benchmark rows of the correlation room."""
    torch.set_num_threads(1)
    qmap = QMap.from_geometry(GEOMETRY, SHAPE, n_q=18, n_static=36)
    return [
        *limit_rows(),
        *gemm_share_rows(qmap),
        *two_time_rows(qmap),
        *multi_tau_rows(qmap),
        *streaming_rows(qmap),
        *event_rows(),
        *bounded_rows(),
    ]


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
