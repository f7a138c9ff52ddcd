"""What an areaDetector driver does when it acquires: here it plays a movie, at the period asked for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.epics.hdf_plugin import HdfPlugin
from tests.epics.records import Records

FASTEST_PERIOD_S = 1e-3
"""A driver that is asked for less keeps this, and says so only in its read-back."""


class Camera:
    """Acquire, and the counters and states that go with it.

    Parameters
    ----------
    frames
        (n_frames, rows, cols); a longer acquisition begins again.
    plugin
        Gets each frame.
    """

    def __init__(self, frames: np.ndarray, plugin: HdfPlugin) -> None:
        self.records: Records
        self._frames = frames
        self._plugin = plugin
        self._acquiring: asyncio.Task[None] | None = None

    def __getitem__(self, name: str) -> Any:
        return self.records[f"cam1:{name}"]

    def __setitem__(self, name: str, value: Any) -> None:
        self.records[f"cam1:{name}"] = value

    async def on_put(self, name: str, value: Any) -> None:
        """Answer a client's put to one of the driver's records."""
        if name == "cam1:AcquirePeriod":
            self["AcquirePeriod_RBV"] = max(value, FASTEST_PERIOD_S)
        if name != "cam1:Acquire":
            return
        if not value:
            await self._stop()
        elif self._acquiring is None:
            self["DetectorState_RBV"] = "Acquire"
            self["Acquire_RBV"] = 1
            self._acquiring = asyncio.create_task(self._acquire())

    def _places(self) -> Iterator[int]:
        if self["ImageMode_RBV"] == "Continuous":
            return itertools.count()
        return iter(range(1 if self["ImageMode_RBV"] == "Single" else self["NumImages_RBV"]))

    async def _acquire(self) -> None:
        period_s = max(self["AcquirePeriod_RBV"], self["AcquireTime_RBV"])
        began = time.monotonic()
        for place in self._places():
            await asyncio.sleep(began + (place + 1) * period_s - time.monotonic())
            self["ArrayCounter"] = self["UniqueId_RBV"] = unique_id = self["ArrayCounter"] + 1
            await self._plugin.take(self._frames[place % len(self._frames)], unique_id, time.time())
        self._acquiring = None
        self._be_idle("Idle")

    async def _stop(self) -> None:
        if self._acquiring is not None:
            self._acquiring.cancel()
            await asyncio.wait([self._acquiring])
            self._acquiring = None
            self._be_idle("Aborted")
        self["Acquire"] = 0

    def _be_idle(self, state: str) -> None:
        self["DetectorState_RBV"] = state
        self["Acquire"] = 0
