"""Gate: which expressions are read, what they say of a comparison, and to machines."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.errors import UnknownName, UserError
from harness.report.compare import Comparison, compare
from harness.report.gate import (
    Gate,
    GateResult,
    comparison_json,
    comparison_junit,
    judge,
    parse_gate,
    sentence,
)
from harness.report.sides import find_side
from tests.report.records import GPU, Made, write_runs


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("perplexity > +1%", ("perplexity", ">", 1.0, "%")),
        ("  throughput<-5 % ", ("throughput", "<", -5.0, "%")),
        ("oasst_choice acc < -0.5pp", ("oasst_choice acc", "<", -0.5, "pp")),
        ("acc < -.02", ("acc", "<", -0.02, "")),
        ("energy > 1e3", ("energy", ">", 1000.0, "")),
    ],
)
def test_a_bound_has_a_name_a_side_and_a_unit(text: str, gate: tuple[str, str, float, str]) -> None:
    found = parse_gate(text)
    assert (found.name, found.sign, found.bound, found.unit) == gate
    assert found.text == text.strip()


@pytest.mark.parametrize(
    "text", ["", "perplexity", "perplexity = 1", "> 1%", "perplexity > 1 %%", "a > b", "a > 1 < 2"]
)
def test_what_is_no_bound_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UserError, match="is not NAME < BOUND") as caught:
        parse_gate(text)
    assert "perplexity > +1%" in str(caught.value)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """B is worse by about 0.2 nats, a third slower, and needs half of the memory."""
    root = tmp_path_factory.mktemp("compared")
    runs = [
        Made("lora_bf16", seed=seed, log_ratio=-0.1, device=GPU, memory=2.0) for seed in range(3)
    ]
    runs += [
        Made("qlora_nf4", seed=seed, log_ratio=0.1, device=GPU, seconds=120) for seed in range(3)
    ]
    write_runs(root, runs)
    return compare(find_side("lora_bf16", root), find_side("qlora_nf4", root))


def only(comparison: Comparison, text: str) -> GateResult:
    (found,) = judge(comparison, [parse_gate(text)])
    return found


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("perplexity > +1%", "failed"),
        ("perplexity > +50%", "passed"),
        ("perplexity < -1%", "passed"),
        ("memory > 0", "passed"),
        ("memory < -10%", "failed"),
        ("time > +20%", "failed"),
        ("time > +80%", "passed"),
    ],
)
def test_a_gate_fails_where_the_whole_interval_is_past_its_bound(
    comparison: Comparison, text: str, status: str
) -> None:
    found = only(comparison, text)
    assert found.status == status, found.reason
    assert found.gate == text


def test_the_last_word_of_a_name_will_do(comparison: Comparison) -> None:
    assert only(comparison, "acc < -99pp").reason.startswith("oasst_choice acc")


def test_a_name_that_nothing_has_is_refused_with_those_there_are(comparison: Comparison) -> None:
    with pytest.raises(UnknownName, match="perplexty") as caught:
        only(comparison, "perplexty > 1%")
    assert "perplexity" in str(caught.value)


def test_a_run_that_failed_leaves_the_gate_unknown(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", status="oom")])
    found = compare(find_side("lora_bf16", tmp_path), find_side("qlora_nf4", tmp_path))
    result = only(found, "perplexity > 1%")
    assert result.status == "unknown"
    assert sentence(result).startswith("CANNOT TELL whether perplexity of ")


def test_one_training_each_is_judged_over_items_and_says_so(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", log_ratio=0.3)])
    found = compare(find_side("lora_bf16", tmp_path), find_side("qlora_nf4", tmp_path))
    result = only(found, "perplexity > 1%")
    assert result.status == "failed"
    assert "over items, one training each" in result.reason


@pytest.mark.parametrize(
    ("gate", "status", "start"),
    [
        ("loss > +1%", "passed", "OK: loss of B did not rise by more than 1 %: why"),
        ("loss > +1%", "failed", "FAILED: loss of B rose by more than 1 %: why"),
        ("loss > 0", "failed", "FAILED: loss of B rose at all: why"),
        ("acc < -2pp", "failed", "FAILED: acc of B fell by more than 2 points: why"),
        ("acc < 0", "passed", "OK: acc of B did not fall at all: why"),
        ("acc < +3", "failed", "FAILED: acc of B is past acc < +3: why"),
        ("loss > -1%", "passed", "OK: loss of B is not past loss > -1%: why"),
        ("loss > 1", "unknown", "CANNOT TELL whether loss of B rose by more than 1: why"),
    ],
)
def test_a_result_is_a_sentence_for_who_has_not_seen_the_expression(
    gate: str, status: str, start: str
) -> None:
    assert sentence(GateResult(gate, "B", status, "why")) == start  # type: ignore[arg-type]


def test_json_holds_all_pairs_and_gates(comparison: Comparison) -> None:
    found = json.loads(comparison_json(comparison, judge(comparison, [parse_gate("acc < -99pp")])))
    assert (found["before"], found["after"]) == ("lora_bf16", "qlora_nf4")
    (pair,) = found["pairs"]
    assert {change["name"] for change in pair["changes"]} >= {"perplexity", "oasst_choice acc"}
    assert [gate["status"] for gate in found["gates"]] == ["passed"]


def test_junit_counts_failures_and_what_cannot_be_told_as_errors(comparison: Comparison) -> None:
    results = [
        GateResult("a > 1%", "B", "passed", "fine"),
        GateResult("b > 1%", "B", "failed", "too much \x00\x1b"),
        GateResult("c > 1%", "B", "unknown", "no run"),
    ]
    root = ET.fromstring(comparison_junit(comparison, results))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    passed, failed, unknown = suite
    assert passed.findtext("system-out") == "fine"
    (failure,) = failed
    assert failure.get("message") == "too much \ufffd\ufffd", "what XML cannot hold is replaced"
    (error,) = unknown
    assert error.tag == "error"


def test_a_gate_keeps_its_own_words() -> None:
    assert Gate("x", "x", ">", 0.0, "") != parse_gate("x > 0")
