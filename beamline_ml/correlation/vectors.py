"""Inner loops spelled out as vectors, where the compiler does not find them by itself.

They are written in the compiler's own language, which every processor can run; only their width depends on it.
Nothing checks the bounds: callers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

COPY = 16
"""Bytes that :data:`copy_piece` moves at a time."""
LANES = 64
"""Pixels that :data:`occupied` looks at."""
TILE = 8
"""Sums that :data:`popcount_tile` makes at a time."""
POPCOUNT_WORDS = 8 if get_host_cpu_features().get("avx512vpopcntdq") else 4
"""64-bit words in a vector of :data:`popcount_tile`; row ends are padded to 8, which both divide."""
N_DOTS = 4
"""Rows that :data:`dot_rows` multiplies one row by."""
DOT_PIXELS = 32
DOT_FLUSH_STEPS = 16
DOT_MAX_COUNT = 63
"""63^2 x 16 still fits 16 bits."""

I64 = ir.IntType(64)


def place_of(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: ir.Type) -> Any:
    """Pointer to a vector, or one item, that starts at the element ``index`` of the data of an array."""
    data = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def splat(item: ir.Type, value: int, n: int) -> ir.Constant:
    """Constant vector with the same value in every lane."""
    return ir.Constant(ir.VectorType(item, n), [value] * n)


def every_lane(builder: Any, value: Any, n: int) -> Any:
    """Vector with a value in every lane."""
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, splat(ir.IntType(32), 0, n))


def _typed_copy(_context: Any, target: Any, _at_byte: Any, source: Any, _start: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target_data, at_byte, source_data, start = arguments
        vector = ir.VectorType(ir.IntType(8), COPY)
        piece = builder.load(place_of(context, builder, source, source_data, start, vector), align=1)
        builder.store(piece, place_of(context, builder, target, target_data, at_byte, vector), align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate


copy_piece: Any = intrinsic(_typed_copy)
"""copy_piece(target, at, source, start): 16 bytes of one byte array to another."""


def _typed_occupied(_context: Any, row: Any, _start: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, start = arguments
        item = context.get_data_type(row.dtype)
        counts = builder.load(place_of(context, builder, row, data, start, ir.VectorType(item, LANES)), align=1)
        masks = [
            builder.bitcast(builder.icmp_unsigned(">", counts, splat(item, least, LANES)), I64) for least in (0, 1)
        ]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 2)(row, types.int64), generate


occupied: Any = intrinsic(_typed_occupied)
"""occupied(row, start): bits of the 64 pixels from ``start`` on that hold a photon, and of those that hold several."""


def _typed_add_where(_context: Any, sums: Any, _start: Any, _word: Any, _value: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data, start, word, value = arguments
        item = context.get_data_type(sums.dtype)
        vector = ir.VectorType(item, LANES)
        pointer = place_of(context, builder, sums, data, start, vector)
        every = every_lane(builder, context.cast(builder, value, types.int64, sums.dtype), LANES)
        chosen = builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES))
        added = builder.select(chosen, every, splat(item, 0, LANES))
        builder.store(builder.add(builder.load(pointer, align=2), added), pointer, align=2)
        return context.get_dummy_value()

    return types.void(sums, types.int64, types.uint64, types.int64), generate


add_where: Any = intrinsic(_typed_add_where)
"""add_where(sums, start, word, value): add to those of 64 neighbours whose bit is set in ``word``."""


def _typed_popcount_tile(_context: Any, bits: Any, _starts: Any, _n_words: Any, sums: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data, starts, n_words, target = arguments
        vector = ir.VectorType(I64, POPCOUNT_WORDS)
        name = f"llvm.ctpop.v{POPCOUNT_WORDS}i64"
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name)
        totals = [cgutils.alloca_once(builder, vector) for _ in range(TILE)]
        for total in totals:
            builder.store(splat(I64, 0, POPCOUNT_WORDS), total)
        places = cgutils.unpack_tuple(builder, starts)
        step = ir.Constant(I64, POPCOUNT_WORDS)
        with cgutils.for_range_slice(builder, ir.Constant(I64, 0), n_words, step, I64) as (word, _):
            rows = [
                builder.load(place_of(context, builder, bits, data, builder.add(place, word), vector), align=8)
                for place in places
            ]
            pairs = [(one, other) for one in rows[:2] for other in rows[2:]]
            for total, (one, other) in zip(totals, pairs, strict=True):
                both = builder.call(count, [builder.and_(one, other)])
                builder.store(builder.add(builder.load(total), both), total)
        found = _lane_sums(builder, [builder.load(total) for total in totals], POPCOUNT_WORDS)
        for k, part in enumerate(found):
            place = ir.Constant(I64, k * POPCOUNT_WORDS)
            builder.store(part, place_of(context, builder, sums, target, place, vector), align=8)
        return context.get_dummy_value()

    starts = types.UniTuple(types.int64, 6)
    return types.void(bits, starts, types.int64, sums), generate


popcount_tile: Any = intrinsic(_typed_popcount_tile)
"""popcount_tile(bits, starts, n_words, sums): bits that two rows share with each of four others.

