"""Stock: lm-eval's own task files, looked through as text, and what a group of tasks is made of."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.spec.storage import meant

DECLARES = re.compile(
    r"""^["']?(?:task|group)["']?:[ \t]*["']?([\w.:/-]+)["']?[ \t]*$""", re.MULTILINE
)


def declared_in(path: Path) -> list[str]:
    """Names of the tasks and groups that a file declares."""
    try:
        found: list[str] = DECLARES.findall(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        what = f"cannot read the task file: {reason}"
        raise UserError(what, where=path, hint=meant(path)) from None
    return found


def look_for(name: str) -> tuple[dict[str, Path], bool]:
    """Every task and group with the file that declares it, and whether any file has ``name``.

    lm-eval parses all its 14,000 files to find one task, which takes ten seconds and more;
    looking through them as text takes one.
    """
    declared: dict[str, Path] = {}
    mentioned = False
    for path in sorted(_stock_root().rglob("*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        mentioned = mentioned or name in text
        for found in DECLARES.findall(text):
            declared.setdefault(found, path)
    return declared, mentioned


def folders_around(path: Path | None) -> list[Path]:
    """lm-eval's folders that hold the file, smallest first; none without a file."""
    root = _stock_root()
    return [] if path is None else [folder for folder in path.parents if root in folder.parents]


def _stock_root() -> Path:
    """The folder of lm-eval's tasks, found without importing it: that takes seconds."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise UserError("lm-eval is not installed", hint="pip install lm-eval")
    return Path(spec.origin).parent / "tasks"


def _members(entry: Any) -> list[str]:
    """Names a group or tag is made of; none for a task."""
    members = (entry.cfg or {}).get("task")
    if isinstance(members, list):
        return [m if isinstance(m, str) else str(m.get("task", m.get("group"))) for m in members]
    return sorted(entry.tags) if entry.yaml_path is None else []


def is_whole(index: dict[str, Any], name: str) -> bool:
    """Whether every member of a group, to any depth, is in the index."""
    return name in index and all(is_whole(index, member) for member in _members(index[name]))


def leaves(index: dict[str, Any], name: str) -> Iterator[str]:
    """The tasks below a name, to any depth."""
    members = _members(index[name]) if name in index else []
    for member in members:
        yield from leaves(index, member)
    if not members:
        yield name
