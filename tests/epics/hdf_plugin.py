"""What areaDetector's HDF5 plugin does with frames, told by records and written with h5py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from tests.epics.records import Records

_ATTRIBUTE_CHUNK = 16384
_GROUP = "/entry/instrument/NDAttributes"


class CapturedFile:
    """A file in areaDetector's layout, read by others while it grows.

    As in areaDetector a frame is counted when it is handed to HDF5; readers see it with the next full chunk, or when
    somebody puts to FlushNow.
    """

    def __init__(self, path: Path, frame: np.ndarray, chunk_frames: int) -> None:
        self._file = h5py.File(path, "w", libver="latest")
        shape = frame.shape
        self._frames = self._file.create_dataset(
            "/entry/instrument/detector/data",
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=frame.dtype,
            chunks=(chunk_frames, *shape),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        self._file["/entry/data/data"] = self._frames  # a hard link
        self._ids = self._attribute("NDArrayUniqueId", "<i4")
        self._times = self._attribute("NDArrayTimeStamp", "<f8")
        self._chunk_frames = chunk_frames
        self._file.swmr_mode = True

    def _attribute(self, name: str, dtype: str) -> h5py.Dataset:
        chunks = (_ATTRIBUTE_CHUNK,)
        return self._file.create_dataset(f"{_GROUP}/{name}", shape=(0,), maxshape=(None,), dtype=dtype, chunks=chunks)

    def append(self, frame: np.ndarray, unique_id: int, timestamp_s: float) -> None:
        n_frames = len(self._frames) + 1
        for dataset, value in ((self._frames, frame), (self._ids, unique_id), (self._times, timestamp_s)):
            dataset.resize(n_frames, axis=0)
            dataset[-1] = value
        if n_frames % self._chunk_frames == 0:
            self.flush()

    def flush(self) -> None:
        for dataset in (self._frames, self._ids, self._times):
            dataset.flush()

    def close(self) -> None:
        self._file.close()


class HdfPlugin:
    """Capture, FlushNow, and what the file records say."""

    def __init__(self) -> None:
        self.records: Records
        self._file: CapturedFile | None = None
        # One thread, so that writing, flushing and closing come one after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hdf5")

    def __getitem__(self, name: str) -> Any:
        return self.records[f"HDF1:{name}"]

    def __setitem__(self, name: str, value: Any) -> None:
        self.records[f"HDF1:{name}"] = value

    async def on_put(self, name: str, value: Any) -> None:
        """Answer a client's put to one of the plugin's records."""
        if name == "HDF1:FilePath":
            self._look_at_folder(value)
        elif name == "HDF1:FlushNow" and value and self._file is not None:
            await self._in_thread(self._file.flush)
        elif name == "HDF1:Capture":
            await (self._begin() if value else self._end())

    async def take(self, frame: np.ndarray, unique_id: int, timestamp_s: float) -> None:
        """A frame arrives from the camera."""
        if self["EnableCallbacks_RBV"] != "Enable":
            return
        self["ArrayCounter"] = self["ArrayCounter"] + 1
        self["ArraySize0"], self["ArraySize1"] = frame.shape[1], frame.shape[0]
        if not self["Capture_RBV"]:
            return
        if self._file is None and not await self._open(frame):
            return
        assert self._file is not None
        await self._in_thread(self._file.append, frame, unique_id, timestamp_s)
        self["NumCaptured_RBV"] = self["NumCaptured_RBV"] + 1
        if self["NumCapture_RBV"] and self["NumCaptured_RBV"] >= self["NumCapture_RBV"]:
            await self._end()

    def _look_at_folder(self, folder: str) -> None:
        path, depth = Path(folder), -self["CreateDirectory"]
        to_make = [parent for parent in (path, *path.parents) if not parent.exists()]
        if 0 < len(to_make) <= depth:
            path.mkdir(parents=True)
        self["FilePathExists_RBV"] = path.is_dir()

    async def _begin(self) -> None:
        # The file is opened with the first frame (LazyOpen), whose size and type it needs.
        self["NumCaptured_RBV"] = 0
        self["WriteStatus"], self["WriteMessage"] = 0, ""
        self["FullFileName_RBV"] = full_name(
            self["FileTemplate"], self["FilePath"], self["FileName"], self["FileNumber"]
        )
        if self["AutoIncrement"]:
            self["FileNumber"] = self["FileNumber"] + 1
        self["Capture_RBV"] = 1

    async def _end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            await self._in_thread(file.close)
        self["Capture"] = 0

    async def _open(self, frame: np.ndarray) -> bool:
        path, chunk_frames = Path(self["FullFileName_RBV"]), max(1, self["NumFramesChunks"])
        try:
            self._file = await self._in_thread(CapturedFile, path, frame, chunk_frames)
        except OSError as error:
            self["WriteStatus"], self["WriteMessage"] = 1, f"ERROR: {error}"
            await self._end()
        if not self["Capture_RBV"]:  # ended while the file was being opened
            await self._end()
        return self._file is not None

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def full_name(template: str, folder: str, name: str, number: int) -> str:
    """File name from a C format of folder, name and, where it asks for it, number."""
    return template % (folder, name, number)[: template.count("%")]
