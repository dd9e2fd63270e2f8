"""The Python API, as a user would call it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.errors import UserError
from harness.records.events import Event, PhaseStarted
from harness.spec.plan import Plan
from tests.runs.small_run import CPU, make_small


class Phases(harness.Listener):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def hear(self, plan: Plan, event: Event) -> None:  # noqa: ARG002
        if isinstance(event, PhaseStarted):
            self.begun.append(event.phase)


def test_from_a_variant_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "cache"))
    suite = str(make_small(tmp_path, steps=2).suite)
    assert harness.load_variant("base", suite).method == "none"
    plans = harness.make_plans(["base"], suite, seeds=[0], device=CPU)
    assert [plan.variant for plan in plans] == ["base"]
    phases = Phases()
    reports = tmp_path / "reports"
    (record,) = harness.run(plans, reports, listeners=[phases])
    assert record.status == "ok", record.problem
    assert phases.begun == ["fetch", "prepare", "load", "score", "save"]
    assert harness.read_records(reports) == [record]
    assert harness.run(plans, reports) == [record], "it is not run again"
    report = harness.build_report(plans[0].suite, reports)
    assert [row.variant for row in report.evidence.rows] == ["base"]


def test_settings_are_those_of_the_command_line() -> None:
    variant = harness.load_variant("qlora_nf4", settings=["adapter.r=32", "budget.steps=3"])
    assert variant.adapter is not None
    assert variant.adapter.fields["r"] == 32
    plans = harness.make_plans(["qlora_nf4"], settings=["budget.steps=3"], seeds=[0, 1])
    assert [(plan.seed, plan.budget.steps) for plan in plans] == [(0, 3), (1, 3)]
    with pytest.raises(UserError, match="unknown variant"):
        harness.load_variant("qlora_nf5")


def test_nothing_is_read_where_nothing_has_run(tmp_path: Path) -> None:
    assert harness.read_records(tmp_path) == []


def test_every_name_is_there_and_none_loads_anything_heavy() -> None:
    code = (
        "import harness, sys\n"
        "light = set(sys.modules)\n"
        "assert 'pydantic' not in light, 'importing harness imports nothing'\n"
        "for name in harness.__all__:\n"
        "    assert getattr(harness, name).__doc__, name\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
        "try:\n    harness.nothing\nexcept AttributeError:\n    print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ok\n"
