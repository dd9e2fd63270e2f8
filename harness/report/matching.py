"""Matching: which rows of two sides are compared with each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness import numbers
from harness.errors import UserError
from harness.report.rows import Row
from harness.report.settings import differing
from harness.report.sides import Side

MOST_NAMED = 12


def match_rows(before: Side, after: Side) -> list[tuple[Row, Row]]:
    """One row of each side as they are, several by variant and setting.

    Raises:
        UserError: nothing matches.
    """
    if len(before.rows) == 1 and len(after.rows) == 1:
        return [(before.rows[0], after.rows[0])]
    found = list(_matched(before.rows, after.rows))
    if not found:
        raise _nothing_in_common(before, after)
    return found


def _matched(before: Sequence[Row], after: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Rows of one variant: the only one of each side, or where a side has several, the nearest.

    Nearest is the row that agrees most in what tells the several apart, if it is one alone and the
    choice is mutual. Labels do not decide: they depend on what stands beside a row.
    """
    for variant in dict.fromkeys(row.variant for row in before):
        sides = [[row for row in rows if row.variant == variant] for rows in (before, after)]
        if len(sides[0]) == len(sides[1]) == 1:
            yield sides[0][0], sides[1][0]
            continue
        told = set().union(*(_apart(rows) for rows in sides))
        for row in sides[0]:
            one = _nearest(row, sides[1], told)
            if one is not None and _nearest(one, sides[0], told) is row:
                yield row, one


def _nearest(row: Row, others: Sequence[Row], told: set[str]) -> Row | None:
    """Of other rows the one that differs from this in the fewest keys; None where several do."""
    counts = [len(told & _apart([row, one])) for one in others]
    least = min(counts, default=0)
    return others[counts.index(least)] if counts.count(least) == 1 else None


def _apart(rows: Sequence[Row]) -> set[str]:
    """Keys in which the settings of rows differ."""
    return set(differing([row.plan for row in rows]))


def _nothing_in_common(before: Side, after: Side) -> UserError:
    names = [dict.fromkeys(row.variant for row in side.rows) for side in (before, after)]
    shared = [name for name in names[0] if name in names[1]]
    if shared:
        return UserError(
            "nothing to compare: no variant was run in the same setting on both sides",
            where=f"{before.name} and {after.name}",
            expected=f"the same settings of {numbers.some_of(shared, MOST_NAMED)}",
            hint="name one run's folder on each side",
        )
    told = [numbers.some_of(list(found), MOST_NAMED) for found in names]
    return UserError(
        "nothing to compare: no variant is on both sides",
        expected=f"in {before.name}: {told[0]}; in {after.name}: {told[1]}",
    )
