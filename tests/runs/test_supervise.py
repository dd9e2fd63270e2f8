"""From a plan to a record: nothing good is lost, and whatever ends a run is written down."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from harness.errors import StorageError, UserError
from harness.records.events import Event
from harness.records.record import PHASES, Problem, RunRecord
from harness.records.store import BrokenRun, RunStore, StoredRun
from harness.runs import supervise as afresh
from harness.runs.options import RunOptions
from harness.runs.supervise import settle, shrunk
from harness.spec.digests import file_sha256
from harness.spec.storage import write_json
from tests.runs.forked import supervise
from tests.runs.results import files, results
from tests.runs.small_run import (
    FIRST_NOTE,
    Heard,
    Moment,
    Small,
    halt,
    start_of,
    step_done,
    trains,
)

OFTEN = 0.0  # seconds between checkpoints: one after every step


@pytest.fixture(scope="session")
def done(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, RunRecord]:
    """A run that nothing has disturbed."""
    store = RunStore(tmp_path_factory.mktemp("reference"))
    return store, afresh.supervise(small.plan(), store, Heard())


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def copied(done: tuple[RunStore, RunRecord], store: RunStore) -> RunStore:
    """A store of one's own that holds the undisturbed run."""
    shutil.copytree(done[0].root, store.root)
    return store


def test_a_run_leaves_its_result_and_nothing_of_its_work(
    done: tuple[RunStore, RunRecord], small: Small
) -> None:
    store, record = done
    assert record.status == "ok", record.problem
    assert [phase.name for phase in record.phases] == list(PHASES)
    assert record.resumed == 0
    folder = store.folder(small.plan())
    assert not folder.attempt.path.exists()
    assert not folder.holder.exists()
    assert len(files(store, small.plan())) == 5
    assert store.find(small.plan()) == record
    assert "Error" not in folder.log.read_text()


def test_a_record_says_which_phases_took_over_scores_of_another_run(
    copied: RunStore, done: tuple[RunStore, RunRecord], small: Small
) -> None:
    assert not any(cost.reused for cost in done[1].phases), "the first run scored the base"
    record = supervise(small.plan(seed=1), copied, Heard())
    assert [cost.name for cost in record.phases if cost.reused] == ["score_base"]
    base = supervise(small.plan(variant="base"), copied, Heard())
    assert [cost.name for cost in base.phases if cost.reused] == ["score"]
    assert all(cost.reused is not None for cost in (*record.phases, *base.phases))


def test_an_equal_run_is_not_done_twice(copied: RunStore, small: Small) -> None:
    heard = Heard()
    again = supervise(small.plan(), copied, heard)
    assert again == copied.find(small.plan())
    assert "already run" in heard.notes[0]
    assert len(heard.events) == 1


def test_a_run_asked_for_in_other_words_goes_on(small: Small, store: RunStore) -> None:
    words = ("budget.steps=3", "training.learning_rate=1e-4")
    heard = Heard().kill_at(store.root, start_of("train"))
    supervise(small.plan(*words), store, heard)
    plan = small.plan(*words[::-1])
    record = supervise(plan, store, Heard())
    assert (record.status, record.resumed) == ("ok", 1)
    assert record.plan.request == plan.request


def test_killed_runs_go_on_and_end_as_if_nothing_had_been(
    done: tuple[RunStore, RunRecord], small: Small, store: RunStore
) -> None:
    options = RunOptions(checkpoint_seconds=OFTEN)
    moments: dict[str, Moment] = {
        "score_base": start_of("score_base"),
        "train": step_done(3),
        "save": start_of("save"),
    }
    for phase, moment in moments.items():
        heard = Heard().kill_at(store.root, moment)
        killed = supervise(small.plan(), store, heard, options)
        assert killed.problem is not None
        assert (killed.status, killed.problem.kind) == ("failed", "killed")
        assert killed.problem.phase == phase
        assert phase != "train" or killed.problem.step == 4
    heard = Heard()
    record = supervise(small.plan(), store, heard, options)
    assert record.resumed == 3
    assert results(record) == results(done[1])
    assert files(store, small.plan()) == files(done[0], small.plan())
    assert [phase.name for phase in record.phases] == list(PHASES)
    assert not any(trains(event) for event in heard.events), "what was trained is kept"


