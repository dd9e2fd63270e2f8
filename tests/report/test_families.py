"""Families: which variants look alike in figures of many."""

from __future__ import annotations

import pytest

from harness.report.families import family_key, family_mark, family_of
from harness.report.rows import Row, make_rows
from harness.report.sides import read_runs
from tests.planned import planned
from tests.report.records import Made, write_runs


@pytest.mark.parametrize(
    ("variant", "family"),
    [
        ("lora_bf16", "LoRA family"),
        ("lora_dora", "LoRA family"),
        ("lora_rs", "LoRA family"),
        ("adalora", "LoRA family"),
        ("qlora_nf4", "LoRA family"),
        ("full_finetune", "full fine-tuning"),
        ("ia3", "other adapters"),
        ("vera", "other adapters"),
        ("base", "untrained"),
        ("base_nf4", "untrained"),
    ],
)
def test_each_variant_has_a_family(variant: str, family: str) -> None:
    assert family_of(planned(variant)).name == family


def test_marks_tell_families_and_bits_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Relatives look alike; what differs in kind or in bits does not."""
    root = tmp_path_factory.mktemp("runs")
    names = ("base", "base_nf4", "lora_bf16", "lora_dora", "qlora_nf4", "lora_int8", "ia3")
    write_runs(root, [Made(name) for name in names])
    rows: dict[str, Row] = {row.label: row for row in make_rows(read_runs(root)[0])}
    marks = {name: family_mark(row.plan) for name, row in rows.items()}
    assert marks["lora_bf16"] == marks["lora_dora"]
    apart = [mark for name, mark in marks.items() if name != "lora_dora"]
    assert len(set(apart)) == len(apart)
    key = family_key(row.plan for row in rows.values())
    assert [name for _, name in key] == [
        "LoRA family",
        "LoRA family, 8-bit base",
        "LoRA family, 4-bit base",
        "other adapters",
        "untrained",
        "untrained, 4-bit base",
    ]
    assert [mark for mark, _ in key] == [
        marks[name] for name in ("lora_bf16", "lora_int8", "qlora_nf4", "ia3", "base", "base_nf4")
    ]
