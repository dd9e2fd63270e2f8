"""Arithmetic: the time of training by a GPU's peak, and the committed plan of Phi-2's recipe."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.forecast.arithmetic import least_training_seconds, training_seconds_by_peak
from harness.spec.gpus import planned_gpu
from tests.cli.terminal import refused, shown
from tests.planned import CPU, planned

RECIPE = Path(__file__).parents[2] / "reports" / "folklore" / "phi2_recipe.md"
TOLD = re.compile(r"```console\n\$ python -m harness (.*)\n((?:.*\n)*?)```")
TOKENS = ("budget.steps=none", "budget.tokens=1000000")


def test_time_goes_with_tokens_and_the_share_of_the_peak() -> None:
    plan = planned("lora_bf16", *TOKENS, device=planned_gpu("h100"))
    seconds = training_seconds_by_peak(0.4)(plan)
    assert seconds is not None
    # 4 operations a weight and token, and some more for the adapter and attention
    least = 1e6 * 4 * 134e6 / (0.4 * 989e12)
    assert least < seconds < 2 * least
    assert training_seconds_by_peak(0.2)(plan) == pytest.approx(2 * seconds)
    full = planned("full_finetune", *TOKENS, device=planned_gpu("h100"))
    assert (training_seconds_by_peak(0.4)(full) or 0) > seconds


def test_time_is_unknown_without_a_peak_or_a_budget_in_tokens() -> None:
    tell = training_seconds_by_peak(0.4)
    assert tell(planned("lora_bf16", *TOKENS, device=CPU)) is None
    assert tell(planned("lora_bf16", device=planned_gpu("h100"))) is None
    assert tell(planned("base", device=planned_gpu("h100"))) == 0.0


def test_training_takes_at_least_its_products() -> None:
    """On a GPU by its peak, here by what the processor does in a moment."""
    gpu = planned("lora_bf16", *TOKENS, device=planned_gpu("h100"))
    least = least_training_seconds(gpu)
    assert least is not None
    assert 1e6 * 4 * 106e6 / 989e12 < least < (training_seconds_by_peak(1.0)(gpu) or 0)
    here = least_training_seconds(planned("lora_bf16", *TOKENS, device=CPU))
    assert here is not None
    assert here > 0.1, "no processor does as many products as 100 H100s"
    assert least_training_seconds(planned("base", device=CPU)) == 0.0
    assert least_training_seconds(planned("lora_bf16", device=CPU)) is None, "a budget in steps"
    assert least_training_seconds(planned("lora_eva", *TOKENS, device=CPU)) is None


def test_devices_that_share_the_rows_share_the_time() -> None:
    gpu = planned_gpu("h100")
    shared = ("training.devices=2", 'training.parallel="data"')
    one = planned("lora_bf16", *TOKENS, device=gpu)
    two = planned("lora_bf16", *TOKENS, *shared, device=gpu)
    tell = training_seconds_by_peak(0.4)
    assert tell(two) == pytest.approx((tell(one) or 0) / 2)


def test_a_study_runs_on_the_gpus_of_this_machine() -> None:
    assert "--gpu without --plan" in refused("study", "phi2_recipe", "--gpu", "rtx4090")


@pytest.mark.parametrize("more", [(), ("--plan",), ("--status",)])
def test_a_share_of_the_peak_is_for_a_plan_on_another_gpu(more: tuple[str, ...]) -> None:
    told = refused("study", "phi2_recipe", "--peak-share", "0.4", *more)
    assert "--peak-share without --plan and --gpu" in told


@pytest.mark.slow
def test_the_committed_plan_of_phi2_is_what_its_commands_print(tmp_path: Path) -> None:
    told = TOLD.findall(RECIPE.read_text(encoding="utf-8"))
    assert len(told) == 4
    for command, printed in told:
        typed = [*shlex.split(command), "--reports", str(tmp_path)]
        lines = [line.rstrip() for line in shown(*typed, width=110).splitlines()]
        assert lines == printed.splitlines(), command
