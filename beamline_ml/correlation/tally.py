"""How many of some pixels have a photon in each of many frames: bits added up, 64 frames a word.

Eight words are added by full adders into words of weight 1, 2, 4 and 8 (carry-save adders, as in W. Mula, N. Kurz and
D. Lemire, Comput. J. 61, 111, 2018), so that sums of up to 255 pixels leave the form of bits once.
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
PLANES = 8
MOST = 248
"""Pixels of one tally: their sum fits 8 bits, and they come in eights."""


@numba.njit(cache=True)
def add_pixels(
    sums: Any,
    words: Any,
    width: Any,
    n_words: Any,
    places: Any,
    counts: Any,
    nothing: Any,
    starts: Any,
    planes: Any,
) -> None:
    """Add to ``sums`` (64 a word) the counts of those pixels that have a photon in the frames of ``words``.

    The words of a pixel at ``place`` begin at place * width; those of ``nothing`` are 0. ``starts`` (MOST)
    int64 and ``planes`` (PLANES * EIGHT) uint64 are room to work in.
    """
    n = 0
    for e in range(places.size):
        start = places[e] * width
        if counts[e] != 1:
            for word in range(n_words):
                add_where(sums, word * LANES, words[start + word], counts[e])
            continue
        starts[n] = start
        n += 1
        if n == MOST:
            _add_tally(sums, words, n_words, starts, n, planes)
            n = 0
    if n:
        n_eights = (n + EIGHT - 1) // EIGHT
        starts[n : n_eights * EIGHT] = nothing * width
        _add_tally(sums, words, n_words, starts, n, planes)


@numba.njit(cache=True)
def _add_tally(sums: Any, words: Any, n_words: Any, starts: Any, n: Any, planes: Any) -> None:
    n_eights, n_planes = (n + EIGHT - 1) // EIGHT, 0
    while n >> n_planes:
        n_planes += 1
    wide = n_words // EIGHT * EIGHT
    for word in range(0, wide, EIGHT):
        tally_eight(words, word, starts, n_eights, planes, n_planes)
        for k in range(EIGHT):
            add_planes(sums, (word + k) * LANES, planes, k, EIGHT, n_planes)
    for word in range(wide, n_words):
        tally_one(words, word, starts, n_eights, planes, n_planes)
        add_planes(sums, word * LANES, planes, 0, 1, n_planes)


def _tally_of(n_side_by_side: int) -> Callable[..., Any]:
    vector = ir.VectorType(I64, n_side_by_side)

    def typed(_context: Any, words: Any, _word: Any, starts: Any, _n_eights: Any, planes: Any, _n_planes: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            data, word, start_data, n_eights, plane_data, n_planes = arguments

            def plane(k: Any) -> Any:
                place = builder.mul(k, ir.Constant(I64, n_side_by_side))
                return place_of(context, builder, planes, plane_data, place, vector)

            def column(first: Any, k: int) -> Any:
                at = place_of(context, builder, starts, start_data, builder.add(first, ir.Constant(I64, k)), I64)
                begin = builder.add(builder.load(at), word)
                return builder.load(place_of(context, builder, words, data, begin, vector), align=8)

            low = [cgutils.alloca_once(builder, vector) for _ in range(3)]
            for place in (*low, *(plane(ir.Constant(I64, k)) for k in range(3, PLANES))):
                builder.store(splat(I64, 0, n_side_by_side), place, align=8)
            with cgutils.for_range(builder, n_eights, intp=I64) as loop:
                first = builder.mul(loop.index, ir.Constant(I64, EIGHT))
                carry = _eight_added(builder, low, [column(first, k) for k in range(EIGHT)])
                _ripple(builder, plane, carry, n_planes)
            for k, place in enumerate(low):
                builder.store(builder.load(place), plane(ir.Constant(I64, k)), align=8)
            return context.get_dummy_value()

        return types.void(words, types.int64, starts, types.int64, planes, types.int64), generate

    return typed


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


tally_eight: Any = intrinsic(_tally_of(EIGHT))
"""tally_eight(words, word, starts, n_eights, planes, n_planes): add up 8 n_eights columns of bits, 512 lanes.

Column k is words[starts[k] + word : ... + 8]. planes[8 b : 8 b + 8] are the bits of weight 2^b of the sums.
"""
tally_one: Any = intrinsic(_tally_of(1))
"""As ``tally_eight``, for one word a column: 64 lanes."""


def _typed_add_planes(
    _context: Any, sums: Any, _start: Any, planes: Any, _at: Any, _stride: Any, _n_planes: Any
) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data, start, plane_data, at, stride, n_planes = arguments
        item, byte = context.get_data_type(sums.dtype), ir.IntType(8)
        total = cgutils.alloca_once_value(builder, splat(byte, 0, LANES))
        weight = cgutils.alloca_once_value(builder, ir.Constant(byte, 1))
        with cgutils.for_range(builder, n_planes, intp=I64) as loop:
            place = builder.add(at, builder.mul(loop.index, stride))
            word = builder.load(place_of(context, builder, planes, plane_data, place, I64), align=8)
            chosen = builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES))
            now = builder.load(weight)
            every = every_lane(builder, now, LANES)
            added = builder.select(chosen, every, splat(byte, 0, LANES))
            builder.store(builder.add(builder.load(total), added), total)
            builder.store(builder.shl(now, ir.Constant(byte, 1)), weight)
        vector = ir.VectorType(item, LANES)
        pointer = place_of(context, builder, sums, data, start, vector)
        wide = builder.zext(builder.load(total), vector)
        builder.store(builder.add(builder.load(pointer, align=4), wide), pointer, align=4)
        return context.get_dummy_value()

    return types.void(sums, types.int64, planes, types.int64, types.int64, types.int64), generate


add_planes: Any = intrinsic(_typed_add_planes)
"""add_planes(sums, start, planes, at, stride, n_planes): add sums that lie in bits to 64 neighbours.

Bits of weight 2^b are planes[at + b stride], for b below n_planes, at most 8.
"""


def room() -> tuple[Any, Any]:
    """What :func:`add_pixels` works in."""
    return np.empty(MOST, np.int64), np.empty(PLANES * EIGHT, np.uint64)
