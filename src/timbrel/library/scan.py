"""The search itself, compiled: candidates by their codes, distances from the full vectors, the nearest in order.

    query ─► principal components ─► nearest cells ─► their lists' codes ─► candidates ─┐
                                     rows that are scanned, or that others propose ─────┴► distances ─► k nearest

One call answers all queries of a gate, so that neither many nor few pay for what surrounds it. Codes lie dimension by
dimension, one list after the other, which the compiler turns into vector instructions over a list's entries. Nothing
is kept in a heap: a bound is bisected by counting what lies within it, which has no branch to mispredict, and what
lies within is then written out.

Compiling takes seconds, so its result is kept beside this module, in the user's cache or in NUMBA_CACHE_DIR; where
none of these can be written, every process compiles at its first search. No lock is held while it runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from timbrel.library import cells as layout
from timbrel.library import partitions

# Stated here, too: what was compiled before is used again as long as this file stays the same.
LANES, TERMS, NORM_TOLERANCE = 16, 4, 1e-2
if (layout.LANES, layout.TERMS, partitions.NORM_TOLERANCE) != (LANES, TERMS, NORM_TOLERANCE):
    raise ImportError("scan.py states other constants than cells.py and partitions.py; make them equal")

# Candidates for every hit that is asked for, and a few more: what a code's error may cost in order.
_SHARE, _MORE = 0.125, 2
# Rows that stay in the cache while all queries are compared with them.
_TILE = 32
_HALVINGS = 40
# No distance lies beyond it, and no product of what is l2-normalised, whatever its code adds.
_FARTHEST = 3.0
# Sums may be reordered into vectors of sums; nothing is assumed of infinities.
_SUMS = {"reassoc", "nsz", "contract"}


def _kept(function: Any) -> Any:
    """``function`` compiled, or what was kept of a former time; those that it calls are part of it."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that can be written
        return njit(nogil=True)(function)


@njit(fastmath=_SUMS)
def _distances(vectors, query, rows, out):  # type: ignore[no-untyped-def]
    """1 − cosine of ``query`` and each of ``rows``. The only place where distances are computed: equal vectors have
    equal ones, whoever asks.
    """
    size = query.shape[0]
    for place in range(rows.shape[0]):
        vector = vectors[rows[place]]
        total = np.float32(0)
        for each in range(size):
            total += query[each] * vector[each]
        out[place] = max(np.float32(1) - total, np.float32(0))


@njit(fastmath=_SUMS)
def _project(query, rotation, out):  # type: ignore[no-untyped-def]
    size = query.shape[0]
    for component in range(rotation.shape[0]):
        axis = rotation[component]
        total = np.float32(0)
        for each in range(size):
            total += query[each] * axis[each]
        out[component] = total


