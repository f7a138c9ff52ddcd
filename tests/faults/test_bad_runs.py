"""Runs that cannot be analysed, through the whole chain: the reason is on record, and the next run is unaffected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run

from tests.conftest import DATASET, XPCS, send_descriptor, send_frames
from tests.faults.conftest import Beamline
from tests.service.processes import eventually

FRAMES = (48, 32, 24)
WITHOUT_CENTRE = {name: value for name, value in XPCS.items() if name != "beam_center_row_px"}


@pytest.fixture
def frames_file(beamline: Beamline) -> Path:
    path = beamline.stack.settings.data_dir / "bad-run.h5"
    with h5py.File(path, "w", libver="latest") as file:
        counts = np.random.default_rng(0).poisson(2.0, FRAMES).astype("u2")
        file.create_dataset(DATASET, data=counts, chunks=(10, *FRAMES[1:]))
    return path


def record(beamline: Beamline, path: Path | None, shape: tuple[int, ...], xpcs: dict[str, Any], status: str) -> str:
    """Send the documents of a run to the stack's tiled, and return its uid."""
    with beamline.catalogue() as catalogue:
        writer = TiledWriter(catalogue.raw, batch_size=1)
        run = compose_run(metadata={"technique": "xpcs", "sample": {"name": "silica"}, "xpcs": xpcs})
        writer("start", run.start_doc)
        descriptor = send_descriptor(run, writer, shape[1:], "<u2", {})
        if path is not None:
            send_frames(run, writer, descriptor, path, shape)
        writer("stop", run.compose_stop(exit_status=status, reason="" if status == "success" else "^C"))
    return str(run.start_doc["uid"])


def no_stream(beamline: Beamline, path: Path) -> str:
    return record(beamline, None, FRAMES, XPCS, "success")


def no_beam_centre(beamline: Beamline, path: Path) -> str:
    return record(beamline, path, FRAMES, WITHOUT_CENTRE, "success")


def aborted(beamline: Beamline, path: Path) -> str:
    return record(beamline, path, (8, *FRAMES[1:]), XPCS, "abort")


def missing_file(beamline: Beamline, path: Path) -> str:
    uid = record(beamline, path, FRAMES, XPCS, "success")
    path.unlink()
    return uid


@pytest.mark.parametrize(
    ("take", "kind", "said"),
    [
        (no_stream, "StreamMissing", "no stream with area-detector frames"),
        (no_beam_centre, "MetadataMissing", "beam_center_row_px"),
        (aborted, "RunAborted", "'abort' after 8 frames"),
        (missing_file, "FileMissing", "is not there"),
    ],
)
def test_the_reason_is_where_the_result_would_be(
    beamline: Beamline, frames_file: Path, take: Callable[[Beamline, Path], str], kind: str, said: str
) -> None:
    uid = take(beamline, frames_file)
    assert eventually(lambda: beamline.is_settled(uid), 120.0)
    (failed,) = beamline.results(uid)
    assert failed["status"] == "failed"
    assert failed["error"]["type"] == kind
    assert said in failed["error"]["culprit"]
    assert failed["error"]["remedy"]


def test_the_next_run_is_unaffected(beamline: Beamline, frames_file: Path) -> None:
    bad = no_beam_centre(beamline, frames_file)
    good, _ = beamline.scan()
    beamline.wait_for_result(good)
    assert beamline.statuses(good) == ["complete"]
    assert eventually(lambda: beamline.statuses(bad) == ["failed"], 60.0)
