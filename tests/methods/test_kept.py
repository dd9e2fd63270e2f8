"""A plane that was cut short goes on from its own code's pairs, and from no other's."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.spec.plane import MethodCell, MethodRow
from tests.methods import plane
from tests.methods.kept import KeptPairs

WORKS, REFUSED = MethodCell(state="works"), MethodCell(state="refused", reason="for a reason")


def row(method: str = "lora", cell: MethodCell = WORKS, scheme: str = "nf4") -> MethodRow:
    cells = dict.fromkeys(("plan", "plain", "fast", "gpus", "merge", "export"), cell)
    return MethodRow(method=method, schemes=(scheme,), **cells)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of code."""
    for name in ("harness/train/loop.py", "variants/lora.toml", "tests/methods/trial.py"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True)
        path.write_text("one")
    (tmp_path / "tree" / "harness" / "plane.json").write_text("{}")
    return tmp_path / "tree"


def test_what_works_is_kept_for_the_same_code(root: Path, tmp_path: Path) -> None:
    kept = KeptPairs(root, tmp_path / "kept")
    kept.add(row("lora"))
    kept.add(row("osf", REFUSED))
    (root / "harness" / "plane.json").write_text("what the plane makes decides nothing")
    again = KeptPairs(root, tmp_path / "kept")
    assert again.rows() == {("lora", "nf4"): row("lora")}
    again.add(row("dora"))
    again.drop([("lora", "nf4")])
    assert KeptPairs(root, tmp_path / "kept").rows() == {("dora", "nf4"): row("dora")}


@pytest.mark.parametrize(
    "name", ["harness/train/loop.py", "variants/lora.toml", "tests/methods/trial.py", "harness/new"]
)
def test_any_change_begins_anew_for_good(root: Path, tmp_path: Path, name: str) -> None:
    KeptPairs(root, tmp_path / "kept").add(row())
    before = (root / name).read_text() if (root / name).exists() else None
    (root / name).write_text("two")
    assert KeptPairs(root, tmp_path / "kept").rows() == {}
    (root / name).unlink() if before is None else (root / name).write_text(before)
    assert KeptPairs(root, tmp_path / "kept").rows() == {}


def test_other_versions_of_packages_begin_anew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeptPairs(root, tmp_path / "kept").add(row())
    monkeypatch.setattr("tests.methods.kept.distributions", lambda: ())
    assert KeptPairs(root, tmp_path / "kept").rows() == {}


def test_what_is_made_after_an_edit_is_not_kept(root: Path, tmp_path: Path) -> None:
    kept = KeptPairs(root, tmp_path / "kept")
    kept.add(row("lora"))
    code = root / "harness/train/loop.py"
    code.write_text("another")
    kept.add(row("dora"))
    code.write_text("one")
    assert list(KeptPairs(root, tmp_path / "kept").rows()) == [("lora", "nf4")]


def test_a_line_that_was_cut_short_costs_that_pair_alone(root: Path, tmp_path: Path) -> None:
    kept = KeptPairs(root, tmp_path / "kept")
    kept.add(row("lora"))
    kept.add(row("dora"))
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    kept.add(row("miss"))
    assert list(KeptPairs(root, tmp_path / "kept").rows()) == [("lora", "nf4"), ("miss", "nf4")]


def test_a_plane_makes_only_what_is_not_kept(root: Path, tmp_path: Path) -> None:
    """Both pairs are kept, so that no worker starts; refusals would be found again."""
    kept = KeptPairs(root, tmp_path / "kept")
    pairs = [("lora_rs", "int8"), ("ia3", "int8")]
    for method, scheme in pairs:
        kept.add(row(method, scheme=scheme))
    found, defects = plane.find_plane(tmp_path, 1, [name for name, _ in pairs], ["int8"], kept)
    assert defects == []
    assert [one.method for one in found.rows] == ["ia3", "lora_rs"]
