"""Scripts beside the published reports run on machines with GPUs; here their imports are read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "reports").glob("*/*.py"))


def imported(script: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of the project's own, at the top or inside a function."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            own = module.partition(".")[0] in ("harness", "tests")
            yield from ((module, alias.name) for alias in node.names if own)


def offered(module: str) -> set[str]:
    """Names that can be imported from a module of the project, which is not loaded for it."""
    path = ROOT.joinpath(*module.split("."))
    found = {item.stem for item in path.iterdir()} if path.is_dir() else set()
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not source.is_file():
        return found
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=[f"{p.parent.name}/{p.name}" for p in SCRIPTS])
def test_what_a_script_imports_is_there(script: Path) -> None:
    """A rename once left the checks of the GPU session with a name that nothing has."""
    missing = [
        f"{module}.{name}" for module, name in imported(script) if name not in offered(module)
    ]
    assert missing == []


def test_the_scripts_are_found_and_what_is_not_there_is_noticed() -> None:
    assert len(SCRIPTS) >= 6
    assert "Loop" in offered("harness.train.loop")
    assert "NoSuchName" not in offered("harness.train.loop")
    assert offered("harness.no_such_module") == set()
