"""The Python API: what ``harness`` offers under its own name, a call for each command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.spec import registry
from harness.spec.overrides import parse_settings
from harness.spec.request import Request

if TYPE_CHECKING:
    from harness.records.record import RunRecord
    from harness.report.build import Report
    from harness.runs.executor import Executor
    from harness.runs.listener import Listener
    from harness.spec.device import Device
    from harness.spec.plan import Plan
    from harness.spec.variant import Variant

REPORTS = Path("reports")


def load_variant(name: str, suite: str = "quick", settings: Sequence[str] = ()) -> Variant:
    """A registered variant or a TOML file, resolved under a suite's protocol.

    ``settings`` are those of ``--set``, such as ``"adapter.r=32"``.

    Raises:
        UserError: an unknown name, or a setting that does not fit.
    """
    variant, overrides = parse_settings(settings)
    return registry.load_variant(name, registry.load_suite(suite, overrides), variant)


def make_plans(
    variants: Sequence[str],
    suite: str = "quick",
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
    device: Device | None = None,
) -> list[Plan]:
    """Plans of all variants and seeds (the suite's, if none are given), with nothing left open.

    ``device`` is the one of this machine unless another is given.

    Raises:
        UserError: an unknown name, or a request that cannot be carried out on the device.
    """
    from harness.spec.device import detect_device
    from harness.train.path import resolve

    request = Request(tuple(variants), suite, tuple(settings), seeds=tuple(seeds))
    return resolve(request, device or detect_device())


def run(
    plans: Sequence[Plan],
    reports: Path = REPORTS,
    executor: Executor | None = None,
    listeners: Sequence[Listener] = (),
) -> list[RunRecord]:
    """Carry plans out, each in a process of its own, and return their records.

    A run that fails has a record too. An equal plan that has been run well is not run again, and
    an interrupted one is resumed.

    Raises:
        HarnessError: a plan cannot be run at all; raised after all the others have been run.
        KeyboardInterrupt: Ctrl-C, after the runs under way have written their records.
    """
    from harness.records.store import RunStore
    from harness.runs.batch import run_batch
    from harness.runs.executor import LocalExecutor

    chosen = executor or LocalExecutor(RunStore(reports / "runs"))
    results = list(run_batch(plans, chosen, listeners))
    for result in results:
        if result.error is not None:
            raise result.error
    by_name = {result.plan.run_name: result.record for result in results}
    found = [by_name[plan.run_name] for plan in plans]
    return [record for record in found if record is not None]


def read_records(reports: Path = REPORTS, suite: str | None = None) -> list[RunRecord]:
    """The records of all runs (of one suite) that can be read, by variant and seed."""
    from harness.records.store import RunStore, StoredRun

    found = RunStore(reports / "runs").scan(suite)
    return [run.record for run in found if isinstance(run, StoredRun)]


def build_report(suite: str = "quick", reports: Path = REPORTS) -> Report:
    """The report of a suite's runs; ``harness.report.write.write_report`` makes pages of it."""
    from harness.records.store import BrokenRun, RunStore, StoredRun
    from harness.report.build import ReportRequest
    from harness.report.build import build_report as build

    found = list(RunStore(reports / "runs").scan(suite))
    runs = [run for run in found if isinstance(run, StoredRun)]
    broken = [run for run in found if isinstance(run, BrokenRun)]
    return build(runs, broken, ReportRequest(suite=suite))
