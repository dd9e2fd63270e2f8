"""Typed: files and settings that a person writes."""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path

from tests.fuzz.kinds import command, damaged, kind


@cache
def shipped() -> list[tuple[str, bytes]]:
    """The TOML files of the project, each with what it is of."""
    from harness.spec.registry import CLAIMS, MODELS, STUDIES, SUITES, variants_folder

    folders = {
        "variant": variants_folder(),
        "suite": SUITES,
        "model": MODELS,
        "study": STUDIES,
        "claim": CLAIMS,
    }
    return [
        (name, path.read_bytes())
        for name, folder in folders.items()
        for path in sorted(folder.glob("*.toml"))
    ]


@kind(0.25)
def toml(chance: random.Random, folder: Path) -> None:
    """A file of the project's own kinds: shown, listed and planned, or refused by its name."""
    what, data = chance.choice(shipped())
    path = folder / "own.toml"
    path.write_bytes(damaged(data, chance))
    if what == "claim":
        command("claims", "--claim", str(path))
        return
    if what == "study":
        if chance.random() < 0.2:  # it plans hundreds of runs
            command("study", str(path), "--plan", "--device", "cpu", "--reports", str(folder))
        return
    command("show", str(path))
    if what == "suite" and chance.random() < 0.3:
        command("plan", "-v", "base", "--suite", str(path), "--json", "--gpu", "h100")


SECTIONS = (
    "adapter",
    "training",
    "precision",
    "quantization",
    "budget",
    "corpus",
    "score",
    "suite",
)
NAMES = ("r", "learning_rate", "steps", "type", "source", "tasks", "seeds", "double", "compute")
VALUES = ("1", "-1", "0", "nan", "1e400", "none", "[]", "{}", "true", "((", "9" * 30, "x", "[1]")


@kind(0.15)
def settings(chance: random.Random, _folder: Path) -> None:
    """``--set`` with sections, names and values that may or may not be."""
    text = f"{chance.choice(SECTIONS)}.{chance.choice(NAMES)}={chance.choice(VALUES)}"
    if chance.random() < 0.6:
        text = os.fsdecode(damaged(text.encode(), chance)).replace("\0", "")
    command(
        "plan", "-v", chance.choice(("base", "lora_bf16")), "--json", "--gpu", "t4", "--set", text
    )
