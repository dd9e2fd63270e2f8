"""Overlay: a copy of the harness in which a test adds files, run as a user would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import harness

PACKAGE = Path(harness.__file__).parent


@dataclass(frozen=True)
class Overlay:
    """A folder with its own copy of the harness, and the command line over it."""

    folder: Path

    @property
    def package(self) -> Path:
        """The copied package."""
        return self.folder / "harness"

    def replace(self, path: str, old: str, new: str) -> None:
        """Edit one line of a copied file; it must be there once."""
        file = self.package / path
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1
        file.write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``python -m harness`` with these arguments."""
        return subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )


def copy_harness(folder: Path) -> Overlay:
    """The harness and its variants, copied into a folder."""
    shutil.copytree(PACKAGE, folder / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("variants", "docs"):  # in a wheel both lie inside the package
        shutil.copytree(PACKAGE.parent / name, folder / name)
    return Overlay(folder)
