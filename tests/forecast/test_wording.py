"""What ``plan`` says of a run, and how long it expects it to take."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import UserError
from harness.forecast.duration import expected_seconds, scaled_seconds
from harness.forecast.memory import predict, room_needed
from harness.forecast.wording import plan_report
from harness.records.record import LossPoint, RunRecord, Throughput, Tokens, TrainResult
from harness.records.store import RunStore
from harness.records.validation import ValidationPoint, ValidationResult
from harness.spec.gpus import planned_gpu
from harness.spec.plan import Plan
from harness.spec.suite import Validation
from tests.forecast.phi_plans import CPU, make, small
from tests.planned import planned


def said(plan: Plan, memory: str = "", runs: Path = Path("no/such/folder")) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(plan_report(plan, memory, runs))
    return captured.get()


def store_run(plan: Plan, runs: Path, *, rate: float, started_at: str, steps: int = 10) -> None:
    validation = None
    if plan.validation.every:
        taken = tuple(
            ValidationPoint(step=step, tokens=0, loss=2.0, seconds=6.0) for step in (0, 5, 10)
        )
        validation = ValidationResult(points=taken, kept_step=10, stopped="budget")
    points = tuple(
        LossPoint(step=i, loss=1.0, learning_rate=1e-4, seconds=1.0, non_padding_tokens=600)
        for i in range(1, steps + 1)
    )
    training = TrainResult(
        steps=steps,
        tokens=Tokens(assistant=300 * steps, non_padding=600 * steps, padded=0, truncated=0),
        losses=points,
        throughput=Throughput(warmup_steps=2, median=rate, p10=rate, p90=rate),
        trainer="plain",
        validation=validation,
    )
    record = RunRecord(
        plan=plan,
        fingerprint=plan.fingerprint,
        status="ok",
        started_at=started_at,
        seconds=60.0,
        environment=None,
        training=training,
    )
    RunStore(runs).write(record)


def test_phi_2_in_four_bits_on_a_t4() -> None:
    text = said(make("qlora_nf4_dq", device=planned_gpu("t4")))
    assert "2,803,276,800" in text
    assert "23,592,960 trained" in text
    assert "no bfloat16 arithmetic" in text
    assert "train sets the peak" in text
    assert "fits into 15.0 GiB" in text
    assert "time: unknown" in text
    for part in ("weights", "adapter", "optimizer", "activations", "loss"):
        assert part in text


def test_memory_decides_what_fits() -> None:
    plan = make("lora_bf16", device=planned_gpu("h100"))
    assert "does not fit into 8.00 GiB; largest micro-batch that fits: none" in said(plan, "8GiB")
    assert "fits into 24.0 GiB" in said(plan, "24GiB")
    with pytest.raises(UserError, match="amount of memory"):
        said(plan, "much")


def test_an_untrained_variant() -> None:
    text = said(make("base", model=small(), device=CPU))
    assert "none trained" in text
    assert "rows of" not in text
    assert "time:" not in text


def test_time_is_expected_from_the_latest_stored_run_of_the_same_kind(tmp_path: Path) -> None:
    plan = make("qlora_nf4", model=small(), device=CPU)
    later = plan.model_copy(update={"seed": 1})
    store_run(plan, tmp_path, rate=50.0, started_at="2026-01-01T00:00:00+00:00")
    store_run(later, tmp_path, rate=100.0, started_at="2026-01-02T00:00:00+00:00")
    steps = plan.budget.steps or 0
    assert expected_seconds(plan, tmp_path) == pytest.approx(steps * 600 / 100)
    assert "judging by an earlier run" in said(plan, runs=tmp_path)
    tokens = plan.budget.model_copy(update={"steps": None, "tokens": 5000})
    by_tokens = plan.model_copy(update={"budget": tokens})
    assert expected_seconds(by_tokens, tmp_path) == pytest.approx(50)


def test_time_on_two_devices_is_at_best_half_of_that_on_one(tmp_path: Path) -> None:
    one = make("qlora_nf4", model=small(), device=CPU)
    training = one.training.model_copy(update={"devices": 2, "parallel": "data"})
    name = f"{one.variant}+training.devices=2"
    two = one.model_copy(update={"training": training, "variant": name})
    assert scaled_seconds(two, tmp_path) is None
    store_run(one, tmp_path, rate=100.0, started_at="2026-01-01T00:00:00+00:00")
    assert expected_seconds(two, tmp_path) is None
    seconds, devices = scaled_seconds(two, tmp_path) or (0.0, 0)
    assert (seconds, devices) == (pytest.approx((one.budget.steps or 0) * 600 / 200), 1)
    assert "judging by an earlier run on 1 device" in said(two, runs=tmp_path)
    renamed = two.model_copy(update={"variant": one.variant})
    assert expected_seconds(renamed, tmp_path) is None, "the same name on other devices"
    other = two.model_copy(update={"variant": "lora_bf16+training.devices=2"})
    assert scaled_seconds(other, tmp_path) is None


def test_two_devices_need_their_memory_each_and_two_processes_of_a_machine_together() -> None:
    def two(plan: Plan) -> Plan:
        training = plan.training.model_copy(update={"devices": 2, "parallel": "data"})
        return plan.model_copy(update={"training": training})

    gpu = make("qlora_nf4_dq", device=planned_gpu("rtx4090"))
    assert "on each of 2 GPUs" in said(two(gpu))
    cpu = make("qlora_nf4", model=small(), device=CPU)
    assert room_needed(two(cpu), 100) == 2 * room_needed(cpu, 100)
    assert "resident in 2 processes" in said(two(cpu))


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "lora_bf16"},
        {"device": planned_gpu("t4")},
        {"model": small().model_copy(update={"name": "other"})},
    ],
    ids=["variant", "device", "model"],
)
def test_a_run_of_another_kind_says_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    plan = make("qlora_nf4", model=small(), device=CPU)
    store_run(plan, tmp_path, rate=50.0, started_at="2026-01-01T00:00:00+00:00")
    assert expected_seconds(plan.model_copy(update=change), tmp_path) is None


def test_validation_is_foreseen_with_what_it_costs(tmp_path: Path) -> None:
    plan = make("qlora_nf4", model=small(), device=CPU)
    validated = plan.model_copy(
        update={
            "validation": Validation(every=10, keep="best", patience=3),
            "budget": plan.budget.model_copy(update={"steps": 95}),
        }
    )
    text = " ".join(said(validated, runs=tmp_path).split())
    assert "validation: 11 times on all validation conversations, for an unknown time" in text
    assert "training may stop earlier" in text
    store_run(validated, tmp_path, rate=100.0, started_at="2026-01-01T00:00:00+00:00")
    assert "for about 1.1 minutes more, judging by an earlier run" in said(validated, runs=tmp_path)


def test_memory_while_training_pauses_is_foreseen() -> None:
    plan = make("qlora_nf4", model=small(), device=CPU)
    validated = plan.model_copy(update={"validation": Validation(every=10, keep="best")})
    before, after = predict(plan), predict(validated)
    assert before is not None
    assert after is not None
    assert "validate" not in before.by_phase
    assert after.by_phase["validate"] > after.by_phase["score"]
    best = after.parts["best weights"]
    assert best > 0
    assert after.by_phase["train"] == before.by_phase["train"] + best


def test_recomputation_by_budget_says_how_many_layers_the_given_memory_keeps() -> None:
    settings = ("training.speed=fast", "training.gradient_checkpointing=auto")
    plan = planned("qlora_nf4_dq", "suite.model=phi2_shape", *settings, device=planned_gpu("h100"))

    (line,) = [line for line in said(plan, "4GiB").splitlines() if "recomputation:" in line]
    assert 0 < int(line.split()[1]) < 32, "of a whole H100 it would be all"
