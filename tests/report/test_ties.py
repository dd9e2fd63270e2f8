"""Ties: costs that repeated runs do not tell apart, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.report.blocks import Figure
from harness.report.decision import price
from harness.report.evidence import Evidence
from harness.report.figures.scatter import Scatter
from harness.report.ties import energy_order, memory_order, time_order
from harness.report.tradeoff import tradeoff_section
from harness.spec.device import Device
from tests.report.records import CPU, GPU, Made, build_from, write_runs

VARIANTS = ("lora_bf16", "qlora_nf4", "qlora_nf4_dq")


def evidence_of(
    root: Path,
    seconds: dict[str, Sequence[float]],
    memory: dict[str, float] | None = None,
    device: Device = GPU,
) -> Evidence:
    """Three variants of the same quality order, trained for so many seconds by seed."""
    runs = [
        Made(
            variant,
            seed=seed,
            log_ratio=0.1 * place,
            seconds=took,
            memory=(memory or {}).get(variant, 1.0),
            device=device,
        )
        for place, variant in enumerate(VARIANTS)
        for seed, took in enumerate(seconds[variant])
    ]
    write_runs(root, runs)
    return build_from(root).evidence


def fronts(evidence: Evidence) -> dict[str, set[str]]:
    """Who is on the front of each picture of quality against a cost."""
    section = tradeoff_section(evidence)
    assert section is not None
    figures = [block for block in section.blocks if isinstance(block, Figure)]
    return {
        figure.name: {point.label for point in figure.drawing.points if point.on_front}
        for figure in figures
        if isinstance(figure.drawing, Scatter)
    }


def test_times_closer_than_repeated_runs_are_a_tie(tmp_path: Path) -> None:
    found = evidence_of(
        tmp_path,
        {"lora_bf16": (80, 90, 100), "qlora_nf4": (78, 88, 98), "qlora_nf4_dq": (40, 44, 48)},
    )
    order = time_order(found.rows)
    lora, nf4, dq = (found.by_label[name] for name in VARIANTS)
    assert 0.2 < order.alike < 0.4
    assert order.tied(lora, nf4)
    assert not order.less(nf4, lora)
    assert order.less(dq, lora)
    assert order.least([lora, nf4, dq]) is dq


def test_a_tie_in_time_is_called_one(tmp_path: Path) -> None:
    """Two seconds of 90, where repeated runs differ by twenty."""
    seconds = {"lora_bf16": (80, 90, 100), "qlora_nf4": (78, 88, 98), "qlora_nf4_dq": (40, 44, 48)}
    found = evidence_of(tmp_path, seconds)
    (facts,) = price(found, found.by_label["lora_bf16"])
    assert "a tie: repeated runs differ by as much" in str(facts), facts


def test_on_a_cpu_the_planner_breaks_a_tie_of_memory_and_on_a_gpu_nothing_does(
    tmp_path: Path,
) -> None:
    once: dict[str, Sequence[float]] = dict.fromkeys(VARIANTS, (80,))
    memory = {"lora_bf16": 1.005}
    for device in (CPU, GPU):
        found = evidence_of(tmp_path / device.kind, once, memory, device)
        order = memory_order(found.rows, found.memory_kind)
        lora, nf4 = found.by_label["lora_bf16"], found.by_label["qlora_nf4"]
        assert order.tied(lora, nf4)
        assert not (device is GPU and (order.less(nf4, lora) or order.less(lora, nf4)))
        assert bool(order.breakers) == (device is CPU)


@pytest.mark.parametrize("order", [time_order, energy_order])
def test_without_repeats_a_tenth_is_a_tie(tmp_path: Path, order: object) -> None:
    found = evidence_of(tmp_path, {"lora_bf16": (80,), "qlora_nf4": (86,), "qlora_nf4_dq": (100,)})
    made = time_order(found.rows) if order is time_order else energy_order(found.rows)
    lora, nf4, dq = (found.by_label[name] for name in VARIANTS)
    assert made.alike == pytest.approx(0.1)
    assert made.tied(lora, nf4)
    assert made.less(lora, dq)
