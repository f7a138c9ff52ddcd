"""Fixtures that more than one room needs: test data, and a real tiled server with runs written like a beamline does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from event_model import compose_run

DATASET = "/entry/data/data"
XPCS = {
    "photon_energy_kev": 8.0,
    "detector_distance_m": 5.0,
    "pixel_size_m": 75e-6,
    "beam_center_row_px": 15.5,
    "beam_center_column_px": 11.5,
    "exposure_s": 0.009,
    "frame_period_s": 0.01,
    "detector": "det",
}


_SHARED = ("stack", "prefect_server")
"""Fixtures that are worth starting once only; tests that use one of them run in the same process."""

_LONGEST = ("stack", "tests/system/", "tests/brokers/", "prefect_server", "tests/live/", "tests/epics/")
"""Groups that begin first where tests run side by side, so that no long one is left over for the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the groups of tests that run side by side with ``-n 2 --dist loadgroup``, the longest first."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _begins(groups[item]))


def _group(item: pytest.Item) -> str:
    """A costly fixture or else the test's file: what a test shares with others."""
    shared = [name for name in _SHARED if name in getattr(item, "fixturenames", ())]
    return shared[0] if shared else item.nodeid.partition("::")[0]


def _begins(group: str) -> int:
    return next((place for place, prefix in enumerate(_LONGEST) if group.startswith(prefix)), len(_LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would all processes that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with the real data sets; tests that need it skip where it is not there."""
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"No test data at {folder}; set BEAMLINE_ML_TEST_DATA. Originals: the colloid video is described in "
            "colloids/README.md, the phonon set is that of Petretto et al. (2018)."
        )
    return folder


@pytest.fixture(scope="session")
def tiled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real tiled server on a loopback socket; ``frames_dir`` may be read through it."""
    from tiled.server import SimpleTiledServer

    from beamline_ml.service.tiled_server import inspect_once

    inspect_once()
    folder = tmp_path_factory.mktemp("tiled")
    frames = folder / "frames"
    frames.mkdir()
    server = SimpleTiledServer(folder / "server", readable_storage=[frames])
    server.frames_dir = frames
    yield server
    server.close()


def left_behind(tiled_server: Any, *path: str) -> None:
    """The directory of an array that a tiled which was killed had not yet entered into its catalogue."""
    import zarr

    zarr.create_array(tiled_server.directory / "data" / "/".join(path), shape=(3,), dtype="f8")


@pytest.fixture
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of tiled that gives up sooner than after ten attempts."""
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 2)


@pytest.fixture(scope="session")
def tiled_root(tiled_server: Any) -> Iterator[Any]:
    """Client of the server's root, with an empty catalogue of runs in ``raw``."""
    from tiled.client import from_uri
    from tiled.structures.core import Spec

    with from_uri(tiled_server.uri, api_key=None).context as context:
        from tiled.client import from_context

        root = from_context(context)
        root.create_container("raw", specs=[Spec("CatalogOfBlueskyRuns", version="3.0")])
        yield root


@pytest.fixture(scope="session")
def raw(tiled_root: Any) -> Any:
    """Catalogue of runs."""
    return tiled_root["raw"]


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's own test server, with a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def write_frames(tiled_server: Any, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Write counts to a SWMR HDF5 file the way areaDetector does, and return its path."""

    def write(counts: np.ndarray, name: str = "frames.h5", folder: Path | None = None) -> Path:
        path = (folder or tiled_server.frames_dir) / f"{request.node.name}-{name}".replace("/", "_")
        with h5py.File(path, "w", libver="latest") as file:
            dataset = file.create_dataset(
                DATASET,
                shape=(0, *counts.shape[1:]),
                maxshape=(None, *counts.shape[1:]),
                dtype=counts.dtype,
                chunks=(min(10, len(counts)), *counts.shape[1:]),
            )
            file.swmr_mode = True
            dataset.resize(len(counts), axis=0)
            dataset[:] = counts
            dataset.flush()
        return path

    return write


@pytest.fixture
def record_run(raw: Any) -> Callable[..., Any]:
    """Send the documents of a burst through TiledWriter and return the run's client."""
    from bluesky_tiled_plugins import TiledWriter

    def record(
        path: Path | None,
        shape: tuple[int, ...] = (40, 32, 24),
        exit_status: str = "success",
        xpcs: dict[str, Any] | None = None,
        configuration: dict[str, Any] | None = None,
        dtype: str = "<u2",
        stop: bool = True,
        **metadata: Any,
    ) -> Any:
        writer = TiledWriter(raw, batch_size=1)
        start = {"plan_name": "xpcs_burst", "technique": "xpcs", "sample": {"name": "silica"}, **metadata}
        run = compose_run(metadata={**start, "xpcs": XPCS if xpcs is None else xpcs})
        writer("start", run.start_doc)
        descriptor = send_descriptor(run, writer, shape[1:], dtype, configuration or {})
        if path is not None:
            send_frames(run, writer, descriptor, path, shape)
        if stop:
            writer("stop", run.compose_stop(exit_status=exit_status, reason="" if exit_status == "success" else "^C"))
        return raw[run.start_doc["uid"]]

    return record


def send_descriptor(run: Any, writer: Any, frame: tuple[int, ...], dtype: str, readings: dict[str, Any]) -> Any:
    """Announce the detector ``det`` in the stream ``primary``."""
    keys = {"source": "sim://det", "dtype": "array", "shape": list(frame), "dtype_numpy": dtype}
    configuration = {
        "data": readings,
        "timestamps": dict.fromkeys(readings, 0.0),
        "data_keys": {name: {"source": "sim://det", "dtype": "number", "shape": []} for name in readings},
    }
    bundle = run.compose_descriptor(
        name="primary",
        data_keys={"det": {**keys, "external": "STREAM:", "object_name": "det"}},
        object_keys={"det": ["det"]},
        configuration={"det": configuration},
    )
    writer("descriptor", bundle.descriptor_doc)
    return bundle.descriptor_doc


def send_frames(run: Any, writer: Any, descriptor: Any, path: Path, shape: tuple[int, ...]) -> None:
    """Say in two instalments that these frames lie in this file."""
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{path}",
        data_key="det",
        parameters={"dataset": DATASET, "chunk_shape": (min(10, shape[0]), *shape[1:]), "swmr": True},
    )
    writer("stream_resource", resource.stream_resource_doc)
    halves = (0, shape[0] // 2, shape[0])
    for first, last in pairwise(halves):
        if last > first:
            datum = resource.compose_stream_datum(
                indices={"start": first, "stop": last},
                seq_nums={"start": first + 1, "stop": last + 1},
                descriptor=descriptor,
            )
            writer("stream_datum", datum)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The whole embedded stack, once for all tests, with the usual ports taken by somebody else.

    Its automatic fits correlate and fit relaxation times, without the dynamics model, which has tests of its own.
    """
    from beamline_ml.service.up import embedded_stack
    from beamline_ml.settings import load_settings

    state_dir = tmp_path_factory.mktemp("stack")
    with contextlib.ExitStack() as until_the_end:
        for port in (8000, 4200):
            until_the_end.enter_context(_somebody_else_on(port))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BEAMLINE_ML_STATE_DIR", str(state_dir))
            patch.setenv("BEAMLINE_ML_ANALYSIS__MODEL", "none")
            running = until_the_end.enter_context(embedded_stack(load_settings()))
        yield running


def _somebody_else_on(port: int) -> socket.socket:
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with contextlib.suppress(OSError):  # taken already: just as well
        other.bind(("127.0.0.1", port))
        other.listen()
    return other