def test_a_loss_that_is_not_a_number_is_a_result(small: Small, store: RunStore) -> None:
    record = supervise(small.plan("training.learning_rate=1e30"), store, Heard())
    assert record.status == "diverged"
    assert record.problem is not None
    assert record.problem.phase == "train"
    assert record.problem.step == 2
    assert "the loss at step 2 is" in record.problem.message
    (found,) = store.scan()
    assert isinstance(found, StoredRun)
    assert found.record == record, "and it has a row in the report"
    assert any(score.stage == "before" for score in record.scores), "what was scored is kept"
    assert all((found.folder.path / str(score.items)).is_file() for score in record.scores)


def test_training_that_does_not_fit_is_tried_with_half_the_micro_batch(
    small: Small, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that tensors are mapped one by one, and do not come from what was freed before
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
    heard = Heard()

    def starve() -> None:  # and let the next child have all it wants
        limit = psutil.Process(heard.pid).memory_info().vms - (64 << 20)
        resource.prlimit(heard.pid, resource.RLIMIT_AS, (limit, limit))

    heard.halt_at(store.root, step_done(1), starve)
    sizes = ("budget.batch_size=64", "training.micro_batch_size=64")
    plan = small.plan("budget.steps=3", *sizes)
    options = RunOptions(on_oom="shrink")
    record = afresh.supervise(plan, store, heard, options)
    first = store.find(plan)
    assert first is not None
    assert first.problem is not None
    assert (first.status, first.problem.kind) == ("oom", "host_oom"), first.problem
    assert first.problem.phase == "train"
    assert first.problem.step is not None
    assert record.status == "ok", record.problem
    (found,) = record.plan.substitutions[-1:]
    assert (found.key, found.asked, found.used) == ("training.micro_batch_size", 64, 32)
    assert "did not fit into memory" in found.reason
    assert record.training is not None
    assert record.training.steps == 3
    later = Heard()
    assert afresh.supervise(plan, store, later, options) == record
    assert [event.kind for event in later.events] == ["note"] * 3, "nothing was run again"


def test_a_micro_batch_is_halved_until_it_is_one(
    small: Small, done: tuple[RunStore, RunRecord]
) -> None:
    plan = small.plan("training.micro_batch_size=12", "budget.batch_size=12")
    asked, sizes = plan, []
    while plan is not None:
        last = plan
        sizes.append(plan.training.micro_batch_size)
        problem = {"kind": "cuda_oom", "phase": "train", "step": 1, "message": ""}
        data = done[1].model_dump(mode="json") | {"status": "oom", "problem": problem}
        data |= {"plan": plan.model_dump(mode="json"), "fingerprint": plan.fingerprint}
        plan = shrunk(RunRecord.model_validate_json(__import__("json").dumps(data)))
    assert sizes == [12, 6, 3, 1]
    assert [(item.asked, item.used) for item in last.substitutions][-1] == (12, 1)
    assert last.fingerprint != asked.fingerprint
    assert last.request == asked.request is not None
    assert last.budget == asked.budget, "the batch and with it the training stay the same"


def test_the_micro_batch_that_did_not_fit_is_told_by_its_own_size(
    done: tuple[RunStore, RunRecord], small: Small, store: RunStore
) -> None:
    plan = small.plan("training.micro_batch_size=3", "budget.batch_size=3")
    problem = Problem(kind="cuda_oom", phase="train", step=1, message="")
    oom = {"plan": plan, "fingerprint": plan.fingerprint, "status": "oom", "problem": problem}
    record = done[1].model_copy(update=oom)
    smaller = shrunk(record)
    assert smaller is not None
    fitting = {"plan": smaller, "fingerprint": smaller.fingerprint}
    store.write(record)
    store.write(done[1].model_copy(update=fitting))
    heard = Heard()
    supervise(plan, store, heard, RunOptions(on_oom="shrink"))
    assert "a micro-batch of 3 does not fit into memory: trying 1" in heard.notes


def test_out_of_memory_outside_training_is_not_mended_by_a_smaller_micro_batch(
    done: tuple[RunStore, RunRecord],
) -> None:
    problem = Problem(kind="cuda_oom", phase="score", step=None, message="")
    assert shrunk(done[1].model_copy(update={"status": "oom", "problem": problem})) is None
    assert shrunk(done[1]) is None


def test_an_interrupted_second_run_leaves_the_good_one_alone(
    copied: RunStore, small: Small
) -> None:
    plan = small.plan()
    before, kept = copied.find(plan), files(copied, plan)
    heard = Heard().kill_at(copied.root, FIRST_NOTE)
    record = afresh.supervise(plan, copied, heard, RunOptions(force=True))
    assert record.status == "failed"
    assert copied.find(plan) == before
    assert files(copied, plan) == kept


def test_an_interrupt_is_recorded_before_it_is_passed_on(small: Small, store: RunStore) -> None:
    heard = Heard()
    heard.halt_at(store.root, FIRST_NOTE, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        afresh.supervise(small.plan(), store, heard)
    record = store.find(small.plan())
    assert record is not None
    assert record.status == "interrupted"


def test_a_child_that_a_signal_ends_does_not_say_that_the_user_did(
    small: Small, store: RunStore
) -> None:
    """SIGUSR2 ends nothing: so SLURM tells all of a job that its time is nearly over."""
    heard = Heard()

    def signals() -> None:
        for number in (signal.SIGUSR2, signal.SIGTERM):
            os.kill(heard.pid, number)

    heard.halt_at(store.root, FIRST_NOTE, signals)
    record = afresh.supervise(small.plan(), store, heard)
    assert record.problem is not None
    assert (record.status, record.problem.message) == ("interrupted", "stopped by SIGTERM")


def test_a_run_over_its_time_is_recorded_as_that(small: Small, store: RunStore) -> None:
    halt(store.root, FIRST_NOTE)
    record = afresh.supervise(small.plan(), store, Heard(), RunOptions(timeout_seconds=0.5))
    assert record.problem is not None
    assert (record.status, record.problem.kind) == ("failed", "timed_out")
    assert store.find(small.plan()) == record


def test_a_run_whose_parent_was_killed_gets_its_record_from_the_next_command(
    small: Small, store: RunStore
) -> None:
    plan = small.plan()
    plan_file = small.folder / "asked.json"
    write_json(plan_file, plan)
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.spec.plan import Plan\n"
        "from harness.records.store import RunStore\nfrom harness.spec.storage import read_json\n"
        "from harness.runs.supervise import supervise\n"
        f"plan = read_json(Path({str(plan_file)!r}), Plan)\n"
        f"supervise(plan, RunStore(Path({str(store.root)!r})), lambda e: print(e, flush=True))\n"
    )
    halt(store.root, FIRST_NOTE)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    settle(store)
    assert list(store.scan()) == [], "a run that is under way is left alone"
    parent.kill()
    parent.wait()
    with FileLock(store.folder(plan).attempt.lock):
        pass  # the child holds it until it is gone
    settle(store)
    (found,) = store.scan()
    assert isinstance(found, StoredRun)
    assert found.record.status == "interrupted"
    assert found.record.problem is not None
    assert "has ended" in found.record.problem.message


def test_a_second_process_waits_for_the_first_and_takes_over_its_record(
    done: tuple[RunStore, RunRecord], store: RunStore, small: Small
) -> None:
    plan = small.plan()
    folder = store.folder(plan)
    folder.path.mkdir(parents=True)
    lock = FileLock(folder.lock)
    lock.acquire()
    folder.holder.write_text("process 4711 on elsewhere\n")

    def finish(event: Event) -> None:
        assert "process 4711 on elsewhere" in event.text
        store.write(done[1])
        lock.release()
        heard.act = None

    heard = Heard(act=finish)
    with pytest.raises(StorageError, match="4711 on elsewhere is already running this plan"):
        supervise(plan, store, Heard(), RunOptions(wait=False))
    assert supervise(plan, store, heard) == done[1]
    assert len(heard.events) == 1, "no child was started"


def test_a_publication_that_was_cut_short_is_completed(copied: RunStore, small: Small) -> None:
    plan = small.plan()
    folder, whole = copied.folder(plan), files(copied, plan)
    record = copied.find(plan)
    assert record is not None
    written = {path.name: file_sha256(path) for path in folder.adapter.iterdir()}
    assert record.adapter_sha256 == written
    folder.attempt.path.mkdir()
    for path in (folder.record, folder.plan, folder.log, folder.events, folder.adapter):
        path.rename(folder.attempt.path / path.name)
    settle(copied)
    assert copied.find(plan) == record
    assert files(copied, plan) == whole
    assert not folder.attempt.path.exists()


def failed_attempt(store: RunStore, record: RunRecord) -> RunRecord:
    """An attempt as its child left it at the end, with nobody there to publish it."""
    attempt = store.folder(record.plan).attempt
    message = f"cannot read {Path.home() / 'rows'}"
    problem = Problem(kind="crash", phase="train", step=2, message=message)
    record = record.model_copy(update={"status": "failed", "problem": problem})
    write_json(attempt.plan, record.plan)
    write_json(attempt.record, record)
    attempt.log.write_text(f"reading {Path.home() / 'rows'}\nhf_secret_value\n")
    return record


def test_what_a_child_wrote_is_cleaned_before_it_is_published_without_its_parent(
    done: tuple[RunStore, RunRecord], store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    left = failed_attempt(store, done[1])
    settle(store)
    record = store.find(left.plan)
    assert record is not None
    assert record.problem is not None
    assert record.problem.message == "cannot read ~/rows"
    assert record.problem.log_tail == "reading ~/rows\n***\n"


def test_a_failed_run_is_published_once(done: tuple[RunStore, RunRecord], store: RunStore) -> None:
    left = failed_attempt(store, done[1])
    folder = store.folder(left.plan)

    def written() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in folder.path.rglob("*.json")}

    settle(store)
    before = written()
    settle(store)
    assert written() == before
    write_json(folder.attempt.record, left.model_copy(update={"seconds": 1.0}))
    settle(store)
    found = store.find(left.plan)
    assert found is not None
    assert found.seconds == 1.0, "another attempt is another result"


def test_what_another_environment_left_is_not_gone_on_from(small: Small, tmp_path: Path) -> None:
    from harness.records.record import Environment
    from harness.records.store import RunFolder
    from harness.runs.kept import Kept

    here = Environment(python="3", packages={"torch": "2"}, os="x", cpu="x", cores=2, commit="a")
    folder = RunFolder(tmp_path)
    kept = Kept(folder, small.plan())
    assert [kept.start(here), kept.start(here)] == [0, 1]
    folder.checkpoint.mkdir()
    assert kept.start(here.model_copy(update={"commit": "b"})) == 2
    assert folder.checkpoint.is_dir()
    assert kept.start(here.model_copy(update={"packages": {"torch": "3"}})) == 0
    assert not folder.checkpoint.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"sources": "of an edit"},
        {"settings": {"ATEN_CPU_CAPABILITY": "default"}},
        {"settings": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}},
        {"settings": {"NVIDIA_TF32_OVERRIDE": "1"}},
        {"threads": 7},
    ],
)
def test_other_code_or_arithmetic_is_not_gone_on_from(
    small: Small, tmp_path: Path, change: dict[str, Any]
) -> None:
    from harness.measure.environment import take_environment
    from harness.records.store import RunFolder
    from harness.runs.kept import Kept

    folder, here = RunFolder(tmp_path), take_environment(small.plan().device)
    kept = Kept(folder, small.plan())
    assert [kept.start(here), kept.start(here)] == [0, 1]
    folder.checkpoint.mkdir()
    assert kept.start(here.model_copy(update=change)) == 0
    assert not folder.checkpoint.exists()


