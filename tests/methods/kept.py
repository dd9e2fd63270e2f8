"""Kept: pairs that a plane cut short has made, for the next one that the same code makes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Collection, Iterator
from importlib.metadata import distributions
from pathlib import Path

import torch
from pydantic import ValidationError

from harness.origin import settings
from harness.spec.plane import FILE, MethodRow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "plane"
PARTS = ("harness", "variants", "tests")


class KeptPairs:
    """Rows of working pairs in a file that is named by all that decides them.

    Refusals are not kept: they are found again at once.
    """

    def __init__(self, root: Path = ROOT, folder: Path = FOLDER) -> None:
        """Open what the code below ``root`` has made; what other code has made goes."""
        self._root, self._seen = root, _stamps(root)
        self._path = folder / f"{_making(root)}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.glob("*.jsonl"):
            if other != self._path:
                other.unlink()

    def rows(self) -> dict[tuple[str, str], MethodRow]:
        """By method and scheme. A line that was cut short is none."""
        found = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                row = MethodRow.model_validate_json(line)
            except ValidationError:
                continue
            found[row.method, row.schemes[0]] = row
        return found

    def add(self, row: MethodRow) -> None:
        """Keep ``row``, unless a file has changed since: it may be of either code."""
        if row.plain.state == "works" and _stamps(self._root) == self._seen:
            with self._path.open("a") as file:
                file.write(f"\n{row.model_dump_json()}\n")

    def drop(self, pairs: Collection[tuple[str, str]]) -> None:
        """Forget ``pairs`` (method and scheme): they have been written down."""
        left = [row for pair, row in self.rows().items() if pair not in pairs]
        self._path.unlink(missing_ok=True)
        for row in left:
            self.add(row)


def _files(root: Path) -> Iterator[Path]:
    """What a pair is made by; the plane itself is what it makes."""
    for part in PARTS:
        for path in sorted((root / part).rglob("*")):
            wanted = path.suffix not in (".pyc", ".md") and path.name != FILE.name
            if wanted and path.is_file():
                yield path


def _stamps(root: Path) -> list[tuple[str, int, int]]:
    """What tells, without reading, whether a file was changed."""
    found = ((path, path.stat()) for path in _files(root))
    return [(str(path), stat.st_mtime_ns, stat.st_size) for path, stat in found]


def _making(root: Path) -> str:
    """SHA-256 (hex) of the files, of every installed package, and of what the machine adds."""
    digest = hashlib.sha256()
    for path in _files(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    packages = sorted(f"{one.metadata['Name']} {one.version}" for one in distributions())
    machine = (platform.python_version(), torch.backends.cpu.get_cpu_capability(), settings())
    digest.update(f"{packages} {machine}".encode())
    return digest.hexdigest()
