"""Plane: which method works on which kind of base, as the tests have found it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Literal

from harness.spec.schema import Frozen, read_json

FILE = Path(__file__).parents[1] / "plane.json"
FACETS = ("plan", "plain", "fast", "gpus", "merge", "export")
TITLES = {"plain": "plain path", "fast": "fast path", "gpus": "several GPUs"}
STATES = ("works", "refused", "not offered")


PREFACE = """# Methods on bases

Each row is a method on the kinds of base for which the same holds. What *works* has been trained,
saved and loaded again by plain PEFT on a tiny model; what is *refused* is refused when the plan is
made, for the reason with that number; *not offered* is what the harness does not have. Found on a
processor with {versions}.

This page is made by `nox -s methods` from `harness/plane.json`; `harness list methods` prints the
same.
"""


class Cell(Frozen):
    """Whether one thing works for a pair of method and scheme; ``reason`` is whose, where not."""

    state: Literal["works", "refused", "not offered"]
    reason: str = ""


class Pair(Frozen):
    """What is known of a method on bases of a scheme."""

    method: str
    scheme: str
    plan: Cell
    plain: Cell
    fast: Cell
    gpus: Cell
    merge: Cell
    export: Cell

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of ``FACETS``."""
        return tuple(getattr(self, name) for name in FACETS)


class Plane(Frozen):
    """Every pair, as found on a processor with the named versions."""

    versions: dict[str, str]
    pairs: tuple[Pair, ...]


def read_plane() -> Plane:
    """The plane that ships with the harness.

    Raises:
        StorageError, InvalidFile: the file is missing or damaged.
    """
    return read_json(FILE, Plane)


def plane_rows(plane: Plane) -> list[tuple[str, str, tuple[Cell, ...]]]:
    """Method, schemes and cells: schemes for which a method's cells are alike share a row."""
    rows: list[tuple[str, str, tuple[Cell, ...]]] = []
    for method, pairs in groupby(plane.pairs, lambda pair: pair.method):
        alike: dict[tuple[Cell, ...], list[str]] = {}
        for pair in pairs:
            alike.setdefault(pair.cells, []).append(pair.scheme)
        rows += [(method, ", ".join(names), cells) for cells, names in alike.items()]
    return rows


def plane_markdown(plane: Plane) -> str:
    """The plane as a page: a table, and the reasons under it."""
    reasons: dict[str, int] = {}
    lines = []
    for method, names, cells in plane_rows(plane):
        shown = [_shown(cell, reasons) for cell in cells]
        lines.append(f"| `{method}` | {names} | " + " | ".join(shown) + " |")
    titles = [TITLES.get(name, name) for name in FACETS]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(plane.versions.items()))
    head = PREFACE.format(versions=versions)
    table = ["| method | base | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(titles)]
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([head, *table, *lines, "", *notes, ""])


def _shown(cell: Cell, reasons: dict[str, int]) -> str:
    if not cell.reason:
        return cell.state
    number = reasons.setdefault(cell.reason, len(reasons) + 1)
    return f"{cell.state} ({number})"
