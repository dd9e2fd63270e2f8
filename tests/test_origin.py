"""An edit of what makes a value gives another digest; an edit of anything else does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import origin

SCORE, CORPUS = ("score", "weights", "corpus"), ("corpus",)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness as a wheel leaves it: no checkout around it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(origin.PACKAGE, site / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    return site / "harness"


def digests(package: Path) -> dict[tuple[str, ...], str]:
    """What a new process finds of the copy."""
    code = (
        "from harness.origin import sources_digest, PACKAGE\n"
        f"assert str(PACKAGE) == {str(package)!r}\n"
        f"print(sources_digest(*{SCORE!r}), sources_digest(*{CORPUS!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=package.parent,
        env={"PYTHONPATH": str(package.parent)},
    )
    return dict(zip((SCORE, CORPUS), done.stdout.split(), strict=True))


@pytest.mark.parametrize(
    ("edited", "score", "corpus"),
    [
        ("score/perplexity.py", True, False),
        ("score/tasks/preference.yaml", True, False),  # data that lm-eval reads
        ("score/tasks/documents.py", True, False),  # code that nobody imports by name
        ("weights/load.py", True, False),
        ("corpus/render.py", True, True),
        ("corpus/sample.trees.jsonl", True, True),
        ("spec/schema.py", True, True),  # imported by both
        ("records/record.py", True, True),
        ("corpus/README.md", False, False),
        ("report/build.py", False, False),
        ("cli/app.py", False, False),
        ("runs/supervise.py", False, False),
    ],
)
def test_an_edit_changes_the_digest_of_what_it_makes(
    package: Path, edited: str, score: bool, corpus: bool
) -> None:
    before, path = digests(package), package / edited
    text = path.read_bytes()
    path.write_bytes(text + b"\n# another line\n")
    try:
        after = digests(package)
    finally:
        path.write_bytes(text)
    assert {roots: before[roots] != after[roots] for roots in before} == {
        SCORE: score,
        CORPUS: corpus,
    }
    assert digests(package) == before


def test_a_copy_elsewhere_has_the_digest_of_the_checkout(package: Path) -> None:
    assert digests(package)[CORPUS] == origin.sources_digest(*CORPUS)


def test_every_import_of_our_own_is_seen() -> None:
    """Relative imports and __import__ would go unseen; there are none."""
    for path in origin.PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "\nfrom ." not in text, path
        assert "__import__(" not in text, path
