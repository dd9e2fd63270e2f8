"""What several commands ask for in the same words is read the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.options import make_request, parse_share, runs_folder
from harness.errors import UserError


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), (" 0.01 ", 0.01), ("99%", 0.99)]
)
def test_a_share_is_per_cent_or_a_fraction(text: str, share: float) -> None:
    assert parse_share(text, "--margin") == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["", "%", "one", "0", "100%", "1", "-1%", "1%%", "1%x", "nan", "1e400"]
)
def test_what_is_no_share_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(UserError, match="is not a share") as caught:
        parse_share(text, "--max-loss")
    assert "--max-loss" in str(caught.value)
    assert "for example 1% or 0.01" in str(caught.value)


def test_records_lie_in_runs_and_those_of_a_published_report_in_records(tmp_path: Path) -> None:
    assert runs_folder(tmp_path) == tmp_path / "runs", "also before there are any"
    (tmp_path / "records").mkdir()
    assert runs_folder(tmp_path) == tmp_path / "records"
    (tmp_path / "runs").mkdir()
    assert runs_folder(tmp_path) == tmp_path / "runs"


def test_the_options_of_a_run_are_one_request() -> None:
    made = make_request(["base", "lora_bf16"], "quick", ["adapter.r=4"], "0..2", ["piqa"], "mine")
    assert made.variants == ("base", "lora_bf16")
    assert (made.seeds, made.tasks, made.settings) == ((0, 1, 2), ("piqa",), ("adapter.r=4",))
    one = made.of_run("base")
    assert (one.variant, one.suite, one.name) == ("base", "quick", "mine")


def test_names_may_be_separated_by_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b.toml").touch()
    made = make_request(["base, lora_bf16", "a,b.toml"], "quick", [], "", ["piqa,boolq"])
    assert made.variants == ("base", "lora_bf16", "a,b.toml")
    assert made.tasks == ("piqa", "boolq")
