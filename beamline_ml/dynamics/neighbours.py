"""Who can feel whom: half lists of particle pairs within a reach, in periodic boxes or open space.

Several independent boxes of equally many particles are one array of particles; pairs never join two boxes. Lists are
built with a skin and stay valid until some particle has moved half of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

Int32Array = NDArray[np.int32]
FEWEST_CELLS = 4
"""Along an edge of a box: with fewer, a pair of cells might be met twice."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """A half list: every pair once."""

    first: Int32Array
    """(n_pairs,) index of one particle."""
    second: Int32Array
    """(n_pairs,) index of the other."""
    built_at_um: Float64Array
    """(n_particles, 2) positions when the list was built."""
    skin_um: float


@numba.njit(cache=True, fastmath=True, nogil=True)
def _all_pairs(x, box, reach2, n_boxes, first, second):  # type: ignore[no-untyped-def]
    count = 0
    per_box = x.shape[0] // n_boxes
    for b in range(n_boxes):
        for i in range(b * per_box, (b + 1) * per_box):
            for j in range(i + 1, (b + 1) * per_box):
                dx = x[i, 0] - x[j, 0]
                dy = x[i, 1] - x[j, 1]
                if box > 0.0:
                    dx -= box * np.rint(dx / box)
                    dy -= box * np.rint(dy / box)
                if dx * dx + dy * dy < reach2:
                    if count < first.shape[0]:
                        first[count] = i
                        second[count] = j
                    count += 1
    return count


@numba.njit(cache=True, fastmath=True, nogil=True, inline="always")
def sorted_into_cells(x, box, n_cells, start, order, xs, ys):  # type: ignore[no-untyped-def]
    """Particles of one box (n, 2) by cell: ``start`` (n_cells^2 + 1,), their numbers and wrapped positions (n,)."""
    cell = np.empty(x.shape[0], np.int64)
    start[:] = 0
    for i in range(x.shape[0]):
        cx = min(int((x[i, 0] / box - np.floor(x[i, 0] / box)) * n_cells), n_cells - 1)
        cy = min(int((x[i, 1] / box - np.floor(x[i, 1] / box)) * n_cells), n_cells - 1)
        cell[i] = cx * n_cells + cy
        start[cell[i] + 1] += 1
    for c in range(n_cells * n_cells):
        start[c + 1] += start[c]
    fill = start[:-1].copy()
    for i in range(x.shape[0]):
        k = fill[cell[i]]
        fill[cell[i]] += 1
        order[k] = i
        xs[k] = x[i, 0] - box * np.floor(x[i, 0] / box)
        ys[k] = x[i, 1] - box * np.floor(x[i, 1] / box)


@numba.njit(cache=True, fastmath=True, nogil=True, inline="always")
def cell_ahead(c, neighbour, n_cells, box):  # type: ignore[no-untyped-def]
    """Cell c itself (0) or one of the four neighbours "ahead" (1 to 4), and how far its particles are to be shifted.

    So every pair of cells is visited once.
    """
    cx = c // n_cells + (0 if neighbour < 2 else 1)
    cy = c % n_cells + (neighbour if neighbour < 2 else neighbour - 3)
    shift_x = box if cx == n_cells else 0.0
    shift_y = box if cy == n_cells else (-box if cy < 0 else 0.0)
    return (cx % n_cells) * n_cells + cy % n_cells, shift_x, shift_y


@numba.njit(cache=True, fastmath=True, nogil=True)
def _cell_pairs(x, box, reach2, n_boxes, n_cells, first, second):  # type: ignore[no-untyped-def]
    count = 0
    full = False
    per_box = x.shape[0] // n_boxes
    start = np.empty(n_cells * n_cells + 1, np.int64)
    order = np.empty(per_box, np.int64)
    xs, ys, distance2 = np.empty(per_box), np.empty(per_box), np.empty(per_box)
    for b in range(n_boxes):
        offset = b * per_box
        sorted_into_cells(x[offset : offset + per_box], box, n_cells, start, order, xs, ys)
        for c in range(n_cells * n_cells):
            for neighbour in range(5):
                other, shift_x, shift_y = cell_ahead(c, neighbour, n_cells, box)
                end = start[other + 1]
                for ii in range(start[c], start[c + 1]):
                    begin = ii + 1 if neighbour == 0 else start[other]
                    at_x = xs[ii] - shift_x
                    at_y = ys[ii] - shift_y
                    # A loop of its own, without branches, runs on vectors.
                    for jj in range(begin, end):
                        distance2[jj] = (xs[jj] - at_x) ** 2 + (ys[jj] - at_y) ** 2
                    if count + end - begin <= first.shape[0]:
                        # Written in any case and counted if near: a branch here would be guessed wrongly too often.
                        for jj in range(begin, end):
                            first[count] = offset + order[ii]
                            second[count] = offset + order[jj]
                            count += 1 if distance2[jj] < reach2 else 0
                    else:
                        for jj in range(begin, end):
                            count += 1 if distance2[jj] < reach2 else 0
                        full = True
    return max(count, first.shape[0] + 1) if full else count


def n_cells_along(box_um: float, reach_um: float) -> int:
    """How many cells no smaller than the reach an edge of a periodic box holds; 0: too few, or open space."""
    n_cells = int(box_um / reach_um) if box_um > 0 else 0
    return n_cells if n_cells >= FEWEST_CELLS else 0


def build_pairs(
    x_um: Float64Array,
    box_um: float,
    cutoff_um: float,
    n_boxes: int = 1,
    skin_um: float = 0.0,
    max_pairs: int = 40_000_000,
    capacity: int = 0,
) -> Pairs:
    """List all pairs closer than ``cutoff_um + skin_um``.

    Parameters
    ----------
    x_um
        Positions, (n_boxes * n_per_box, 2).
    box_um
        Edge of the square periodic box; 0 means open space.
    capacity
        How many pairs to expect, so that the list need not be built twice.

    Raises
    ------
    FitRefused
        When there are more than ``max_pairs`` pairs: the particles have collapsed into one heap.
    """
    reach = cutoff_um + skin_um
    n_cells = n_cells_along(box_um, reach)
    capacity = max(1024, 16 * len(x_um), capacity)
    while True:
        first = np.empty(capacity, np.int32)
        second = np.empty(capacity, np.int32)
        if n_cells:
            count = _cell_pairs(x_um, box_um, reach * reach, n_boxes, n_cells, first, second)
        else:
            count = _all_pairs(x_um, box_um, reach * reach, n_boxes, first, second)
        if count <= capacity:
            return Pairs(first[:count], second[:count], x_um.copy(), skin_um)
        if count > max_pairs:
            raise FitRefused(
                f"{count} particle pairs lie within {reach:.3g} um: the particles have collapsed.",
                "Use a shorter cutoff, fewer surrogate particles, or check the number density.",
            )
        capacity = int(1.2 * count)


@numba.njit(cache=True, nogil=True)
def _largest_step2(x, y):  # type: ignore[no-untyped-def]
    largest = 0.0
    for i in range(x.shape[0]):
        dx = x[i, 0] - y[i, 0]
        dy = x[i, 1] - y[i, 1]
        largest = max(largest, dx * dx + dy * dy)
    return largest


def still_valid(pairs: Pairs, x_um: Float64Array) -> bool:
    """Whether no particle has moved half the skin since the list was built (positions must not have been wrapped)."""
    return bool(4.0 * _largest_step2(x_um, pairs.built_at_um) < pairs.skin_um**2)
