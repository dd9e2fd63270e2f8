"""Trackers get losses, memory, scores and the report, each through its own client, offline."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from harness.errors import UnknownName, UserError
from harness.records.events import Advanced, Event, Pulse, RunStarted, Validated
from harness.records.record import LossPoint, RunRecord, Score, Throughput, Tokens, TrainResult
from harness.records.validation import ValidationPoint, ValidationResult
from harness.runs.listener import RunResult
from harness.trackers.choose import make_trackers
from harness.trackers.tracker import Tracker, summary_of
from tests.planned import planned
from tests.store_records import record_of

LOSSES = (2.5, 2.0, 1.5)
VALIDATED = tuple(
    ValidationPoint(step=step, tokens=100 * step, loss=loss, seconds=1.0)
    for step, loss in ((0, 3.0), (2, 2.25))
)
PLAN = planned("qlora_nf4")


def record() -> RunRecord:
    """A run of three steps with one score."""
    points = tuple(
        LossPoint(
            step=step, loss=loss, learning_rate=1e-4, grad_norm=1.0, seconds=2.0,
            non_padding_tokens=100,
        )
        for step, loss in enumerate(LOSSES, 1)
    )  # fmt: skip
    score = Score(
        task="held_out", metric="perplexity", stage="after", value=7.5, standard_error=None, n=8,
        unit="", direction="lower",
    )  # fmt: skip
    training = TrainResult(
        steps=3,
        tokens=Tokens(assistant=1, non_padding=300, padded=300, truncated=0),
        losses=points,
        throughput=Throughput(warmup_steps=0, median=50.0, p10=50.0, p90=50.0),
        trainer="plain",
        validation=ValidationResult(points=VALIDATED, kept_step=3, stopped="budget"),
    )
    return record_of(PLAN, training=training, scores=(score,))


def told(tracker: Tracker, report: Path) -> None:
    """A run from its start to its record, and a report."""
    events: list[Event] = [RunStarted.now(host="here")]
    for step, loss in enumerate(LOSSES, 1):
        events.append(Pulse.now(numbers={"resident_bytes": 1000.0 * step}))
        events.append(Advanced.now(done=step, total=3, numbers={"loss": loss}))
    events += [Validated.now(point=point) for point in VALIDATED]
    tracker.begin([PLAN])
    for event in events:
        tracker.hear(PLAN, event)
    tracker.result(RunResult(PLAN, record=record()))
    tracker.end()
    report.write_text("# What was found")
    tracker.keep_report("quick", [report])


BLOCK, HEADER, START = 32768, 7, 7  # bytes of LevelDB's log format, in which W&B writes
FULL, LAST = 1, 4


def logged(path: Path) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format after W&B's own start."""
    data, position, parts = path.read_bytes(), START, b""
    while position + HEADER <= len(data):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + HEADER])
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def test_tensorboard_files_hold_the_curve_the_scores_and_the_report(tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard"
    )
    (tracker,) = make_trackers(["tensorboard"], tmp_path)
    assert not any(tmp_path.iterdir()), "nothing is written before a run begins"
    told(tracker, tmp_path / "report.md")
    found = accumulators.EventAccumulator(str(tracker.folder / PLAN.run_name)).Reload()
    losses = [(point.step, point.value) for point in found.Scalars("train/loss")]
    assert losses == list(enumerate(LOSSES, 1))
    validated = [(point.step, point.value) for point in found.Scalars("validation/loss")]
    assert validated == [(0, 3.0), (2, 2.25)]
    assert [point.value for point in found.Scalars("memory/resident_bytes")] == [1e3, 2e3, 3e3]
    assert found.Scalars("after/held_out/perplexity")[0].value == 7.5
    report = accumulators.EventAccumulator(str(tracker.folder / "quick" / "report")).Reload()
    assert b"What was found" in report.Tensors("report/text_summary")[0].tensor_proto.string_val[0]


def test_a_run_that_was_made_before_is_told_from_its_record_once(tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard"
    )
    for _ in range(2):
        (tracker,) = make_trackers(["tensorboard", "tensorboard"], tmp_path)
        tracker.result(RunResult(PLAN, record=record()))
        tracker.end()
    found = accumulators.EventAccumulator(str(tracker.folder / PLAN.run_name)).Reload()
    assert [point.value for point in found.Scalars("train/loss")] == list(LOSSES)
    assert [point.step for point in found.Scalars("validation/loss")] == [0, 2]


