"""An executor added from outside: it hands plans to another program and brings records back."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from harness.errors import UnknownName
from harness.records.events import Event, Hear, RunStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.batch import run_batch
from harness.runs.executor import EXECUTORS, make_executor
from harness.runs.listener import Listener
from harness.runs.options import RunOptions
from harness.spec.device import Device, DeviceChoice
from harness.spec.plan import Plan
from harness.spec.storage import write_json
from tests.runs.small_run import CPU, Small

WORKER = """
import json, sys
from pathlib import Path
from harness.records.store import RunStore
from harness.runs.options import RunOptions
from harness.runs.supervise import supervise
from harness.spec.plan import Plan
from harness.spec.storage import read_json

folder = Path(sys.argv[1])
plan = read_json(folder / "plan.json", Plan)
options = read_json(folder / "options.json", RunOptions)
record = supervise(plan, RunStore(folder / "runs"), lambda event: None, options)
print(record.model_dump_json())
"""


class OtherProgram:
    """Runs each plan in a program that shares nothing with this one but a folder."""

    def __init__(self, store: RunStore, options: RunOptions) -> None:
        self._store = store
        self._options = options

    def device(self, kind: DeviceChoice) -> Device:  # noqa: ARG002
        return CPU

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:
        hear(RunStarted.now(host="far away"))
        folder = self._store.root.parent / "far away"
        write_json(folder / "plan.json", plan)
        write_json(folder / "options.json", self._options)
        command = [sys.executable, "-c", WORKER, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        record = RunRecord.model_validate_json(done.stdout)
        self._store.write(record)
        future: Future[RunRecord] = Future()
        future.set_result(record)
        return future

    def cancel(self) -> None:
        """Nothing is left to end: submit waits."""


class Hosts(Listener):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def hear(self, plan: Plan, event: Event) -> None:  # noqa: ARG002
        self.events.append(event)


POINT = f"other = {__name__}:{OtherProgram.__name__}"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip would leave it, whose entry point names the executor."""
    info = tmp_path / "site" / "other_program-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-program\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[finetune_harness.executors]\n{POINT}\n")
    monkeypatch.syspath_prepend(str(info.parent))


@pytest.mark.usefixtures("installed")
def test_an_added_executor_is_found_by_its_name_and_its_records_are_in_the_store(
    small: Small, tmp_path: Path
) -> None:
    assert EXECUTORS.names() == ["local", "other", "ray", "slurm"]
    store = RunStore(tmp_path / "runs")
    executor = make_executor("other", store, RunOptions(timeout_seconds=1800))
    assert executor.device("auto") == CPU
    hosts = Hosts()
    (result,) = run_batch([small.plan(variant="base")], executor, [hosts])
    assert result.record is not None
    assert result.record.status == "ok", result.record.problem
    assert result.record.scores
    assert store.find(result.plan) == result.record
    assert [event.host for event in hosts.events if isinstance(event, RunStarted)] == ["far away"]
    assert json.loads(store.folder(result.plan).record.read_text())["status"] == "ok"


def test_an_unknown_executor_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="slurn") as raised:
        make_executor("slurn", RunStore(tmp_path))
    assert "slurm" in str(raised.value)
    assert "--executor" in str(raised.value)
