"""How many of some pixels have a photon in each of 512 frames: bits added up, 64 frames a word.

Eight words are added by full adders into words of weight 1, 2, 4 and 8 (carry-save adders, as in W. Mula, N. Kurz and
D. Lemire, Comput. J. 61, 111, 2018), so that sums of up to 65,528 pixels leave the form of bits once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from beamline_ml.correlation.vectors import I64, LANES, add_where, every_lane, place_of, splat

EIGHT = 8
"""Words that the adders take at a time, and that lie side by side in a vector."""
FRAMES = EIGHT * LANES
"""Frames whose bits lie together."""
BYTE_PLANES = 8
PLANES = 16
MOST = 2**PLANES - EIGHT
"""Pixels of one tally: their sum fits 16 bits, and they come in eights."""


@numba.njit(cache=True)
def add_pixels(sums: Any, words: Any, starts: Any, planes: Any) -> None:
    """Add to ``sums`` (512) how many of some pixels have a photon in each of the frames of ``words``.

    The eight words of a pixel begin at an element of ``starts``, whose number is a multiple of eight (words that are 0
    fill it up). ``planes`` (PLANES * EIGHT) uint64 are room to work in.
    """
    for first in range(0, starts.size, MOST):
        n = min(MOST, starts.size - first)
        n_planes = 0
        while n >> n_planes:
            n_planes += 1
        tally(words, starts, first, n // EIGHT, planes, n_planes)
        for k in range(EIGHT):
            if n_planes <= BYTE_PLANES:
                add_byte_planes(sums, k * LANES, planes, k, n_planes)
            else:
                add_planes(sums, k * LANES, planes, k, n_planes)


@numba.njit(cache=True)
def add_bright_pixel(sums: Any, words: Any, start: Any, count: Any) -> None:
    """Add ``count`` to those of ``sums`` (512) in whose frames the pixel with words from ``start`` on has a photon."""
    for k in range(EIGHT):
        add_where(sums, k * LANES, words[start + k], count)


def _typed_tally(
    _context: Any, words: Any, starts: Any, _first: Any, _n_eights: Any, planes: Any, _n_planes: Any
) -> Any:
    vector = ir.VectorType(I64, EIGHT)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data, start_data, start, n_eights, plane_data, n_planes = arguments

        def plane(k: Any) -> Any:
            place = builder.mul(k, ir.Constant(I64, EIGHT))
            return place_of(context, builder, planes, plane_data, place, vector)

        def column(first: Any, k: int) -> Any:
            at = place_of(context, builder, starts, start_data, builder.add(first, ir.Constant(I64, k)), I64)
            return builder.load(place_of(context, builder, words, data, builder.load(at), vector), align=8)

        low = [cgutils.alloca_once(builder, vector) for _ in range(3)]
        for place in (*low, *(plane(ir.Constant(I64, k)) for k in range(3, PLANES))):
            builder.store(splat(I64, 0, EIGHT), place, align=8)
        with cgutils.for_range(builder, n_eights, intp=I64) as loop:
            first = builder.add(start, builder.mul(loop.index, ir.Constant(I64, EIGHT)))
            carry = _eight_added(builder, low, [column(first, k) for k in range(EIGHT)])
            _ripple(builder, plane, carry, n_planes)
        for k, place in enumerate(low):
            builder.store(builder.load(place), plane(ir.Constant(I64, k)), align=8)
        return context.get_dummy_value()

    return types.void(words, starts, types.int64, types.int64, planes, types.int64), generate


def _eight_added(builder: Any, low: list[Any], columns: list[Any]) -> Any:
    """Add eight words to those of weight 1, 2 and 4; returns what is carried to weight 8."""
    ones, twos, fours = low
    pairs = [_added(builder, ones, *columns[k : k + 2]) for k in range(0, EIGHT, 2)]
    carried = [_added(builder, twos, *pairs[k : k + 2]) for k in (0, 2)]
    return _added(builder, fours, *carried)


def _added(builder: Any, total: Any, one: Any, other: Any) -> Any:
    """Full adder: ``total`` keeps the sum, the carry is returned."""
    kept = builder.load(total)
    either = builder.xor(one, other)
    builder.store(builder.xor(kept, either), total)
    return builder.or_(builder.and_(one, other), builder.and_(kept, either))


def _ripple(builder: Any, plane: Callable[[Any], Any], carry: Any, n_planes: Any) -> None:
    """Add what is carried to weight 8 and above."""
    carried = cgutils.alloca_once_value(builder, carry)
    with cgutils.for_range_slice(builder, ir.Constant(I64, 3), n_planes, ir.Constant(I64, 1), I64) as (k, _):
        old, new = builder.load(plane(k), align=8), builder.load(carried)
        builder.store(builder.xor(old, new), plane(k), align=8)
        builder.store(builder.and_(old, new), carried)


tally: Any = intrinsic(_typed_tally)
"""tally(words, starts, first, n_eights, planes, n_planes): add up 8 n_eights columns of bits, 512 lanes.

Column k is words[starts[first + k] : ... + 8]. planes[8 b : 8 b + 8] are the bits of weight 2^b of the sums.
"""


def _add_planes_of(n_bits: int) -> Callable[..., Any]:
    narrow = ir.IntType(n_bits)

    def typed(_context: Any, sums: Any, _start: Any, planes: Any, _at: Any, _n_planes: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            data, start, plane_data, at, n_planes = arguments
            total = cgutils.alloca_once_value(builder, splat(narrow, 0, LANES))
            weight = cgutils.alloca_once_value(builder, ir.Constant(narrow, 1))
            with cgutils.for_range(builder, n_planes, intp=I64) as loop:
                place = builder.add(at, builder.mul(loop.index, ir.Constant(I64, EIGHT)))
                word = builder.load(place_of(context, builder, planes, plane_data, place, I64), align=8)
                chosen = builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES))
                now = builder.load(weight)
                added = builder.select(chosen, every_lane(builder, now, LANES), splat(narrow, 0, LANES))
                builder.store(builder.add(builder.load(total), added), total)
                builder.store(builder.shl(now, ir.Constant(narrow, 1)), weight)
            item = context.get_data_type(sums.dtype)
            vector = ir.VectorType(item, LANES)
            pointer = place_of(context, builder, sums, data, start, vector)
            found = builder.load(total)
            wide = found if item.width == n_bits else builder.zext(found, vector)
            builder.store(builder.add(builder.load(pointer, align=2), wide), pointer, align=2)
            return context.get_dummy_value()

        return types.void(sums, types.int64, planes, types.int64, types.int64), generate

    return typed


add_planes: Any = intrinsic(_add_planes_of(PLANES))
"""add_planes(sums, start, planes, at, n_planes): add sums that lie in bits to 64 neighbours.

Bits of weight 2^b are planes[at + 8 b], for b below n_planes, at most 16.
"""
add_byte_planes: Any = intrinsic(_add_planes_of(BYTE_PLANES))
"""The same for at most 8 planes, in half the time."""


def room() -> Any:
    """What :func:`add_pixels` works in."""
    return np.empty(PLANES * EIGHT, np.uint64)
