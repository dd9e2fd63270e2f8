"""The bench session: ratios are compared, and what got slower is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.rows import ROWS


def test_what_fell_by_more_than_the_share_got_slower() -> None:
    before = {"a": 4.0, "b": 4.0, "gone": 1.0}

    assert bench.worse(before, {"a": 3.3, "b": 3.1, "new": 0.1}, 0.2) == ["b"]


def test_every_row_has_a_committed_ratio() -> None:
    assert json.loads(bench.NUMBERS.read_text("utf-8")).keys() == ROWS.keys()


def test_a_ratio_that_fell_ends_the_session_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "numbers.json"
    numbers.write_text(json.dumps({"scoring: choices / lm-eval's backend": 1e6}))
    monkeypatch.setattr(bench, "NUMBERS", numbers)
    monkeypatch.setattr("sys.argv", ["bench", "--turns", "1", "--only", "scoring"])

    assert bench.main() == 1
    assert "slower: scoring: choices" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["bench", "--turns", "1", "--only", "scoring", "--write"])
    assert bench.main() == 1
    assert json.loads(numbers.read_text())["scoring: choices / lm-eval's backend"] < 1e6
