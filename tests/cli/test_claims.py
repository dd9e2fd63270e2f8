"""`claims` lists what was published, and judges it from folders of records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.terminal import refused, shown
from tests.report.records import seven, write_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reports")
    write_runs(root / "runs", seven())
    return root


def test_without_runs_it_lists_sentences_and_sources() -> None:
    text = " ".join(shown("claims").split())
    assert "nf4_beats_fp4" in text
    assert "arXiv:2305.14314" in text
    listed = json.loads(shown("claims", "--json"))
    assert {"double_quantization", "lora_rate_ten_times"} <= {claim["name"] for claim in listed}


def test_with_runs_it_judges_each(folder: Path) -> None:
    found = json.loads(shown("claims", str(folder), "--json"))
    verdicts = {one["claim"]: one["verdict"] for one in found}
    assert verdicts["nf4_beats_fp4"] == "reproduced"
    assert verdicts["qlora_reaches_lora"] == "contradicted"
    assert verdicts["dora"] == "out of reach"
    assert " claims: " in shown("claims", str(folder))


def test_the_findings_are_published_with_their_records(folder: Path, tmp_path: Path) -> None:
    text = shown("claims", str(folder), "--claim", "nf4_beats_fp4", "--publish", str(tmp_path))
    assert "findings:" in text
    assert "NF4 loses less quality than FP4" in (tmp_path / "FINDINGS.md").read_text()
    assert "NF4 loses less quality" in shown("claims", str(tmp_path), "--markdown")
    again = json.loads(shown("claims", str(tmp_path), "--claim", "nf4_beats_fp4", "--json"))
    assert again[0]["verdict"] == "reproduced"


def test_mistakes_are_named(tmp_path: Path) -> None:
    assert "no record in this folder" in refused("claims", str(tmp_path))
    assert "--publish without runs" in refused("claims", "--publish", str(tmp_path))
    assert "--markdown takes one folder" in refused("claims", str(tmp_path), "--markdown")
    assert "nf4_beats_fp4" in refused("claims", "--claim", "nf4_beats_fp5")
