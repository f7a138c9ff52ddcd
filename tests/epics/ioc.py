"""A soft IOC that answers like areaDetector and plays a movie: ``python -m tests.epics.ioc PREFIX MOVIE``.

Loopback only, on the port that EPICS_CA_SERVER_PORT names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

LOOPBACK_ONLY = {
    "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
}


def initial_values(frames: np.ndarray) -> dict[str, Any]:
    """What a detector of that frame size says after a start."""
    return {
        "cam1:ArraySizeX_RBV": frames.shape[2],
        "cam1:ArraySizeY_RBV": frames.shape[1],
        "cam1:DataType_RBV": {"u1": "UInt8", "u2": "UInt16", "u4": "UInt32"}[frames.dtype.str[1:]],
        "cam1:AcquireTime": 0.1,
        "cam1:AcquirePeriod": 0.5,
        "cam1:NumImages": 1,
        "cam1:Manufacturer_RBV": "Simulated detector",
        "cam1:Model_RBV": "Movie player",
        "cam1:PortName_RBV": "SIM1",
        "HDF1:PortName_RBV": "FILE1",
        "HDF1:NDArrayPort": "SIM1",
        "HDF1:EnableCallbacks": "Disable",
        "HDF1:NumFramesChunks": 10,
    }


def main(prefix: str, movie: Path) -> None:
    """Serve until standard input ends, which it does with whoever started this."""
    from softioc import asyncio_dispatcher, builder, softioc

    from beamline_ml.frames.movie import open_movie
    from tests.epics.camera import Camera
    from tests.epics.hdf_plugin import HdfPlugin
    from tests.epics.records import Records

    with open_movie(movie) as file:
        frames = file.read(0, file.n_frames)
    plugin = HdfPlugin()
    camera = Camera(frames, plugin)

    async def on_put(name: str, value: Any) -> None:
        await (camera if name.startswith("cam1:") else plugin).on_put(name, value)

    plugin.records = camera.records = records = Records(prefix, initial_values(frames), on_put)
    dispatcher = asyncio_dispatcher.AsyncioDispatcher()
    builder.LoadDatabase()
    softioc.iocInit(dispatcher, enable_pva=False)
    print(f"ready with {len(records)} records", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    os.environ.update(LOOPBACK_ONLY)  # before libca is loaded
    main(sys.argv[1], Path(sys.argv[2]))