@intrinsic
def _block(typing, weights, codes, start, out, place):  # type: ignore[no-untyped-def]
    """out[place : place + LANES] = sums over components c of weights[c] * codes[start + c * LANES + lane]; LLVM's own
    vectorising of loops keeps the sums in memory, which takes three times as long.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        def number(value: int) -> ir.Constant:
            return ir.Constant(ir.IntType(64), value)

        weighed, coded, summed = (
            arrayobj.make_array(signature.args[each])(context, builder, arguments[each]) for each in (0, 1, 3)
        )
        stored = ir.VectorType(context.get_data_type(signature.args[1].dtype), LANES)
        lanes = ir.VectorType(ir.FloatType(), LANES)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        # Several sums, or each addition would wait for the one before.
        sums = [cgutils.alloca_once_value(builder, ir.Constant(lanes, [0.0] * LANES)) for _ in range(TERMS)]
        for each in sums:
            builder.store(ir.Constant(lanes, [0.0] * LANES), each)
        block = builder.gep(coded.data, [arguments[2]])
        components = builder.extract_value(weighed.shape, 0)
        with cgutils.for_range_slice(builder, number(0), components, number(TERMS), inc=True) as (first, _):
            for term in range(TERMS):
                component = builder.add(first, number(term))
                at = builder.gep(block, [builder.mul(component, number(LANES))])
                code = builder.load(builder.bitcast(at, stored.as_pointer()), align=1)
                if isinstance(signature.args[1].dtype, types.Integer):
                    code = builder.sitofp(code, lanes)
                weight = builder.load(builder.gep(weighed.data, [component]))
                weight = builder.insert_element(
                    ir.Constant(lanes, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0)
                )
                weight = builder.shuffle_vector(weight, weight, everywhere)
                product = builder.fmul(weight, code, flags=("contract",))
                total = builder.fadd(builder.load(sums[term]), product, flags=("contract",))
                builder.store(total, sums[term])
        totals = [builder.load(each) for each in sums]
        while len(totals) > 1:
            totals = [builder.fadd(*pair) for pair in zip(totals[::2], totals[1::2], strict=True)]
        target = builder.gep(summed.data, [arguments[4]])
        builder.store(totals[0], builder.bitcast(target, lanes.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(weights, codes, start, out, place), generate


@njit()
def _products(weights, codes, start, count, out, place):  # type: ignore[no-untyped-def]
    """Sums of ``weights`` times the codes of ``count`` entries, whose blocks begin at ``start``, to ``out`` from
    ``place`` on; it has room for whole blocks.
    """
    size = weights.shape[0]
    for block in range(0, count, LANES):
        _block(weights, codes, start + block * size, out, place + block)  # type: ignore[call-arg]


@njit(fastmath=True)
def _within(values, bound):  # type: ignore[no-untyped-def]
    """How many of ``values`` are not above ``bound``; counted in float32, as wide as they are."""
    total = np.float32(0)
    for place in range(values.shape[0]):
        total += np.float32(1) if values[place] <= bound else np.float32(0)
    return total


@njit()
def _bound(values, wanted, enough):  # type: ignore[no-untyped-def]
    """A value that ``wanted`` of ``values`` or more do not exceed, and not more than ``enough`` where they differ."""
    low, high = np.float32(-_FARTHEST), np.float32(_FARTHEST)
    if values.shape[0] <= enough:
        return high
    for _ in range(_HALVINGS):
        middle = np.float32(0.5) * (low + high)
        if not low < middle < high:
            break
        count = _within(values, middle)
        if count < wanted:
            low = middle
        else:
            high = middle
            if count <= enough:
                break
    return high


@njit()
def _places(values, bound, out):  # type: ignore[no-untyped-def]
    """Where ``values`` do not exceed ``bound``, as many as ``out`` holds; returns how many."""
    found, most = 0, out.shape[0]
    for place in range(values.shape[0]):
        if values[place] <= bound and found < most:
            out[found] = place
            found += 1
    return found


@njit()
def _sort(keys, numbers):  # type: ignore[no-untyped-def]
    """Both, ascending by ``keys`` and then by ``numbers``. Shell sort, since mostly there is a handful."""
    count = keys.shape[0]
    gap = 1
    while gap < count // 5:
        gap = gap * 9 // 4 + 1
    while gap > 0:
        for start in range(gap, count):
            key, number, at = keys[start], numbers[start], start
            while at >= gap and (
                keys[at - gap] > key or (keys[at - gap] == key and numbers[at - gap] > number)
            ):
                keys[at], numbers[at] = keys[at - gap], numbers[at - gap]
                at -= gap
            keys[at], numbers[at] = key, number
        gap = gap * 4 // 9


@_kept
def nearest(  # type: ignore[no-untyped-def]
    vectors,
    ids,
    queries,
    slices,
    given,
    rotation,
    centroids,
    cells,
    steps,
    codes,
    rows,
    code_starts,
    row_starts,
    first_lists,
    efforts,
    room,
    found_ids,
    found_distances,
):
    """Fill ``found_ids`` int64 [q, k] and ``found_distances`` float32 [q, k] for ``queries`` float32 [q, d], nearest
    first, equal distances by id; -1 and infinity where there are fewer. Returns how many queries have fewer; or, where
    query i is the first that is not l2-normalised, -1 - i, and nothing was looked for.

    ``vectors`` float32 [n, d] with ``ids`` int64 [n] (empty: the row numbers). Looked at are the rows of ``slices``
    int64 [s, 2] and, of each query's own, those ``given`` int64 [q, m] (-1: none), and what its nearest cells hold:
    of the partition whose lists begin at ``first_lists``[p], ``efforts``[p] cells. The other arguments are those of
    ``cells.Lists``. All arrays are contiguous, and can be written.
    """
    asked, wanted = found_ids.shape
    short = 0
    for query in range(asked):
        length = np.float32(0)
        for value in queries[query]:
            length += value * value
        if not abs(np.sqrt(length) - np.float32(1)) <= NORM_TOLERANCE:  # NaN compares false
            return -1 - query
    scanned = 0
    for each in range(slices.shape[0]):
        scanned += slices[each, 1] - slices[each, 0]
    candidates = wanted + int(wanted * _SHARE) + _MORE if room else 0
    enough = candidates + candidates // 4
    total = scanned + given.shape[1] + (enough if room else 0)
    looked_at = np.empty(total, np.int64)
    distances = np.empty((asked if scanned else 1, total), np.float32)
    filled = 0
    for each in range(slices.shape[0]):
        for row in range(slices[each, 0], slices[each, 1]):
            looked_at[filled] = row
            filled += 1
    for first in range(0, scanned, _TILE):
        last = min(first + _TILE, scanned)
        for query in range(asked):
            _distances(vectors, queries[query], looked_at[first:last], distances[query, first:last])

    places = np.empty(total, np.int64)
    near, numbers = np.empty(total, np.float32), np.empty(total, np.int64)
    components = rotation.shape[0]
    seen = np.empty(components, np.float32)
    products = np.empty(room + LANES, np.float32)
    far = np.empty(cells + LANES, np.float32)
    most, lists = 0, 0
    for effort in efforts:
        most, lists = max(most, effort), lists + effort
    list_ends, list_rows = np.empty(lists, np.int64), np.empty(lists, np.int64)
    closest, order = np.empty(cells, np.int64), np.empty(cells, np.float32)
    chosen = np.empty(enough, np.int64)
    for query in range(asked):
        vector, own = queries[query], distances[query if scanned else 0]
        filled = scanned
        for each in range(given.shape[1]):
            if given[query, each] >= 0:
                looked_at[filled] = given[query, each]
                filled += 1
        if room:
            _project(vector, rotation, seen)
            for each in range(components):
                seen[each] = -seen[each]
            _products(seen, centroids, 0, cells, far, 0)
            read = _places(far[:cells], _bound(far[:cells], most, most), closest)
            for each in range(read):
                order[each] = far[closest[each]]
            _sort(order[:read], closest[:read])
            for each in range(components):
                seen[each] *= steps[each]
            held, lists = 0, 0
            for part in range(first_lists.shape[0]):
                for each in range(min(read, efforts[part])):
                    number = first_lists[part] + closest[each]
                    start, count = row_starts[number], row_starts[number + 1] - row_starts[number]
                    _products(seen, codes, code_starts[number] * components, count, products, held)
                    held += count
                    list_ends[lists], list_rows[lists] = held, start - held + count
                    lists += 1
            if held:
                some = products[:held]
                found, at = _places(some, _bound(some, candidates, enough), chosen), 0
                for each in range(found):
                    while chosen[each] >= list_ends[at]:
                        at += 1
                    looked_at[filled] = rows[list_rows[at] + chosen[each]]
                    filled += 1
        _distances(vectors, vector, looked_at[scanned:filled], own[scanned:filled])
        count = 0
        if filled:
            some = own[:filled]
            count = _places(some, _bound(some, wanted, wanted + LANES), places)
        for each in range(count):
            row = looked_at[places[each]]
            near[each], numbers[each] = own[places[each]], ids[row] if ids.shape[0] else row
        _sort(near[:count], numbers[:count])
        for each in range(wanted):
            found_ids[query, each] = numbers[each] if each < count else -1
            found_distances[query, each] = near[each] if each < count else np.inf
        short += count < wanted
    return short
