"""Two-time correlation: exact sums while frames arrive, normalised when asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.checkpoint import qmap_arrays, qmap_of
from beamline_ml.correlation.choice import KERNELS, choose_kernel
from beamline_ml.correlation.gram import PairKernel, check_range
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.quality import quality_of_totals
from beamline_ml.correlation.readout import float_sums, integer_sums, read_out, sums_of_frames
from beamline_ml.correlation.rows import RowStore, checked_period
from beamline_ml.correlation.symmetry import lower_strip
from beamline_ml.errors import CorrelationError
from beamline_ml.records import FrameBlock, FrameQuality, IntArray, TwoTime

STRIP = 2048
"""Frames that are taken in at a time."""
NARROWEST = np.int16


def two_time(
    frames: NDArray[Any] | Iterable[FrameBlock],
    qmap: QMap,
    normalization: str = "plain",
    frame_period_s: float = 1.0,
    *,
    bad_frames: Iterable[int] = (),
    saturation: float | None = None,
    n_frames: int | None = None,
) -> TwoTime:
    """Two-time correlation of a whole run.

    Parameters
    ----------
    frames
        (n_frames, rows, cols) counts or floating-point intensities, or an iterable of ``FrameBlock``.
    qmap
        Which pixel belongs to which bin. Nothing else is masked.
    normalization
        ``"plain"``: P sum_p x x' / (S S'). ``"static"``: pixels are divided by their static bin's mean first.
    frame_period_s
        Time from one frame to the next in s.
    bad_frames
        Indices of frames to leave out; their rows are NaN.
    saturation
        Counts from which a pixel counts as saturated. Default: the largest value of the integer type.

    Raises
    ------
    CorrelationError, GeometryError
        The frames cannot be correlated, or do not fit the q-map.
    """
    blocks, known = _blocks(frames)
    accumulator = TwoTimeAccumulator(
        qmap,
        frame_period_s,
        n_frames if n_frames is not None else known,
        normalization,
        bad_frames=bad_frames,
        saturation=saturation,
        _once=True,
    )
    for block in blocks:
        accumulator.add(block.frames, block.first_index)
    return accumulator._last_result()


class TwoTimeAccumulator:
    """Adds frames in any split, order and repetition; the result depends only on which frames have arrived.

    Parameters
    ----------
    qmap, frame_period_s, normalization, bad_frames, saturation
        As in :func:`two_time`.
    n_frames
        Length of the run when it is known: frames that never arrive become NaN rows. None: the last frame decides.
    """

    def __init__(
        self,
        qmap: QMap,
        frame_period_s: float = 1.0,
        n_frames: int | None = None,
        normalization: str = "plain",
        *,
        bad_frames: Iterable[int] = (),
        saturation: float | None = None,
        _once: bool = False,
    ) -> None:
        _check_arguments(normalization, n_frames)
        self.qmap = qmap
        self.frame_period_s = checked_period(frame_period_s)
        self.normalization = normalization
        # Read out once, C2 will take the memory of the frames.
        c2_bytes = 4 * qmap.n_q * (n_frames or 0) ** 2 if _once else 0
        self._store = RowStore(qmap, n_frames, saturation, frozenset(int(i) for i in bad_frames), c2_bytes)
        order = self._store.order
        self._edges: IntArray = order.dynamic_edges if normalization == "plain" else order.static_edges
        self._gram: NDArray[Any] = np.zeros((self._edges.size - 1, 0, 0), NARROWEST)
        """Lower triangles, in the narrowest type that holds them: a long run's are most of its memory."""
        self._lent = False
        """Whether a result holds the sums, which must then stay as they are."""
        self._summed: IntArray = np.zeros(0, np.int64)
        self._kernel_name = ""
        self._kernel: PairKernel | None = None

    @property
    def n_frames(self) -> int:
        """Rows of the result so far."""
        return self._store.n_frames or self._store.n_rows

    def add(self, frames: NDArray[Any], first_index: int) -> None:
        """Take in a block; ``first_index`` is the place of its first frame in the run (0-based).

        A frame that has arrived before is ignored; the same index with other counts is refused.
        """
        new = self._store.add(frames, int(first_index))
        if self._is_exact:
            self._make_wide_enough()
            for lo, hi in _stretches(new):
                self._correlate(lo, hi)

    def result(self) -> TwoTime:
        """C2 of what has arrived; rows of frames that have not are NaN."""
        return self._read_out()

    def _last_result(self) -> TwoTime:
        """As :meth:`result`, the last use of an accumulator: its frames are let go, and C2 takes their memory."""
        if not self._is_exact:
            return self._read_out()
        self._kernel = None
        return self._read_out(self._store.let_go())

    def _read_out(self, memory: NDArray[np.uint8] | None = None) -> TwoTime:
        store, n = self._store, self.n_frames
        if not store.present.any():
            raise CorrelationError("No usable frame has arrived.", "Add frames before asking for a result.")
        sums = integer_sums(store, self._gram, self._edges, n) if self._is_exact else float_sums(store, self._edges, n)
        self._lent = self._lent or sums.numerator is self._gram
        present = store.present[:n]
        return read_out(store, sums, self.normalization, self.frame_period_s, present, memory=memory)

    @property
    def _is_exact(self) -> bool:
        """Whether the sums are those of integers, which need the frames no more."""
        return bool(self._store.is_integer and self.qmap.flatfield is None)

    @property
    def rows_are_final(self) -> bool:
        """Whether no frame that is still to come changes C2 of those that are here: integer frames without a gap."""
        store, n = self._store, self.n_frames
        return bool(self._is_exact and self.normalization == "plain" and store.present[:n].all())

    def frame_sums(self) -> IntArray:
        """(n_q, n_frames) sums of counts; for runs whose rows are final."""
        return sums_of_frames(self._store, self._edges, self.n_frames)

    def products_from(self, first: int) -> IntArray:
        """(n_q, n_frames - first, n_frames) sums of products, the rows from ``first`` on; as :meth:`frame_sums`."""
        return lower_strip(self._gram, first, self.n_frames)

    def quality(self) -> FrameQuality:
        """What is wrong with which frame."""
        store, n = self._store, self.n_frames
        total = store.group_sums[:n].sum(axis=1)
        return quality_of_totals(store.present[:n], total, store.saturated[:n], self.qmap.n_bad_pixels)

    def _correlate(self, lo: int, hi: int) -> None:
        """New rows against every row that is there; the lower triangle is kept."""
        store = self._store
        self._reserve(store.present.size)
        kernel = self._kernel_called(choose_kernel(store.rows[lo:hi], store.max_count))
        for first in range(lo, hi, STRIP):
            kernel.add(self._gram, store.rows, first, min(first + STRIP, hi), store.n_rows)
        self._summed = np.union1d(self._summed, np.arange(lo, hi))

    def _make_wide_enough(self) -> None:
        store = self._store
        check_range(store.max_count, int(np.diff(self._edges).max()))
        # No sum of products is larger than the largest count times the largest sum of counts.
        largest = store.max_count * int(sums_of_frames(store, self._edges, store.n_rows).max(initial=0))
        wanted = np.promote_types(self._gram.dtype, np.min_scalar_type(-largest))
        if wanted != self._gram.dtype:
            self._gram, self._lent = self._gram.astype(wanted), False

    def _kernel_called(self, name: str) -> PairKernel:
        """The kernel at work, or another that knows the rows of before."""
        if self._kernel is None or name != self._kernel_name:
            self._kernel_name, self._kernel = name, KERNELS[name](self._edges)
            for first, last in _stretches(self._summed):
                self._kernel.load(self._store.rows, first, last)
        return self._kernel

    def _reserve(self, n: int) -> None:
        if self._lent:
            self._gram, self._lent = self._gram.copy(), False
        if n > self._gram.shape[1]:
            grown = np.zeros((self._gram.shape[0], n, n), self._gram.dtype)
            old = self._gram.shape[1]
            grown[:, :old, :old] = self._gram
            self._gram = grown

    def to_arrays(self, since: int = 0) -> dict[str, NDArray[Any]]:
        """The whole state as named arrays (a checkpoint); :meth:`from_arrays` goes on from there.

        With ``since``, of a run whose frames come in order: what is not in a state of that many frames.
        :func:`beamline_ml.correlation.checkpoint.joined` puts such parts together.
        """
        n, store = self.n_frames, self._store
        arrays: dict[str, NDArray[Any]] = {
            "frame_period_s": np.array(self.frame_period_s),
            "n_frames": np.array(-1 if store.n_frames is None else store.n_frames),
            "normalization": np.array(self.normalization),
            "bad_frames": np.array(sorted(store.bad_frames), np.int64),
            "saturation": np.array(np.nan if store.saturation is None else store.saturation),
            "kind": np.array(-1 if store.is_integer is None else int(store.is_integer)),
            "max_count": np.array(store.max_count),
            "n_rows": np.array(store.n_rows),
            "rows": store.rows[since:n],
            "group_sums": store.group_sums[since:n],
            "present": store.present[since:n],
            "saturated": store.saturated[since:n],
            "gram": self._gram[:, since:n, :n],
        }
        return qmap_arrays(self.qmap) | arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """An accumulator in the state that :meth:`to_arrays` returned."""
        n_frames, saturation, kind = int(arrays["n_frames"]), float(arrays["saturation"]), int(arrays["kind"])
        self = cls(
            qmap_of(arrays),
            float(arrays["frame_period_s"]),
            None if n_frames < 0 else n_frames,
            str(arrays["normalization"]),
            bad_frames=arrays["bad_frames"].tolist(),
            saturation=None if np.isnan(saturation) else saturation,
        )
        store = self._store
        store.is_integer = None if kind < 0 else bool(kind)
        store.max_count, store.n_rows = int(arrays["max_count"]), int(arrays["n_rows"])
        store.rows, store.present = np.array(arrays["rows"]), np.array(arrays["present"])
        store.group_sums = np.array(arrays["group_sums"])
        self._summed = np.flatnonzero(store.present)
        store.saturated, self._gram = np.array(arrays["saturated"]), np.array(arrays["gram"])
        return self


def _blocks(frames: NDArray[Any] | Iterable[FrameBlock]) -> tuple[Iterable[FrameBlock], int | None]:
    if isinstance(frames, np.ndarray):
        if frames.ndim != 3:
            raise CorrelationError(f"The frames have shape {frames.shape}.", "Give (n_frames, rows, cols).")
        return (FrameBlock(i, frames[i : i + STRIP]) for i in range(0, frames.shape[0], STRIP)), frames.shape[0]
    return frames, None


def _stretches(index: IntArray) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive indices."""
    if index.size == 0:
        return []
    parts = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def _check_arguments(normalization: str, n_frames: int | None) -> None:
    if normalization not in ("plain", "static"):
        raise CorrelationError(f"Normalisation {normalization!r} is unknown.", "Choose 'plain' or 'static'.")
    if n_frames is not None and n_frames < 1:
        raise CorrelationError(f"The run has n_frames = {n_frames}.", "Correlation needs at least one frame.")
