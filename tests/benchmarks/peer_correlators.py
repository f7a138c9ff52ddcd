"""CPU seconds of other people's correlators: run by ``bench_correlation`` in an environment that has them.

``python peer_correlators.py frames.npz REPEATS``: counts (n, rows, cols), labels and
static_labels in; JSON of CPU seconds, or of the reason why a peer was left out, comes out. Pixels outside the q-map are
cropped by each peer's own means.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock

import numpy as np

SKBEAM_FRAMES = 40
"""scikit-beam is timed on so many frames only: its two-time would take many minutes for all."""


def boost_two_time(counts: np.ndarray, labels: np.ndarray, static: np.ndarray) -> None:
    """boost_corr's solver with its default smoothing, frames in batches of 8 as its command line does."""
    torch = importlib.import_module("torch")
    correlator, crop = _boost_correlator(counts, labels, static)
    for lo in range(0, len(counts), 8):
        batch = torch.from_numpy(counts[lo : lo + 8]).reshape(-1, labels.size)
        correlator.process(batch[:, crop])
    correlator.post_processing(smooth_method="sqmap")
    for _ in correlator.get_twotime_generator():
        pass


def _boost_correlator(counts: np.ndarray, labels: np.ndarray, static: np.ndarray) -> tuple[Any, Any]:
    torch = importlib.import_module("torch")
    flat = static.ravel()
    order = np.argsort(flat, kind="stable")
    crop = torch.from_numpy(order[flat[order] > 0])
    bins = {
        "dq_idx": np.arange(1, labels.max() + 1),
        "dq_slc": _slices(labels),
        "sq_idx": np.arange(1, static.max() + 1),
        "sq_slc": _slices(static),
    }
    solver = importlib.import_module("boost_corr.twotime").TwotimeCorrelator
    return solver(bins, len(counts), det_size=labels.shape, mask_crop=crop, device="cpu"), crop


def _slices(labels: np.ndarray) -> list[slice]:
    edges = np.concatenate([[0], np.cumsum(np.bincount(labels.ravel())[1:])])
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def boost_multi_tau(counts: np.ndarray, labels: np.ndarray, static: np.ndarray) -> None:
    """boost_corr's multi-tau on the cropped pixels, without the normalisation at the end."""
    torch = importlib.import_module("torch")
    order = torch.from_numpy(np.flatnonzero(static.ravel() > 0))
    correlator = importlib.import_module("boost_corr.multitau").MultitauCorrelator(
        labels.shape, len(counts), mask_crop=order, device="cpu"
    )
    for lo in range(0, len(counts), 8):
        correlator.process(torch.from_numpy(counts[lo : lo + 8]).reshape(-1, labels.size)[:, order])
    correlator.post_process()


def xpcs_correlator_two_time(counts: np.ndarray, labels: np.ndarray, _static: np.ndarray) -> Callable[[], Any]:
    """The pixel-sparse correlator of xpcs-correlator; building its sparse input is not counted."""
    csc = importlib.import_module("scipy.sparse").csc_array(counts.reshape(len(counts), -1))
    correlate = importlib.import_module("xpcscorr").correlator_sparse_pixel_chunked
    return lambda: correlate(
        csc.data.astype(np.uint16),
        csc.indices.astype(np.int64),
        csc.indptr.astype(np.int64),
        counts.shape,
        labels,
        ttcf_format="t1,t2",
        t1_t2_binning=1,
        extra_options={"dask_cluster_type": None},
    )


def xpcs_correlator_from_dense(counts: np.ndarray, labels: np.ndarray, static: np.ndarray) -> Callable[[], Any]:
    """The same from dense frames: scipy makes the sparse input."""
    return lambda: xpcs_correlator_two_time(counts, labels, static)()


def skbeam_two_time(counts: np.ndarray, labels: np.ndarray, _static: np.ndarray) -> Callable[[], Any]:
    """scikit-beam's generator with as many buffers as frames."""
    correlation = importlib.import_module("skbeam.core.correlation")
    few = counts[:SKBEAM_FRAMES].astype(float)
    return lambda: correlation.two_time_corr(labels, few, SKBEAM_FRAMES, num_bufs=SKBEAM_FRAMES, num_levels=1)


def skbeam_multi_tau(counts: np.ndarray, labels: np.ndarray, _static: np.ndarray) -> Callable[[], Any]:
    """scikit-beam's multi-tau, eight buffers."""
    correlation = importlib.import_module("skbeam.core.correlation")
    few = counts[:SKBEAM_FRAMES].astype(float)
    return lambda: correlation.multi_tau_auto_corr(3, 8, labels, few)


def pychx_two_time(counts: np.ndarray, labels: np.ndarray, _static: np.ndarray) -> Callable[[], Any]:
    """pyCHX's float64 matrix products on the regrouped pixels; regrouping and converting them is not counted."""
    auto = _imported_without_windows("pyCHX.Two_Time_Correlation_Function").auto_two_Array
    flat = counts.reshape(len(counts), -1)[:, labels.ravel() > 0].astype(float)
    return lambda: auto(None, labels, data_pixel=flat)


def _imported_without_windows(name: str) -> Any:
    """A module of pyCHX; what it imports for windows and old file formats, and is not there, is left empty."""
    while True:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            package = name.split(".")[0]
            if error.name is None or error.name.split(".")[0] in (package, "skbeam"):
                raise
            sys.modules[error.name] = MagicMock()
            for begun in [known for known in sys.modules if known.split(".")[0] == package]:
                del sys.modules[begun]


PEERS: dict[str, Callable[..., Any]] = {
    "boost_two_time": boost_two_time,
    "boost_multi_tau": boost_multi_tau,
    "xpcs_correlator_two_time": xpcs_correlator_two_time,
    "xpcs_correlator_from_dense": xpcs_correlator_from_dense,
    "skbeam_two_time": skbeam_two_time,
    "skbeam_multi_tau": skbeam_multi_tau,
    "pychx_two_time": pychx_two_time,
}


def timed(name: str, arguments: tuple[np.ndarray, ...], repeats: int) -> float | str:
    """CPU seconds of the best of some runs, or why there are none.

    The least of more runs is lower, so both sides must take the same number.
    """
    best = np.inf
    try:
        for _ in range(repeats):
            prepared = PEERS[name](*arguments) if name.split("_")[0] != "boost" else None
            began = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                PEERS[name](*arguments) if prepared is None else prepared()
            best = min(best, time.process_time() - began)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError) as reason:
        return f"{type(reason).__name__}: {reason}"
    return float(best)


def main(path: str, repeats: str, *names: str) -> None:
    """Time the peers named, or all."""
    with contextlib.suppress(ImportError):
        importlib.import_module("torch").set_num_threads(1)
    stored = np.load(path)
    arguments = (stored["counts"], stored["labels"], stored["static_labels"])
    print(json.dumps({name: timed(name, arguments, int(repeats)) for name in names or PEERS}))


if __name__ == "__main__":
    main(*sys.argv[1:])
