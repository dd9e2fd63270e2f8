"""Words: every public class of the package has a name of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "harness"


def public_classes() -> Iterator[tuple[str, str]]:
    """Name and file of each class that other modules may import."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path.relative_to(PACKAGE).as_posix()


def test_one_name_has_one_meaning() -> None:
    """A reader who meets a name in two rooms takes it for one thing."""
    places: dict[str, list[str]] = {}
    for name, file in public_classes():
        places.setdefault(name, []).append(file)
    assert len(places) > 300
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
