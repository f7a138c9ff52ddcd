"""C2 of one ring of one run, grown by its new rows only: from tiled's stream as they are written, else by request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class NewRows:
    """What tiled's stream said of a write to ``c2``."""

    key: str
    """Of the run below ``live/``."""
    offset: tuple[int, ...]
    """(ring, row, column) of the first element written."""
    block: NDArray[np.float32]
    """(n_q, n_new, n) as written."""


class RingMatrix:
    """The matrix as far as it is known here."""

    def __init__(self) -> None:
        self._of: tuple[str, int] = ("", -1)
        self._c2 = np.zeros((0, 0), np.float32)
        self._version: Any = None
        self._n_behind = 0
        """Looks in a row at which the catalogue had fewer rows."""

    def updated(self, children: Mapping[str, Any], key: str, ring: int, version: Any) -> NDArray[np.float32]:
        """The matrix as it is in the catalogue now; ``version`` changes when earlier rows did."""
        array = children["c2"]
        n = int(array.shape[1])
        # The stream may be ahead of the catalogue, but not for two looks in a row.
        self._n_behind = self._n_behind + 1 if n < len(self._c2) else 0
        if (key, ring) != self._of or version != self._version or self._n_behind > 1:
            self._of, self._version = (key, ring), version
            self._c2 = np.zeros((0, 0), np.float32)
        if n > len(self._c2):
            # The last row may have been seen before it was final.
            first = max(0, len(self._c2) - 1)
            rows = np.asarray(array[ring, first:n, :n])
            # An array is there before its first values are, and is zero until then.
            if rows.any():
                self._add(rows, first)
        return self._c2

    def streamed(self, news: NewRows) -> NDArray[np.float32] | None:
        """The matrix with rows that tiled's stream brought; None when they do not fit to what is known."""
        key, ring = self._of
        _, first, column = news.offset
        n = news.block.shape[2]
        is_rows = news.key == key and column == 0 and first + news.block.shape[1] == n
        if not is_rows or first > len(self._c2) or n < len(self._c2) or ring >= len(news.block):
            return None  # written a second time as columns, or a message before it was lost: the catalogue will tell
        self._add(news.block[ring], first)
        return self._c2

    def _add(self, rows: NDArray[np.float32], first: int) -> None:
        """Put (n - first, n) rows below those known, and their mirror image beside them."""
        n = rows.shape[1]
        grown = np.full((n, n), np.nan, np.float32)
        grown[:first, :first] = self._c2[:first, :first]
        grown[first:, :] = rows
        grown[:first, first:] = rows[:, :first].T
        grown[first:, first:] = _mirrored(rows[:, first:])
        self._c2 = grown


def _mirrored(square: NDArray[np.float32]) -> NDArray[np.float32]:
    lower = np.tril(square)
    return lower + np.tril(square, -1).T