def test_force_takes_nothing_over_but_what_its_own_order_found(
    copied: RunStore, small: Small
) -> None:
    """After an edit of the scoring code --force once still gave the old value."""
    options = RunOptions(force=True)
    first = supervise(small.plan(), copied, Heard(), options)
    assert not any(cost.reused for cost in first.phases), "the base is scored again"
    second = supervise(small.plan(seed=1), copied, Heard(), options)
    assert [cost.name for cost in second.phases if cost.reused] == ["score_base"]


def test_a_record_of_other_code_says_so_when_it_is_used_again(
    copied: RunStore, done: tuple[RunStore, RunRecord], small: Small
) -> None:
    environment = done[1].environment
    assert environment is not None
    older = environment.model_copy(update={"sources": "of another version"})
    copied.write(done[1].model_copy(update={"environment": older}))
    heard = Heard()
    supervise(small.plan(), copied, heard)
    assert "which another version of the harness made" in heard.notes[0]


def test_code_of_a_model_needs_a_word_on_the_command_line_too(
    small: Small, store: RunStore
) -> None:
    plan = small.plan()
    model = plan.model.model_copy(update={"trust_remote_code": True})
    with pytest.raises(UserError, match="--trust-remote-code"):
        supervise(plan.model_copy(update={"model": model}), store, Heard())
    assert not store.root.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with half a mebibyte, where this machine lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_is_told_although_it_cannot_be_written_down(
    small: Small, small_disk: Path
) -> None:
    store = RunStore(small_disk / "runs")

    def fill() -> None:
        with suppress_full(), (small_disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    heard = Heard().halt_at(store.root, FIRST_NOTE, fill)
    record = afresh.supervise(small.plan(), store, heard)
    assert record.status == "failed"
    assert record.problem is not None
    assert "No space left on device" in record.problem.message
    assert "the record could not be written" in record.problem.message
    assert list(store.scan()) == [], "no half of a record is left"
    (small_disk / "filler").unlink()
    settle(store)
    (found,) = store.scan()
    assert isinstance(found, StoredRun)
    assert found.record.status == "interrupted"


def suppress_full() -> Any:
    from contextlib import suppress

    return suppress(OSError)


def test_a_folder_that_cannot_be_written_is_said_at_once(small: Small, small_disk: Path) -> None:
    command = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("the file system cannot be made read-only here")
    heard = Heard()
    with pytest.raises(StorageError, match="cannot use the run folder: Read-only file system"):
        afresh.supervise(small.plan(), RunStore(small_disk / "runs"), heard)
    assert heard.events == []


def test_a_file_size_limit_while_the_adapter_is_saved_spoils_nothing(
    small: Small, store: RunStore
) -> None:
    heard = Heard()

    def limit() -> None:
        resource.prlimit(heard.pid, resource.RLIMIT_FSIZE, (1024, 1024))

    heard.halt_at(store.root, start_of("save"), limit)
    record = afresh.supervise(small.plan(), store, heard)
    folder = store.folder(small.plan())
    assert record.problem is not None
    assert record.status == "failed"
    assert record.problem.phase == "save"
    assert not folder.adapter.exists()
    assert store.find(small.plan()) == record
    assert not list(folder.path.rglob("*.part"))


@pytest.mark.parametrize("items", ["/etc/x.parquet", "items/../../x.parquet", "../items/x.parquet"])
def test_a_record_from_elsewhere_cannot_name_files_outside_its_folder(
    copied: RunStore, small: Small, items: str
) -> None:
    path = copied.folder(small.plan()).record
    text = path.read_text()
    name = next(score.items for score in copied.find(small.plan()).scores)  # type: ignore[union-attr]
    path.write_text(text.replace(f'"{name}"', f'"{items}"'))
    (found,) = copied.scan()
    assert isinstance(found, BrokenRun)
    assert copied.find(small.plan()) is None
