"""What `list` shows is what the files say."""

from __future__ import annotations

import pytest

from harness.spec.listing import descriptions, variants_markdown
from harness.spec.registry import model_names, study_names, suite_names, variant_names

KINDS = {
    "variants": variant_names,
    "suites": suite_names,
    "models": model_names,
    "studies": study_names,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_thing_is_listed_once_with_a_description(kind: str) -> None:
    found = descriptions(kind)
    assert [name for name, _ in found] == KINDS[kind]()
    assert all(text.strip() for _, text in found)


def test_the_table_of_variants_says_what_is_stored_and_what_is_trained() -> None:
    head, rule, *lines = variants_markdown().splitlines()
    assert head.count("|") == rule.count("|")
    rows = {cells[1].strip(" `"): cells[2:5] for line in lines if (cells := line.split("|"))}
    assert list(rows) == variant_names()
    expected = {
        "base": ("bfloat16", "nothing"),
        "base_nf4_dq": ("nf4+dq", "nothing"),
        "full_finetune": ("bfloat16", "every weight"),
        "lora_fp16": ("float16", "LORA, rank 16"),
        "qlora_nf4_r64": ("nf4", "LORA, rank 64"),
        "ia3": ("bfloat16", "IA3"),
    }
    for name, (base, trained) in expected.items():
        assert [cell.strip() for cell in rows[name][:2]] == [base, trained], name
