"""Frames through tiled's HTTP interface, for files that this machine cannot or must not open itself."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import stamina
from numpy.typing import NDArray

from beamline_ml.errors import FramesError
from beamline_ml.frames.reader import FrameReader

_RESPONSE_BYTES = 64 * 2**20
"""tiled refuses responses beyond 300 MB; smaller ones keep the server responsive for others."""


_PASSING = {429, 502, 503, 504}


def _is_passing(error: Exception) -> bool:
    """Whether asking again may help. A 500 means that the server cannot open the file; asking again would not."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _PASSING
    return isinstance(error, httpx.TransportError)


def _in_short(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__


class TiledFrames(FrameReader):
    """Frames of an array node.

    Compression of the response is switched off: it costs two to three times more than it saves on a local network.

    Parameters
    ----------
    array
        tiled's array client, (n, rows, cols) or (n, 1, rows, cols).
    shape
        (n_frames, rows, cols).
    max_bytes
        Most bytes of frames to read at once.
    """

    source = "tiled"

    def __init__(self, array: Any, shape: tuple[int, int, int], max_bytes: int) -> None:
        super().__init__(shape, np.dtype(array.dtype), max_bytes)
        self._array = array
        self._raw_dtype = np.dtype(array.dtype)
        self._inner = ",".join([":"] * (len(array.shape) - 1))

    def _read(self, first: int, last: int) -> NDArray[Any]:
        step = max(1, _RESPONSE_BYTES // max(1, self.frame_bytes))
        starts = range(first, last, step)
        parts = [self._request(start, min(start + step, last)) for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)

    def _request(self, first: int, last: int) -> NDArray[Any]:
        content = self._get(f"{first}:{last},{self._inner}", last - first)
        expected = (last - first) * self.frame_bytes
        if len(content) != expected:
            raise FramesError(
                f"tiled sent {len(content)} bytes for frames {first} to {last}; {expected} were expected.",
                "The file behind the run differs from what the catalogue says; check it on the tiled server.",
            )
        return np.frombuffer(content, self._raw_dtype).reshape(last - first, *self.shape[1:])

    def _get(self, slices: str, n_frames: int) -> bytes:
        shape = ",".join(str(n) for n in (n_frames, *self._array.shape[1:]))
        try:
            return self._attempts({"slice": slices, "expected_shape": shape})
        except httpx.HTTPError as error:
            raise FramesError(
                f"tiled cannot deliver frames of {self._array.uri}: {_in_short(error)}.",
                "Check on the tiled server that the detector's file exists and lies under its readable_storage, or "
                "add its folder to data.allowed_roots here.",
            ) from error

    @stamina.retry(on=_is_passing, attempts=5, timeout=30.0)
    def _attempts(self, params: dict[str, str]) -> bytes:
        response = self._array.context.http_client.get(
            self._array.item["links"]["full"],
            headers={"Accept": "application/octet-stream", "Accept-Encoding": "identity"},
            params=params,
        )
        response.raise_for_status()
        return bytes(response.read())
