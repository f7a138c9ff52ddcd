"""Photons of a Timepix3: raw ``.tpx3`` packets, put in order of time, gathered into clusters, binned into frames.

Packets are those that the SPIDR read-out sends (ASI Serval manual; Poikela et al., JINST 9 (2014) C05013): chunks
with an eight-byte header ``TPX3``, chip number and length, holding little-endian 64-bit words. A pixel word
(bits 60-63 = 0xB) says where (bits 44-59), how long over threshold (20-29, 25 ns) and when: 16 bits of SPIDR time
(0-15), 14 bits of arrival time (30-43, 25 ns) and 4 bits of its fine part (16-19, 1.5625 ns, counted backwards). The
clock rolls over after 26.8 s; a pause of more than half of that cannot be told from a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from beamline_ml.errors import FramesError
from beamline_ml.frames.clusters import Hits, photons_of
from beamline_ml.frames.recorded import Recorded
from beamline_ml.frames.sparse import EventFrames, Events, added, require_event_budget
from beamline_ml.records import BoolArray, IntArray

CHIP_SHAPE = (256, 256)
"""(rows, cols)."""
TICK_S = 25e-9 / 16
MAGIC = int.from_bytes(b"TPX3", "little")

_ROLLOVER = 2**34
"""Ticks until the clock begins again."""
_PIXEL, _COUNTING = 0xB, 0xA
_MOST_LATE_TICKS = round(0.01 / TICK_S)
"""Packets leave the chip within milliseconds; a time stamp further than this from those around it is wrong."""
_AROUND = 5
_NO_TIMES = "Take the data in ToA or ToA&ToT mode."


@dataclass(frozen=True, slots=True)
class _Photons:
    events: Events
    n_frames: int
    notes: tuple[str, ...]


class TimepixFrames(EventFrames):
    """Frames of one Timepix3 chip, (256, 256): one photon for each cluster of hits.

    Time begins with the first hit. The last frame, which the file's end cuts short, is left out.

    Parameters
    ----------
    path
        Raw packets, ``.tpx3``.
    max_bytes
        Most memory for events, and for frames at once.
    frame_period_s
        Duration of a frame.
    n_frames
        Length of the run; later photons are left out. None: as many whole frames as there are.
    photon_at
        Where a photon is counted: the ``"centroid"`` of its cluster (weighted with time over threshold, rounded to a
        pixel), the ``"brightest"`` pixel, or ``"hits"``: every hit is a photon.

    Raises
    ------
    FramesError
        When the file is cut off, holds no arrival times, or more than one chip; or ``frame_period_s`` is missing.
    BudgetExceeded
        When there are more events than memory allows; nothing has been read then.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        frame_period_s: float | None = None,
        n_frames: int | None = None,
        photon_at: str = "centroid",
    ) -> None:
        self.path = path
        period_s = _required_period(path, frame_period_s)
        require_event_budget(path, path.stat().st_size // 8, max_bytes)
        found = _photons(path, period_s, n_frames, photon_at)
        super().__init__(found.events, found.n_frames, CHIP_SHAPE, max_bytes)
        self.recorded = Recorded(frame_period_s=period_s, exposure_s=period_s, notes=found.notes)


def _required_period(path: Path, frame_period_s: float | None) -> float:
    if frame_period_s is None or not np.isfinite(frame_period_s) or frame_period_s < TICK_S:
        raise FramesError(
            f"{path.name} lists single photons; its frames have no duration yet (frame_period_s = {frame_period_s}).",
            f"Give frame_period_s, the duration of a frame in s, at least {TICK_S:.3g}.",
        )
    return float(frame_period_s)


def _photons(path: Path, period_s: float, n_frames: int | None, photon_at: str) -> _Photons:
    hits, notes = _in_order(_decoded(_pixel_words(path)), path)
    photons = photons_of(hits, photon_at)
    frame = ((photons.tick - photons.tick.min()) // _ticks(period_s)).astype(np.int64)
    whole = int(frame.max())
    if n_frames is None and whole == 0:
        raise FramesError(
            f"All photons of {path.name} lie within one frame of {period_s:g} s.", "Choose a shorter frame_period_s."
        )
    end = whole if n_frames is None else n_frames
    kept = frame < end
    pixel = photons.row[kept] * CHIP_SHAPE[1] + photons.column[kept]
    events = added(frame[kept], pixel, np.ones(pixel.size, np.int64), CHIP_SHAPE[0] * CHIP_SHAPE[1])
    return _Photons(events, end, notes)


def _ticks(period_s: float) -> float:
    """Duration in ticks; a whole number where rounding alone keeps it from being one."""
    ticks = period_s / TICK_S
    return round(ticks) if math.isclose(ticks, round(ticks), rel_tol=1e-9) else ticks


def _pixel_words(path: Path) -> NDArray[np.uint64]:
    """All pixel words of the file, in the order of the file."""
    if path.stat().st_size % 8:
        raise _cut_off(path, path.stat().st_size)
    words = np.fromfile(path, "<u8")
    kept = [words[lo:hi] for lo, hi in _chunks(words, path)]
    inside = np.concatenate(kept) if kept else words[:0]
    kind = inside >> np.uint64(60)
    if (kind == _COUNTING).any():
        raise FramesError(f"{path.name} was taken in counting mode: its hits have no arrival times.", _NO_TIMES)
    return inside[kind == _PIXEL]


def _chunks(words: NDArray[np.uint64], path: Path) -> Iterator[tuple[int, int]]:
    """Where the words of each chunk begin and end."""
    at = 0
    while at < words.size:
        header = int(words[at])
        if header & 0xFFFFFFFF != MAGIC:
            raise FramesError(
                f"{path} is damaged: no chunk begins at byte {8 * at}.", "Copy it again from the detector."
            )
        if (header >> 32) & 0xFF:
            raise FramesError(
                f"{path.name} holds hits of chip {(header >> 32) & 0xFF}; only single chips are read.",
                "Write each chip to a file of its own.",
            )
        end = at + 1 + (header >> 48) // 8
        if (header >> 48) % 8 or end > words.size:
            raise _cut_off(path, 8 * words.size)
        yield at + 1, end
        at = end


def _cut_off(path: Path, size: int) -> FramesError:
    return FramesError(
        f"{path} is cut off: it ends at byte {size} inside a chunk.", "Copy it again from the detector's computer."
    )


def _decoded(words: NDArray[np.uint64]) -> Hits:
    def bits(first: int, n: int) -> IntArray:
        return ((words >> np.uint64(first)) & np.uint64(2**n - 1)).astype(np.int64)

    # A double column holds two columns of super pixels; a super pixel is 2 columns of 4 rows.
    in_super_pixel = bits(44, 3)
    row = 4 * bits(47, 6) + in_super_pixel % 4
    column = 2 * bits(53, 7) + in_super_pixel // 4
    tick = ((bits(0, 16) << 18) | (bits(30, 14) << 4)) - bits(16, 4)
    return Hits(tick, row, column, bits(20, 10))


def _in_order(hits: Hits, path: Path) -> tuple[Hits, tuple[str, ...]]:
    """Hits by time, without roll-over and without those whose time stamp jumped."""
    if hits.tick.size == 0:
        raise FramesError(f"{path.name} holds no hit.", "Check that the shutter was open and the threshold right.")
    tick = _unrolled(hits.tick)
    jumped = _jumped(tick)
    kept = np.flatnonzero(~jumped)
    order = kept[np.argsort(tick[kept], kind="stable")]
    notes = (
        (f"{int(jumped.sum())} hits of {path.name} whose time stamps jumped were left out.",) if jumped.any() else ()
    )
    return Hits(tick[order], hits.row[order], hits.column[order], hits.over_threshold[order]), notes


def _unrolled(tick: IntArray) -> IntArray:
    """A step of more than half the clock's range is a roll-over, forwards or, for a late packet, backwards."""
    turns = -np.rint(np.diff(tick) / _ROLLOVER).astype(np.int64)
    return tick + _ROLLOVER * np.concatenate([[0], np.cumsum(turns)])


def _jumped(tick: IntArray) -> BoolArray:
    """Hits far later, or far earlier, than both those before and those after them in the file."""
    if tick.size <= 2 * _AROUND:
        return np.zeros(tick.size, np.bool_)
    medians = np.median(sliding_window_view(tick, _AROUND), axis=1)
    before, after = medians[: -_AROUND - 1], medians[_AROUND + 1 :]
    middle = tick[_AROUND:-_AROUND]
    jumped = np.zeros(tick.size, np.bool_)
    jumped[_AROUND:-_AROUND] = (middle > np.maximum(before, after) + _MOST_LATE_TICKS) | (
        middle < np.minimum(before, after) - _MOST_LATE_TICKS
    )
    return jumped
