"""The command beside a row is what was typed, whatever has become of the files it names."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from harness.report.reproduce import UNRECORDED, command, commands, seed_range
from harness.report.write import markdown_page
from harness.spec.request import Request, resolve
from tests.report.records import CPU, Made, build_from, plan_of, write_run


def test_a_command_says_what_was_typed(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('description = "mine"\nmethod = "none"\n')
    request = Request(
        (str(own), "lora_bf16"),
        settings=("corpus.held_out_limit = 7", "budget.steps=7"),
        tasks=("arc_easy",),
        seeds=(3,),
    )
    base, lora = resolve(request, CPU)
    start = "python -m harness run --suite quick --variant "
    end = " --set 'corpus.held_out_limit = 7' --set budget.steps=7 --task arc_easy"
    end += " --seeds 3..5 --device cpu"
    assert command(lora, [3, 4, 5]) == f"{start}lora_bf16{end}"
    assert command(base, [3, 4, 5]) == f"{start}{own}{end}"


def test_a_command_makes_the_same_plan_again() -> None:
    settings = ("adapter.r=8", "score.tasks=[{name = 'x', limit = 3}]")
    plan = plan_of(Made("qlora_nf4_dq", settings=settings))
    words = shlex.split(command(plan, [0]))
    again = tuple(words[n + 1] for n, word in enumerate(words) if word == "--set")
    assert plan_of(Made("qlora_nf4_dq", settings=again)) == plan


def test_seeds_of_one_request_share_a_command_and_other_words_have_their_own() -> None:
    words = ("adapter.r=8", "budget.steps=7")
    plans = [plan_of(Made("lora_bf16", settings=words, seed=seed)) for seed in (0, 2, 1)]
    plans.append(plan_of(Made("lora_bf16", settings=words[::-1], seed=3)))
    start = "python -m harness run --suite quick --variant lora_bf16"
    assert commands(plans) == [
        f"{start} --set adapter.r=8 --set budget.steps=7 --seeds 0..2 --device cpu",
        f"{start} --set budget.steps=7 --set adapter.r=8 --seeds 3 --device cpu",
    ]


def test_other_words_for_one_setting_share_a_row(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16", settings=("adapter.r=8",)))
    write_run(tmp_path, Made("lora_bf16", settings=("adapter.r = 8",), seed=1))
    (row,) = build_from(tmp_path).evidence.rows
    assert row.seeds == (0, 1)


def test_a_record_without_a_request_says_so(tmp_path: Path) -> None:
    """Records of older harnesses."""
    plan = plan_of(Made("lora_bf16", settings=("adapter.r=8",))).model_copy(
        update={"request": None}
    )
    start = "python -m harness run --suite quick --variant lora_bf16 --seeds 0 --device cpu"
    assert command(plan, [0]) == start + UNRECORDED


def test_the_registry_does_not_decide_what_a_report_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variant in ("base", "lora_bf16"):
        write_run(tmp_path, Made(variant))
    before = markdown_page(build_from(tmp_path))
    for name in ("MODELS", "SUITES"):
        monkeypatch.setattr(f"harness.spec.registry.{name}", tmp_path / "gone")
    monkeypatch.setattr("harness.spec.registry.variants_folder", lambda: tmp_path / "gone")
    assert markdown_page(build_from(tmp_path)) == before


def test_seed_ranges() -> None:
    assert [seed_range(seeds) for seeds in ([0], [0, 1, 2], [1, 3])] == ["0", "0..2", "1,3"]
