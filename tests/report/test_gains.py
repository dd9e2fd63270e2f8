"""What training changed is told with the very numbers of the ranking."""

from __future__ import annotations

from pathlib import Path

from harness import numbers
from harness.report.gains import gains
from tests.report.records import Made, build_from, write_runs


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