``bits`` is flat, ``starts`` says where the six rows begin; n_words is a multiple of 8. sums[0:4] are the first row's.
"""


def _typed_dot_rows(_context: Any, rows: Any, _start: Any, _starts: Any, _n_steps: Any, sums: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data, start, starts, n_steps, target = arguments
        counts = ir.VectorType(ir.IntType(8), DOT_PIXELS)
        narrow = ir.VectorType(ir.IntType(16), DOT_PIXELS)
        totals = [cgutils.alloca_once(builder, narrow) for _ in range(N_DOTS)]
        for total in totals:
            builder.store(splat(ir.IntType(16), 0, DOT_PIXELS), total)
        places = cgutils.unpack_tuple(builder, starts)
        with cgutils.for_range(builder, n_steps, intp=I64) as loop:
            shift = builder.mul(loop.index, ir.Constant(I64, DOT_PIXELS))

            def load(place: Any) -> Any:
                pointer = place_of(context, builder, rows, data, builder.add(place, shift), counts)
                return builder.zext(builder.load(pointer, align=1), narrow)

            mine = load(start)
            for total, place in zip(totals, places, strict=True):
                builder.store(builder.add(builder.load(total), builder.mul(mine, load(place))), total)
        _add_up(context, builder, totals, sums, target)
        return context.get_dummy_value()

    starts = types.UniTuple(types.int64, N_DOTS)
    return types.void(rows, types.int64, starts, types.int64, sums), generate


dot_rows: Any = intrinsic(_typed_dot_rows)
"""dot_rows(rows, start, starts, n_steps, sums): add products of one byte row with four others, 16 bits at a time.

``rows`` is flat; ``n_steps`` times 32 pixels, at most 16 times, of counts up to 63. sums (4, 16) int32 hold the parts.
"""


def _add_up(context: Any, builder: Any, totals: Sequence[Any], sums: Any, target: Any) -> None:
    """Widen 32 sums of 16 bits and add them to 16 of 32 bits."""
    wide = ir.VectorType(ir.IntType(32), DOT_PIXELS // 2)
    for k, total in enumerate(totals):
        value = builder.load(total)
        low, high = (
            builder.zext(_shuffled(builder, value, value, range(first, first + DOT_PIXELS // 2)), wide)
            for first in (0, DOT_PIXELS // 2)
        )
        pointer = place_of(context, builder, sums, target, ir.Constant(I64, k * DOT_PIXELS // 2), wide)
        builder.store(builder.add(builder.load(pointer, align=4), builder.add(low, high)), pointer, align=4)


def _lane_sums(builder: Any, vectors: list[Any], width: int) -> list[Any]:
    """Sums over the lanes of each vector, ``width`` of them in a vector: halves are added while they are regrouped."""
    stride = 1
    while stride < width:
        vectors = [
            _folded(builder, one, other, stride, width) for one, other in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        stride *= 2
    return vectors


def _folded(builder: Any, one: Any, other: Any, stride: int, width: int) -> Any:
    low, high = [], []
    for lane in range(width):
        block, place = lane // (2 * stride) * 2 * stride, lane % (2 * stride)
        start = block + place % stride + (width if place >= stride else 0)
        low.append(start)
        high.append(start + stride)
    return builder.add(_shuffled(builder, one, other, low), _shuffled(builder, one, other, high))


def _shuffled(builder: Any, one: Any, other: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))
