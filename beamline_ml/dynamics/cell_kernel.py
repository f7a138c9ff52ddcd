"""Velocities straight from the cells that particles lie in, for steps so long that a list of pairs would serve once.

The same sum as ``pair_kernel.pair_velocity``, without the list: distances to all particles of the cells around, then
the force of the near ones, both in loops over memory as it lies.
"""

from __future__ import annotations

import numba
import numpy as np

from beamline_ml.dynamics.neighbours import cell_ahead, n_cells_along, sorted_into_cells
from beamline_ml.dynamics.pair_kernel import force_per_distance, polynomials
from beamline_ml.records import Float64Array


def add_cell_velocities(
    x_um: Float64Array, box_um: float, n_boxes: int, coefficients: Float64Array, cutoff_um: float, out: Float64Array
) -> None:
    """Add pair velocities in um/s to ``out`` (n_boxes * n_per_box, 2).

    Parameters
    ----------
    x_um
        Positions in independent periodic boxes, (n_boxes * n_per_box, 2), not necessarily wrapped; ``n_cells_along``
        must not be 0 for them.
    coefficients, cutoff_um
        Spline of the radial force in um/s, positive repels.
    """
    _add_velocities(x_um, box_um, n_boxes, n_cells_along(box_um, cutoff_um), coefficients, cutoff_um, out)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _add_velocities(x, box, n_boxes, n_cells, coefficients, cutoff, out):  # type: ignore[no-untyped-def]
    per_box = x.shape[0] // n_boxes
    per_spacing = coefficients.shape[0] / cutoff
    pieces = polynomials(coefficients)
    cutoff2 = cutoff * cutoff
    start = np.empty(n_cells * n_cells + 1, np.int64)
    order, near = np.empty(per_box, np.int64), np.empty(per_box + 1, np.int64)
    xs, ys, vx, vy = np.empty(per_box), np.empty(per_box), np.empty(per_box), np.empty(per_box)
    dx, dy, distance2 = np.empty(per_box), np.empty(per_box), np.empty(per_box)
    for b in range(n_boxes):
        offset = b * per_box
        sorted_into_cells(x[offset : offset + per_box], box, n_cells, start, order, xs, ys)
        vx[:] = 0.0
        vy[:] = 0.0
        for c in range(n_cells * n_cells):
            for neighbour in range(5):
                other, shift_x, shift_y = cell_ahead(c, neighbour, n_cells, box)
                end = start[other + 1]
                for i in range(start[c], start[c + 1]):
                    begin = i + 1 if neighbour == 0 else start[other]
                    at_x = xs[i] - shift_x
                    at_y = ys[i] - shift_y
                    # Loops without branches run on vectors.
                    for j in range(end - begin):
                        dx[j] = at_x - xs[begin + j]
                        dy[j] = at_y - ys[begin + j]
                        distance2[j] = dx[j] * dx[j] + dy[j] * dy[j]
                    n_near = 0
                    for j in range(end - begin):
                        near[n_near] = j
                        n_near += 1 if distance2[j] < cutoff2 else 0
                    sum_x = 0.0
                    sum_y = 0.0
                    for p in range(n_near):
                        j = near[p]
                        g = force_per_distance(pieces, np.sqrt(distance2[j]), per_spacing)
                        sum_x += g * dx[j]
                        sum_y += g * dy[j]
                        vx[begin + j] -= g * dx[j]
                        vy[begin + j] -= g * dy[j]
                    vx[i] += sum_x
                    vy[i] += sum_y
        for i in range(per_box):
            out[offset + order[i], 0] += vx[i]
            out[offset + order[i], 1] += vy[i]