def test_wandb_offline_files_hold_the_curve_the_scores_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="extra wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "own"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB__SERVICE_WAIT", "WANDB_INIT_TIMEOUT"):  # of its process, which starts
        monkeypatch.setenv(name, "600")
    (tracker,) = make_trackers(["wandb"], tmp_path)
    told(tracker, tmp_path / "report.md")
    wandb.teardown()  # its service has written everything, as when the command ends
    losses, names, summary, artifacts = [], [], {}, []
    for path in sorted(tracker.folder.rglob("*.wandb")):
        for data in logged(path):
            item = Record.FromString(data)
            history = {"/".join(x.nested_key) or x.key: x.value_json for x in item.history.item}
            losses += [float(history["train/loss"])] if "train/loss" in history else []
            names += [item.run.display_name] if item.HasField("run") else []
            updates = item.summary.update
            summary |= {"/".join(x.nested_key) or x.key: x.value_json for x in updates}
            artifacts += [item.artifact.name] if item.HasField("artifact") else []
    assert losses == list(LOSSES)
    assert "qlora_nf4, seed 0" in names
    assert float(summary["after/held_out/perplexity"]) == 7.5
    assert "report-quick" in artifacts


def test_wandb_without_an_account_is_refused_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="extra wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="no account"):
        make_trackers(["wandb"], tmp_path)


def test_mlflow_holds_the_curve_the_scores_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tracker,) = make_trackers(["mlflow"], tmp_path)
    told(tracker, tmp_path / "report.md")
    client = mlflow.MlflowClient(f"sqlite:///{tracker.folder.absolute()}/mlflow.db")
    experiment = client.get_experiment_by_name("finetune-harness")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    run = runs["qlora_nf4, seed 0"]
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.value for point in history] == list(LOSSES)
    assert run.data.metrics["after/held_out/perplexity"] == 7.5
    kept = client.list_artifacts(runs["report of quick"].info.run_id)
    assert [item.path for item in kept] == ["report.md"]


def test_trackio_holds_the_curve_the_scores_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackio = pytest.importorskip("trackio", minversion="0.43", reason="extra trackio")
    # Trackio reads the variable once, when it is imported: the store may be one that the user and
    # other tests of this machine use, so the project is this test's alone.
    store, project = Path(trackio.utils.TRACKIO_DIR), f"harness-{uuid4().hex}"
    monkeypatch.setenv("TRACKIO_DIR", str(store))
    monkeypatch.setenv("TRACKIO_PROJECT", project)
    (tracker,) = make_trackers(["trackio"], tmp_path)
    told(tracker, tmp_path / "report.md")
    kept = trackio.sqlite_storage.SQLiteStorage
    assert set(kept.get_runs(project)) == {"qlora_nf4, seed 0", "report of quick"}
    logs = kept.get_logs(project, "qlora_nf4, seed 0")
    losses = {log["step"]: log["train/loss"] for log in logs if "train/loss" in log}
    assert losses == dict(enumerate(LOSSES, 1))
    validated = {log["step"]: log["validation/loss"] for log in logs if "validation/loss" in log}
    assert validated == {0: 3.0, 2: 2.25}
    assert [log["after/held_out/perplexity"] for log in logs if "status" in log] == [7.5]
    memory = kept.get_system_logs(project, "qlora_nf4, seed 0")
    assert [log["memory/resident_bytes"] for log in memory] == [1e3, 2e3, 3e3]
    (artifact,) = kept.get_artifacts(project)
    assert artifact["name"] == "report-quick"
    for left in store.glob(f"{project}*"):
        left.unlink()


def test_a_trackio_that_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trackio-0.0.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: trackio\nVersion: 0.0.6\n")
    (tmp_path / "trackio.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"trackio 0\.0\.6 is too old"):
        make_trackers(["trackio"], tmp_path)


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="wandb"):
        make_trackers(["wanb"], tmp_path)


def test_a_summary_names_scores_and_costs() -> None:
    found = summary_of(record())
    assert found["after/held_out/perplexity"] == 7.5
    assert found["seconds/run"] == 1.5
