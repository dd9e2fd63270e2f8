"""Plane: which method works on which kind of base, as the tests have found it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Literal

from harness.spec.methods import TYPES
from harness.spec.schema import Frozen
from harness.spec.storage import read_json

FILE = Path(__file__).parents[1] / "plane.json"
FACETS = ("plan", "plain", "fast", "gpus", "merge", "export")
TITLES = {"plain": "plain path", "fast": "fast path", "gpus": "several GPUs"}


PREFACE = """# Methods on bases

Each row is a method on the kinds of base for which the same holds. What *works* has been trained
on tiny models of the named architectures, and on each of them: the census agreed with what was
predicted, only the method's parameters moved, the first loss was that of PEFT's own forward pass,
the loss fell, plain PEFT loaded what was saved with the same logits, training that was killed and
resumed ended in the same bits, lm-eval's own backend gave each item the same score, and no logits
depended on later tokens or other rows, but where the method is said to look at them. On int8
bases scores are compared without LLM.int8's outliers, which depend on what is in a pass. What is
*refused* is refused when the plan is made, for the reason with that number; *not offered* is what
the harness does not have. Found on a processor with {versions}: {methods} methods
work, and {schemes} kinds of base carry at least one.

This page is made by `nox -s methods` from `harness/plane.json`; `harness list methods` prints the
same.
"""


class MethodCell(Frozen):
    """Whether one thing works for a pair of method and scheme; ``reason`` is whose, where not."""

    state: Literal["works", "refused", "not offered"]
    reason: str = ""


class MethodRow(Frozen):
    """What is known of a method on bases of those schemes."""

    method: str
    schemes: tuple[str, ...]
    plan: MethodCell
    plain: MethodCell
    fast: MethodCell
    gpus: MethodCell
    merge: MethodCell
    export: MethodCell
    architectures: tuple[tuple[str, MethodCell], ...] = ()
    """Of the tiny models that were tried, and whether they take the method."""

    @property
    def cells(self) -> tuple[MethodCell, ...]:
        """In the order of ``FACETS``."""
        return tuple(getattr(self, name) for name in FACETS)


class Plane(Frozen):
    """Every pair of method and scheme, as found on a processor with the named versions."""

    versions: dict[str, str]
    rows: tuple[MethodRow, ...]


def read_plane() -> Plane:
    """The plane that ships with the harness.

    Raises:
        StorageError, InvalidFile: the file is missing or damaged.
    """
    return read_json(FILE, Plane)


def drawn_together(rows: Iterable[MethodRow]) -> tuple[MethodRow, ...]:
    """Rows by method, one for all schemes on which a method's cells are alike."""
    alike: dict[object, list[MethodRow]] = {}
    for row in rows:
        alike.setdefault((row.method, row.cells, row.architectures), []).append(row)
    found = [
        same[0].model_copy(
            update={"schemes": tuple(sorted(s for row in same for s in row.schemes))}
        )
        for same in alike.values()
    ]
    return tuple(
        sorted(found, key=lambda row: (row.method, row.plan.state != "works", row.schemes))
    )


def plane_markdown(plane: Plane) -> str:
    """The plane as a page: a table, and the reasons under it."""
    reasons: dict[str, int] = {}
    lines = []
    for row in plane.rows:
        shown = [_shown(cell, reasons) for cell in row.cells]
        shown.append(_architectures(row, reasons))
        lines.append(f"| `{row.method}` | {', '.join(row.schemes)} | " + " | ".join(shown) + " |")
    titles = [TITLES.get(name, name) for name in FACETS]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(plane.versions.items()))
    working = [row for row in plane.rows if row.plain.state == "works"]
    head = PREFACE.format(
        versions=versions,
        methods=len({row.method for row in working}),
        schemes=len({scheme for row in working for scheme in row.schemes}),
    )
    titles.append("architectures")
    table = ["| method | base | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(titles)]
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([head, *table, *lines, "", *notes, "", *_never(), ""])


def plane_text(plane: Plane, width: int) -> str:
    """The plane for a terminal of so many columns: a paragraph a row, and the reasons under them.

    What works is not repeated for each facet; of a plan that is refused nothing else is told.
    """
    reasons: dict[str, int] = {}
    lines: list[str] = []
    deep = partial(wrap, width=width, subsequent_indent="    ", break_on_hyphens=False)
    for method, rows in groupby(plane.rows, lambda row: row.method):
        lines.append(method)
        for row in rows:
            told = f"{', '.join(row.schemes)}: {_told(row, reasons)}"
            lines += deep(told, initial_indent="  ")
    lines.append("")
    for reason, number in reasons.items():
        lines += deep(f"({number}) {reason}")
    return "\n".join(lines)


def _told(row: MethodRow, reasons: dict[str, int]) -> str:
    if row.plan.state != "works":
        return _shown(row.plan, reasons)
    named = zip(FACETS, row.cells, strict=True)
    other = [
        f"{TITLES.get(name, name)} {_shown(cell, reasons)}"
        for name, cell in named
        if cell.state != "works" or cell.reason
    ]
    return "; ".join(["works", *other])


def _never() -> list[str]:
    """Types of PEFT that are refused on every base, for which there is no row."""
    why = [f"- `{name}`: {needs.refused}" for name, needs in TYPES.items() if needs.refused]
    return ["Types of PEFT that no run can train, whatever its base:", "", *why]


def _architectures(row: MethodRow, reasons: dict[str, int]) -> str:
    """Names of those that work, and of the others with the reason."""
    names = [
        name if cell.state == "works" else f"{name} {_shown(cell, reasons)}"
        for name, cell in row.architectures
    ]
    return ", ".join(names)


def _shown(cell: MethodCell, reasons: dict[str, int]) -> str:
    if not cell.reason:
        return cell.state
    number = reasons.setdefault(cell.reason, len(reasons) + 1)
    return f"{cell.state} ({number})"
