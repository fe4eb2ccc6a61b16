"""Lists the best levels of many books at many moments at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kalshi_platform.lake.builders.book_fold import Ints, Levels, Rows, moments, places, split_places, sum_places

DEPTH = 10
_SIDES = 2
_MOST_CELLS = 1 << 16
"""A book at a moment has a cell for each level that it has, or gets, until the last moment that is asked for."""


class Tops(NamedTuple):
    """The best levels at some moments, best first: arrays of (moment, DEPTH); price -1 where there are fewer."""

    yes_e4: Ints
    yes_e2: Ints
    no_e4: Ints
    no_e2: Ints


def top_levels(levels: Levels, rows: Rows, line: Ints, time_us: Ints) -> Tops:
    """The best levels of books at wanted moments, which ascend by line and time.

    `levels`: the books before all rows. A row counts at every moment that is not before it.
    """
    parts = [_tops_of(*part) for part in _slices(levels, rows, line, time_us)]
    wanted = np.concatenate([chosen for chosen, _ in parts]) if parts else np.empty(0, np.int64)
    tops = Tops(*(np.empty((len(line), DEPTH), np.int64) for _ in range(4)))
    for column, found in zip(tops, zip(*(top for _, top in parts), strict=True), strict=False):
        column[wanted] = np.concatenate(found)
    return tops


def _slices(levels: Levels, rows: Rows, line: Ints, time_us: Ints) -> Iterator[tuple[Levels, Rows, Ints, Ints, Ints]]:
    """Cut the moments by time, so that no part has many more cells than memory should hold."""
    place = places(rows.line, rows.side, rows.price_e4)
    lines = int(max(line.max(initial=-1), levels.line.max(initial=-1), rows.line.max(initial=-1))) + 1
    used = np.unique(np.r_[levels.place, place])
    wanted = np.bincount(line, minlength=lines)
    cells = int((wanted * np.bincount(split_places(used)[0], minlength=lines)).sum())
    count = min(-(-cells // _MOST_CELLS), len(np.unique(time_us)))
    if count <= 1:
        if len(line):
            yield levels, rows, line, time_us, np.arange(len(line))
        return
    bounds = np.unique(np.quantile(time_us, np.arange(1, count + 1) / count, method="higher"))
    before = -2
    for bound in bounds.tolist():
        mine = np.flatnonzero((time_us > before) & (time_us <= bound))
        now = (rows.time_us > before) & (rows.time_us <= bound)
        of_part = Rows(*(column[now] for column in rows))
        yield levels, of_part, line[mine], time_us[mine], mine
        levels = sum_places(np.r_[levels.place, place[now]], np.r_[levels.size_e2, of_part.delta_e2])
        before = bound


def _tops_of(levels: Levels, rows: Rows, line: Ints, time_us: Ints, chosen: Ints) -> tuple[Ints, Tops]:
    """The best levels at the moments of one part, by a table of all its cells."""
    lines = int(line.max()) + 1
    wanted = np.bincount(line, minlength=lines)
    first_moment = np.r_[0, np.cumsum(wanted)]

    # The levels of lines that are asked for, by side and line; within these the best price first.
    row_moment = np.searchsorted(moments(line, time_us), moments(rows.line, rows.time_us))
    counts = row_moment < len(line)
    counts[counts] = line[row_moment[counts]] == rows.line[counts]
    asked = np.zeros(lines, np.bool_)
    asked[line] = True
    base_kept = (levels.line < lines) & asked[np.minimum(levels.line, lines - 1)]
    place = np.r_[levels.place[base_kept], places(rows.line, rows.side, rows.price_e4)[counts]]
    size = np.r_[levels.size_e2[base_kept], rows.delta_e2[counts]]
    at_line = place >> 15
    moment = np.r_[first_moment[at_line[: base_kept.sum()]], row_moment[counts]]
    level_line, level_side, level_price = split_places(place)
    code = ((level_side * lines + level_line) << 14) | (16_383 - level_price)
    used, level = np.unique(code, return_inverse=True)
    group, price = used >> 14, 16_383 - (used & 16_383)

    # Cells of a group (a side of a line) lie together, level by level, and moment by moment within a level.
    width = wanted[group % lines]
    level_start = np.r_[0, np.cumsum(width)]
    cells = np.bincount(
        level_start[level] + moment - first_moment[at_line], weights=None, minlength=int(level_start[-1])
    ).astype(np.int64)
    cells[:] = 0
    np.add.at(cells, level_start[level] + moment - first_moment[at_line], size)
    sizes = np.cumsum(cells)
    sizes -= np.repeat(np.r_[0, sizes][level_start[:-1]], width)

    # The same cells moment by moment, and within a moment from the best level to the last.
    groups, group_first, group_levels = np.unique(group, return_index=True, return_counts=True)
    group_width = wanted[groups % lines]
    group_cells = group_levels * group_width
    group_start = np.r_[0, np.cumsum(group_cells)]
    offset = np.arange(int(group_start[-1])) - np.repeat(group_start[:-1], group_cells)
    of_moment, of_level = np.divmod(offset, np.repeat(group_levels, group_cells))
    source = np.repeat(group_start[:-1], group_cells) + of_level * np.repeat(group_width, group_cells) + of_moment
    sizes = sizes[source]
    is_there = sizes > 0
    rank = np.cumsum(is_there)
    begins = of_level == 0
    rank -= np.repeat((rank - is_there)[begins], np.repeat(group_levels, group_width))
    kept = np.flatnonzero(is_there & (rank <= DEPTH))
    cell_group = np.repeat(np.arange(len(groups)), group_cells)[kept]
    cell_side, cell_line = np.divmod(groups[cell_group], lines)
    cell_price = price[group_first[cell_group] + of_level[kept]]
    row, place_in_row = first_moment[cell_line] + of_moment[kept], rank[kept] - 1
    tops = [np.full((len(line), DEPTH), empty, np.int64) for empty in (-1, 0) * _SIDES]
    for side in range(_SIDES):
        mine = cell_side == side
        first = 2 * (1 - side)
        tops[first][row[mine], place_in_row[mine]] = cell_price[mine]
        tops[first + 1][row[mine], place_in_row[mine]] = sizes[kept][mine]
    return chosen, Tops(*tops)
