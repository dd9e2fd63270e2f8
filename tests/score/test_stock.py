"""lm-eval's task files are looked through as text; groups are taken apart to their tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.score.stock import declared_in, folders_around, is_whole, leaves, look_for


@dataclass
class Entry:
    """What lm-eval's index holds of a name."""

    cfg: dict[str, Any] | None = None
    yaml_path: Path | None = Path("task.yaml")
    tags: set[str] = field(default_factory=set)


INDEX = {
    "all": Entry({"task": ["left", {"task": "lone"}, {"group": "right"}]}),
    "left": Entry({"task": ["a", "b"]}),
    "right": Entry({"task": ["b", "missing"]}),
    "tagged": Entry(None, None, {"b", "a"}),
    **{name: Entry({"task": name}) for name in ("a", "b", "lone")},
}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("task: mine", ["mine"]),
        ('"task": "mine"', ["mine"]),
        ("group: 'mine-2.0/x'", ["mine-2.0/x"]),
        ("  task: inner", []),
        ("task:\n  - a", []),
        ("# task: not", []),
        ("task_alias: not", []),
        ("group: both\ntask: mine", ["both", "mine"]),
    ],
)
def test_a_file_declares_what_stands_at_the_start_of_a_line(
    line: str, names: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"include: other\n{line}\noutput_type: multiple_choice\n")
    assert declared_in(path) == names


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the task file: No such file"):
        declared_in(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"task: \xff\xfe")
    with pytest.raises(UserError, match="it is not UTF-8"):
        declared_in(tmp_path / "binary.yaml")


def test_groups_are_taken_apart_to_any_depth() -> None:
    assert list(leaves(INDEX, "all")) == ["a", "b", "lone", "b", "missing"]
    assert list(leaves(INDEX, "tagged")) == ["a", "b"]
    assert list(leaves(INDEX, "a")) == ["a"]
    assert list(leaves(INDEX, "unheard_of")) == ["unheard_of"]


def test_a_group_is_whole_if_every_task_below_it_is_there() -> None:
    assert is_whole(INDEX, "left")
    assert is_whole(INDEX, "tagged")
    assert not is_whole(INDEX, "right")
    assert not is_whole(INDEX, "all")
    assert not is_whole(INDEX, "unheard_of")


def test_a_stock_task_is_found_with_the_folders_around_its_file() -> None:
    declared, mentioned = look_for("arc_easy")
    assert mentioned
    folders = folders_around(declared["arc_easy"])
    assert folders[0] == declared["arc_easy"].parent
    assert all(inner.parent == outer for inner, outer in pairwise(folders))
    assert folders_around(None) == []
    assert not look_for("no_such_task_anywhere")[1]
