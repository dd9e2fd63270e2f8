"""What training changed is told with the very numbers of the ranking."""

from __future__ import annotations

import re
from pathlib import Path

from harness import numbers
from harness.records.record import RunRecord
from harness.report.gains import gains
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run, write_runs


def test_seeds_are_averaged_as_in_the_ranking(tmp_path: Path) -> None:
    """Perplexity is compared by ratios, so its mean is that of logarithms."""
    write_runs(
        tmp_path, [Made("lora_bf16", seed=seed, seed_noise=0.2, trees=12) for seed in range(3)]
    )
    evidence = build_from(tmp_path).evidence
    (row,) = evidence.rows
    assert evidence.main is not None
    shown = numbers.number(evidence.main.values["lora_bf16"].value)
    perplexity = next(text for text in gains(row) if text.startswith("perplexity"))
    assert f" → {shown}, " in perplexity
    values = [score.value for r in row.finished for score in r.scores if score.task == "held_out"]
    assert max(values) / min(values) > 1.1, "else both means are alike and nothing is tested"


def test_a_change_is_told_as_finely_as_the_margin_needs_it(tmp_path: Path) -> None:
    """Beside a margin of 1 %, a change of 0.23 % is not told as −0 %."""
    write_runs(tmp_path, [Made("lora_bf16", log_ratio=-0.0023, seed_noise=0.0)])
    (row,) = build_from(tmp_path).evidence.rows
    perplexity = next(text for text in gains(row) if text.startswith("perplexity"))
    assert re.search(r", −0\.[12]\d %$", perplexity), perplexity


def test_a_value_at_the_edge_of_its_last_digit_is_rounded_as_in_the_ranking(tmp_path: Path) -> None:
    path = write_run(tmp_path, Made("base")) / "record.json"
    record = read_json(path, RunRecord)
    edge = [
        score.model_copy(update={"value": 47330.52, "items": None})
        if score.metric == "perplexity"
        else score
        for score in record.scores
    ]
    write_json(path, record.model_copy(update={"scores": tuple(edge)}))
    evidence = build_from(tmp_path).evidence
    assert evidence.main is not None
    shown = numbers.number(evidence.main.values["base"].value)
    assert f"perplexity {shown} (not trained)" in list(gains(evidence.rows[0]))
