"""`study` answers a question from one command; decisions come from any terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.records.events import EventLog, PhaseStarted
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs import executor
from harness.runs.options import RunOptions
from harness.spec.device import Device, detect_device
from harness.spec.plan_digests import SAMPLE
from harness.spec.storage import read_json, write_json
from harness.studies.open import StudyRequest, open_study
from harness.studies.steering import read_steering
from tests import rebuild
from tests.cli.terminal import refused, shown
from tests.extend.scores import write_own
from tests.planned import CPU, GPU
from tests.runs.small_run import Small
from tests.studies.stub import StubExecutor, World
from tests.studies.test_versions import environment

SMALL = ("study", "quantization", "--device", "cpu", "--set", "study.seeds.most=3")
SMALL = (*SMALL, "--set", "study.tune.trials=3")
FOLDER = "quantization+seeds.most=3+tune.trials=3"


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> World:
    """Runs take no time: an executor of the tests' own stands in for processes."""
    world = World(worse={"qlora_fp4": 0.05, "qlora_nf4": 0.03})
    monkeypatch.setattr(executor, "LocalExecutor", lambda store, *_: StubExecutor(store, world))
    return world


def test_one_command_answers_and_a_second_runs_nothing(made_up: World, tmp_path: Path) -> None:
    told = shown(*SMALL, "--reports", str(tmp_path))
    assert "qlora_fp4 is worse than lora_bf16: perplexity +" in told
    page = (tmp_path / "studies" / FOLDER / "report.md").read_text(encoding="utf-8")
    for words in ("## Answer", "How sure", "What it cost", "Quality by learning rate", "best rate"):
        assert words in page
    assert (tmp_path / "studies" / FOLDER / "report.html").is_file()
    records = sorted((tmp_path / "runs").rglob("record.json"))
    again = shown(*SMALL, "--reports", str(tmp_path))
    assert "next:" not in again
    assert sorted((tmp_path / "runs").rglob("record.json")) == records


def test_plan_and_status_run_nothing(made_up: World, tmp_path: Path) -> None:
    told = shown(*SMALL, "--reports", str(tmp_path), "--plan")
    for words in ("18 trials", "tuning", "18 to 36", "best settings", "not predicted", "GiB"):
        assert words in told, words
    table = shown(*SMALL, "--reports", str(tmp_path), "--status")
    assert "0 of 3" in table
    assert not (tmp_path / "runs").exists()
    shown(*SMALL, "--reports", str(tmp_path))
    table = shown(*SMALL, "--reports", str(tmp_path), "--status")
    for words in ("4 of 4", "0.0005", "reference", "worse"):
        assert words in table


def test_status_shows_what_other_terminals_run(made_up: World, tmp_path: Path) -> None:
    there = ("--reports", str(tmp_path))
    opened = open_study(StudyRequest(study="quantization", settings=SMALL[5::2]), CPU, tmp_path)
    store = RunStore(tmp_path / "runs")
    fresh, silent = opened.agenda().jobs[:2]
    for job in (fresh, silent):
        with EventLog(store.folder(job.plan).attempt.events) as log:
            log.emit(PhaseStarted.now(phase="train"))
            log.advance(12, 28, loss=1.25)
    for job, said in ((fresh, 4e9), (silent, 1e9)):  # the command may take a minute to look
        os.utime(store.folder(job.plan).attempt.events, (said, said))
    table = shown(*SMALL, *there, "--status")
    assert re.search(r"lora_bf16 .* 0\.0002 .* 1000, trial .* train .* 12 of 28 .* 1\.25", table)
    assert table.count("12 of 28") == 1, "one that has been silent for long is not under way"


def test_shards_together_give_the_same_answer(made_up: World, tmp_path: Path) -> None:
    whole = shown(*SMALL, "--reports", str(tmp_path / "whole")).partition("page:")[0]
    for _ in range(6):
        for part in ("1/2", "2/2"):
            told = shown(*SMALL, "--reports", str(tmp_path / "parts"), "--shard", part)
    answer = told.partition("page:")[0]
    assert answer.splitlines()[-5:] == whole.splitlines()[-5:]


def test_machines_without_common_disks_share_a_store(made_up: World, tmp_path: Path) -> None:
    """Each runs its part with a folder of its own, until both have the whole."""
    whole = shown(*SMALL, "--reports", str(tmp_path / "whole")).partition("page:")[0]
    there = ("--store", f"file://{tmp_path / 'bucket'}")
    for _ in range(6):
        for part in (1, 2):
            own = ("--reports", str(tmp_path / str(part)), "--shard", f"{part}/2")
            told = shown(*SMALL, *own, *there)
    answer = told.partition("page:")[0]
    assert answer.splitlines()[-5:] == whole.splitlines()[-5:]
    for folder in ("whole/runs", "1/runs", "2/runs"):
        assert len(list((tmp_path / folder).rglob("record.json"))) == len(
            list((tmp_path / "bucket").rglob("record.json"))
        )
    own = ("--reports", str(tmp_path / "new"))
    assert "next: nothing" in shown(*SMALL, *own, *there, "--status"), "somebody else looks"


SHORT = ("study", "quantization", "--set", "study.tune.trials=1")
SHORT = (*SHORT, "--set", 'study.variants=["lora_bf16", "qlora_nf4"]', "--name", "short")


@pytest.fixture
def made_on_gpu(made_up: World, tmp_path: Path) -> Path:
    """A study that a machine with a GPU has finished and published, with data of its own."""
    made_up.device = GPU
    data = tmp_path / "trees.jsonl"
    data.write_bytes(SAMPLE.read_bytes())
    there = ("--reports", str(tmp_path / "there"), "--store", f"file://{tmp_path / 'bucket'}")
    shown(*SHORT, *there, "--data", str(data), "--publish", str(tmp_path / "page"))
    data.unlink()
    made_up.device = CPU
    return tmp_path


def published(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_runs_of_a_gpu_are_looked_at_without_one(made_on_gpu: Path) -> None:
    """Neither the device nor the data are here; nothing is run, and the page is the same."""
    there = ("study", "short", "--reports", str(made_on_gpu / "there"))
    records = sorted((made_on_gpu / "there").rglob("record.json"))
    for more in ((), ("--device", "cuda")):
        told = shown(*there, "--status", *more)
        for words in ("made on Example GPU", "worse", "next: nothing"):
            assert words in told, words
    shown(*there, "--publish", str(made_on_gpu / "again"))
    assert published(made_on_gpu / "again") == published(made_on_gpu / "page")
    assert sorted((made_on_gpu / "there").rglob("record.json")) == records
    assert "no such corpus" in refused(*there, "--status", "--device", "cpu")
    nowhere = ("--reports", str(made_on_gpu / "new"), "--device", "cuda")
    assert "no run of this study" in refused(*SHORT, *nowhere, "--status")


def test_who_only_looks_is_told_which_options_made_it_so(made_on_gpu: Path) -> None:
    there = ("study", "short", "--reports", str(made_on_gpu / "there"))
    told = shown(*there, "--drop", "qlora_nf4", "--more-seeds", "1")
    assert "To make runs here, leave out --drop and --more-seeds." in told
    told = shown(*there, "--publish", str(made_on_gpu / "again"))
    assert "To make runs here, leave out --publish." in told


@pytest.mark.parametrize(
    ("change", "there", "here"),
    [
        ({"threads": 8}, "Plain CPU with 2 threads", "Plain CPU with 8 threads"),
        ({"memory_bytes": 48 << 30}, "Plain CPU with 24.0 GiB", "Plain CPU with 48.0 GiB"),
    ],
)
def test_devices_of_one_name_are_told_apart(
    made_up: World, tmp_path: Path, change: dict[str, int], there: str, here: str
) -> None:
    short = (*SHORT, "--reports", str(tmp_path))
    shown(*short)
    made_up.device = CPU.model_copy(update=change)
    assert f"were made on {there}; this one is {here}." in shown(*short, "--status")
    assert f"Runs of this study on {there} are not compared" in shown(*short)


def test_without_its_device_a_study_is_only_looked_at(
    made_up: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a cluster is wrong, say: no run is made on this machine instead."""

    def lost(*_: object) -> Device:
        raise UserError("no such cluster", where="--address")

    there = (*SHORT, "--reports", str(tmp_path))
    publish = (*there, "--publish", str(tmp_path / "page"))
    monkeypatch.setattr(StubExecutor, "device", lost)
    for more in (("--publish", str(tmp_path / "page")), ("--status",), ("--drop", "qlora_nf4")):
        assert "no such cluster" in refused(*there, *more)
    assert not list(tmp_path.rglob("*.json*")), "no run, no page, no decision"
    monkeypatch.undo()
    monkeypatch.setattr(executor, "LocalExecutor", lambda store, *_: StubExecutor(store, made_up))
    made_up.device = detect_device("cpu")
    shown(*there, "--budget", "runs=2")
    monkeypatch.setattr(StubExecutor, "device", lost)
    assert "published:" in shown(*publish)
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 2


def test_runs_of_a_gpu_come_from_a_store_without_one(made_on_gpu: Path) -> None:
    there = ("--reports", str(made_on_gpu / "here"), "--store", f"file://{made_on_gpu / 'bucket'}")
    data = ("--data", str(made_on_gpu / "trees.jsonl"))
    assert "next: nothing" in shown(*SHORT, *data, *there, "--status")
    shown(*SHORT, *data, *there, "--publish", str(made_on_gpu / "again"))
    assert published(made_on_gpu / "again") == published(made_on_gpu / "page")


def test_a_variant_added_elsewhere_is_no_reason_not_to_look(made_on_gpu: Path) -> None:
    """A third machine, which has the data, adds it; no machine with a GPU has begun it yet."""
    data, store = made_on_gpu / "trees.jsonl", f"file://{made_on_gpu / 'bucket'}"
    typed = (*SHORT, "--data", str(data), "--store", store, "--reports")
    data.write_bytes(SAMPLE.read_bytes())
    shown(*typed, str(made_on_gpu / "third"), "--add", "qlora_fp4")
    data.unlink()
    laptop = (*typed, str(made_on_gpu / "laptop"))
    told = shown(*laptop, "--status")
    for words in ("made on Example GPU", "qlora_fp4 has been added since", "next: nothing"):
        assert words in told, words
    assert "noted" in shown(*laptop, "--drop", "qlora_nf4", "--more-seeds", "1")
    assert "no such corpus" in refused(*laptop, "--add", "lora_int8")
    data.write_bytes(SAMPLE.read_bytes())
    told = shown(*laptop, "--add", "lora_int8", "--status")
    assert "added since" not in told
    for words in ("made on Example GPU", "noted", "lora_int8", "qlora_fp4"):
        assert words in told, words


def test_a_second_machine_of_a_kind_needs_no_data_to_look(
    made_up: World, made_on_gpu: Path
) -> None:
    made_up.device = GPU
    there = ("study", "short", "--reports", str(made_on_gpu / "there"))
    told = shown(*there, "--status")
    assert "next: nothing" in told
    assert "cannot be resolved here: no such corpus" in told
    shown(*there, "--publish", str(made_on_gpu / "again"))
    assert published(made_on_gpu / "again") == published(made_on_gpu / "page")
    assert "no such corpus" in refused(*there)


def test_runs_of_a_gpu_that_kept_no_arms_are_found_by_their_records(
    made_up: World, tmp_path: Path
) -> None:
    """Older harnesses kept none."""
    made_up.device = GPU
    there = (*SHORT, "--reports", str(tmp_path))
    shown(*there)
    shutil.rmtree(tmp_path / "studies" / "short" / "arms")
    made_up.device = CPU
    assert "made on Example GPU" in shown(*there, "--status")
    assert "next: nothing" in shown(*there, "--status")


def test_arms_that_cannot_be_read_stop_nothing(made_up: World, tmp_path: Path) -> None:
    """A newer harness has laid its own into the store; others of it are cut or damaged."""
    there = (*SHORT, "--store", f"file://{tmp_path / 'bucket'}")
    shown(*there, "--reports", str(tmp_path / "one"))
    (kept,) = (tmp_path / "one" / "studies" / "short" / "arms").iterdir()
    (shared,) = (tmp_path / "bucket" / ".arms").glob("short-*/*")
    written = json.loads(shared.read_text())
    newer = written | {"schema_version": 2, "words": "new"}
    quiet = {**written, "arms": [one | {"schema_version": 2} for one in written["arms"]]}
    for name, text in (
        ("newer", json.dumps(newer)),
        ("quiet", json.dumps(quiet)),
        ("cut", shared.read_text()[:99]),
    ):
        (shared.parent / f"{name}.json").write_text(text)
        (kept.parent / f"{name}.json").write_text(text)
    (shared.parent / "bytes.json").write_bytes(b"\xff")
    for reports in ("one", "two"):
        told = shown(*there, "--reports", str(tmp_path / reports), "--mix-versions")
        assert told.count("is left out") == 1, reports
    taken = (tmp_path / "two" / "studies" / "short" / "arms").iterdir()
    assert [path.name for path in taken] == [kept.name]
    made_up.device = GPU
    told = shown(*there, "--reports", str(tmp_path / "one"), "--status")
    assert "made on Plain CPU" in told
    assert told.count("is left out") == 1


def test_another_device_makes_runs_of_its_own(made_up: World, tmp_path: Path) -> None:
    made_up.device = GPU
    there = (*SHORT, "--reports", str(tmp_path))
    shown(*there)
    records = len(list(tmp_path.rglob("record.json")))
    made_up.device = CPU
    assert "on Example GPU are not compared with" in shown(*there)
    assert len(list(tmp_path.rglob("record.json"))) == 2 * records
    assert "made on" not in shown(*there, "--status")
    assert "made on Example GPU" in shown(*there, "--status", "--device", "cuda")


def test_decisions_travel_through_the_store(made_up: World, tmp_path: Path) -> None:
    """One machine drops what another has added; a third, which decided nothing, follows both."""
    there = ("--store", f"file://{tmp_path / 'bucket'}")
    own = [(*SMALL, "--reports", str(tmp_path / str(number)), *there) for number in range(3)]
    shown(*own[0], "--add", "qlora_nf4_r64")
    shown(*own[1], "--drop", "qlora_nf4_r64", "--more-seeds", "1")
    answers = [shown(*one).partition("page:")[0].splitlines()[-5:] for one in own]
    assert answers[0] == answers[1] == answers[2]
    logs = [tmp_path / str(number) / "studies" / FOLDER / "decisions.jsonl" for number in range(3)]
    decisions = [read_steering(log).decisions for log in logs]
    assert decisions[0] == decisions[1] == decisions[2]
    assert [one.kind for one in decisions[2]] == ["add", "drop", "more_seeds"]


def decided(root: Path, number: int, folder: str) -> list[str]:
    """Kinds of the decisions that one machine knows of a study."""
    found = read_steering(root / str(number) / "studies" / folder / "decisions.jsonl")
    return [one.kind for one in found.decisions]


def test_decisions_are_about_what_a_study_asks_not_its_name(made_up: World, tmp_path: Path) -> None:
    """Two people call their studies alike; a third types the first one's in another order."""
    there = ("--store", f"file://{tmp_path / 'bucket'}", "--status")
    ours = ("--set", "training.warmup_steps=1", "--set", "adapter.r=8")
    own = [(*SHORT, "--reports", str(tmp_path / str(number)), *there) for number in range(3)]
    shown(*own[0], *ours, "--more-seeds", "1")
    shown(*own[1], "--set", "adapter.r=4")
    shown(*own[2], *ours[2:], *ours[:2], "--budget", "runs=3")
    assert [decided(tmp_path, number, "short") for number in range(3)] == [
        ["more_seeds"],
        [],
        ["more_seeds"],
    ]


def test_decisions_follow_data_that_lie_elsewhere(made_up: World, tmp_path: Path) -> None:
    there = ("--store", f"file://{tmp_path / 'bucket'}", "--status")
    for number, more in enumerate((("--drop", "qlora_nf4"), ())):
        data = tmp_path / str(number) / "trees.jsonl"
        data.parent.mkdir()
        data.write_bytes(SAMPLE.read_bytes())
        own = ("--reports", str(data.parent), "--data", str(data))
        shown(*SHORT, *own, *there, *more)
    assert decided(tmp_path, 1, "short") == ["drop"]


def test_decisions_that_an_older_harness_laid_down_are_read(made_up: World, tmp_path: Path) -> None:
    """It kept them under the study's name, and beside them what study it was."""
    there = ("--store", f"file://{tmp_path / 'bucket'}")
    first = ("--reports", str(tmp_path / "0"), *there)
    shown(*SHORT, *first, "--budget", "runs=1")
    shown(*SHORT, *first, "--drop", "qlora_nf4")
    for kind in (".decisions", ".arms"):
        (ours,) = (tmp_path / "bucket" / kind).iterdir()
        ours.rename(ours.with_name("short"))
    shown(*SHORT, "--reports", str(tmp_path / "1"), *there, "--status")
    assert decided(tmp_path, 1, "short") == ["drop"]
    other = (*SHORT, "--set", "study.margin=0.02", "--reports", str(tmp_path / "2"))
    shown(*other, *there, "--status")
    assert decided(tmp_path, 2, "short") == [], "what was kept beside them is another study"
    typed = (*SHORT, "--set", "training.warmup_steps=1", "--reports", str(tmp_path / "3"))
    shown(*typed, *there, "--status")
    assert decided(tmp_path, 3, "short") == [], "so it is where its runs have other settings"


def test_decisions_under_a_key_with_a_relative_folder_are_read(
    made_up: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older harness told the same folder apart by how it was typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "trees").mkdir(parents=True)
    (tmp_path / "data" / "trees" / "trees.jsonl").write_bytes(SAMPLE.read_bytes())
    setting = "corpus.source=data/trees"
    there = (*SHORT, "--set", setting, "--store", f"file://{tmp_path / 'bucket'}", "--reports")
    shown(*there, "0", "--budget", "runs=1")
    shown(*there, "0", "--drop", "qlora_nf4")
    request = read_json(tmp_path / "0" / "studies" / "short" / "request.json", StudyRequest)
    (_, older) = open_study(request, CPU, tmp_path / "0").older_keys
    for kind in (".decisions", ".arms"):
        (ours,) = (tmp_path / "bucket" / kind).iterdir()
        assert ours.name != older
        ours.rename(ours.with_name(older))
    shown(*there, "1", "--status")
    assert decided(tmp_path, 1, "short") == ["drop"]


def test_another_version_adds_no_runs_unless_it_is_allowed(
    made_up: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("--reports", str(tmp_path))
    shown(*SMALL, *there, "--budget", "runs=4")
    for path in (tmp_path / "runs").rglob("record.json"):
        record = read_json(path, RunRecord)
        write_json(path, record.model_copy(update={"environment": environment("1.0")}))
    told = refused(*SMALL, *there)
    assert "torch 1.0 (here 2." in told
    assert "in 4 runs" in told
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 4
    shown(*SMALL, *there, "--status")
    shown(*SMALL, *there, "--mix-versions", "--budget", "runs=6")
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 6


def test_decisions_are_kept_and_told(made_up: World, tmp_path: Path) -> None:
    there = ("--reports", str(tmp_path))
    assert "noted; a command" in shown(*SMALL, *there, "--drop", "lora_int8")
    shown(*SMALL, *there, "--add", "qlora_nf4_r64", "--more-seeds", "2")
    shown(*SMALL, *there)
    page = (tmp_path / "studies" / FOLDER / "report.md").read_text(encoding="utf-8")
    for words in ("drop lora_int8", "add qlora_nf4_r64", "more seeds 2", "dropped by a decision"):
        assert words in page, words
    assert not list((tmp_path / "runs").rglob("lora_int8*/*/record.json"))
    assert list((tmp_path / "runs").rglob("qlora_nf4_r64*/*/record.json"))


def test_a_study_is_published_with_its_records(made_up: World, tmp_path: Path) -> None:
    told = shown(*SMALL, "--reports", str(tmp_path), "--publish", str(tmp_path / "kept"))
    assert f"published: {tmp_path / 'kept' / 'report.md'}" in told
    assert rebuild.differences(tmp_path / "kept") == []


def test_a_published_study_goes_on_elsewhere(made_up: World, tmp_path: Path) -> None:
    here, there, kept = tmp_path / "here", tmp_path / "there", tmp_path / "kept"
    shown(*SMALL, "--reports", str(here), "--drop", "lora_int8")
    shown(*SMALL, "--reports", str(here), "--add", "qlora_nf4_r64", "--add", "lora_attention")
    shown(*SMALL, "--reports", str(here), "--budget", "runs=50", "--publish", str(kept))
    on = ("study", str(kept), "--device", "cpu", "--reports", str(there))
    assert "the budget of 50 runs is used up" in shown(*on)
    told = shown(*on, "--budget", "runs=400", "--publish", str(kept))
    assert "(50 runs are done)" in told
    shown(*SMALL, "--reports", str(here))
    logs = [folder / "studies" / FOLDER / "decisions.jsonl" for folder in (here, there)]
    assert logs[0].read_text() == logs[1].read_text(), "in their order, also those of one time"
    pages = [folder / "studies" / FOLDER / "report.md" for folder in (here, there)]
    answers = [answer_of(page.read_text(encoding="utf-8")) for page in pages]
    assert "is worse than" in answers[0]
    assert answers[0] == answers[1]  # runs made there are paired with those that came
    assert rebuild.differences(kept) == []
    again = shown("study", FOLDER, "--reports", str(there), "--device", "cpu")
    assert "taken in" not in again
    assert "next:" not in again


def answer_of(page: str) -> str:
    """The conclusions of a study's page, without what they cost."""
    return "\n".join(line for line in page.split("## Answer")[1].split("\n") if " than " in line)


def test_what_was_published_stays_as_it_is_when_it_is_published_again(
    made_up: World, tmp_path: Path
) -> None:
    kept, again = tmp_path / "kept", tmp_path / "again"
    shown(*SMALL, "--reports", str(tmp_path / "here"), "--publish", str(kept))
    there = ("--reports", str(tmp_path / "there"), "--device", "cpu")
    shown("study", str(kept), *there, "--publish", str(again))
    files = [path.relative_to(kept) for path in sorted(kept.rglob("*")) if path.is_file()]
    assert len(files) > 20
    assert [
        name for name in files if (kept / name).read_bytes() != (again / name).read_bytes()
    ] == []


def test_a_published_study_begins_nothing_anew_by_mistake(
    made_up: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another device, other data or none: refused before anything is copied, but to be seen."""
    kept, there = tmp_path / "kept", tmp_path / "there"
    shown(*SMALL, "--reports", str(tmp_path / "here"), "--publish", str(kept))
    on = ("study", str(kept), "--device", "cpu", "--reports", str(there))
    told = refused(*on, "--data", "nowhere.jsonl")
    assert "say where they lie with --data" in " ".join(told.split())
    own = write_own(tmp_path / "own.trees.jsonl")
    assert "other conversations" in refused(*on, "--data", str(own))
    monkeypatch.setattr(made_up, "device", CPU.model_copy(update={"threads": 7}))
    assert "Plain CPU with 7 threads here" in " ".join(refused(*on).split())
    assert not (there / "runs").exists()
    assert "qlora_fp4 is worse than lora_bf16" in shown(*on, "--status")
    assert "next:" in shown(*on, "--name", "another")


def test_a_built_in_name_is_no_folder(
    made_up: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown(*SMALL, "--publish", "quantization")
    assert "next: nothing" not in shown("study", "quantization", "--plan", "--device", "cpu")
    told = shown("study", "./quantization", "--device", "cpu", "--reports", "there", "--status")
    assert "next: nothing" in told
    monkeypatch.chdir(tmp_path / "there")
    again = shown("study", FOLDER, "--device", "cpu", "--reports", ".", "--status")
    assert "next: nothing" in again, "the folder is remembered by its whole path"


def test_a_changed_published_study_has_a_name_of_its_own(made_up: World, tmp_path: Path) -> None:
    kept, there = tmp_path / "kept", tmp_path / "there"
    shown(*SMALL, "--reports", str(tmp_path / "here"), "--publish", str(kept))
    on = ("study", str(kept), "--device", "cpu", "--reports", str(there), "--status")
    shown(*on, "--set", "study.seeds.most=4")
    shown(*on, "--data", "sample")
    found = sorted(path.name for path in (there / "studies").iterdir())
    assert found == [FOLDER, f"{FOLDER}+seeds.most=4"]


def test_a_published_study_is_planned_by_its_name(made_up: World, tmp_path: Path) -> None:
    kept, there = tmp_path / "kept", tmp_path / "there"
    shown(*SMALL, "--reports", str(tmp_path / "here"), "--publish", str(kept))
    on = ("study", str(kept), "--device", "cpu", "--reports", str(there))
    assert "--plan writes nothing" in refused(*on, "--plan")
    assert not (there / "runs").exists()
    shown(*on, "--status")
    planned = shown("study", FOLDER, "--plan", "--reports", str(there), "--device", "cpu")
    assert "next: nothing (60 runs are done)" in planned
    changed = shown(*on, "--name", "wider", "--set", "study.seeds.most=4", "--status")
    assert re.search(r"next: \d+ runs for the verdict", changed)


def test_model_data_tasks_and_name_are_given_as_to_run(
    made_up: World, tmp_path: Path, small: Small
) -> None:
    given = (
        "--model",
        str(small.folder / "small.toml"),
        "--data",
        str(small.folder / "trees.jsonl"),
    )
    task = write_own(tmp_path / "mine")
    given = (*given, "--task", str(task), "--set", "corpus.validation_fraction=0.3")
    there = ("--reports", str(tmp_path), "--name", "mine")
    assert "worse than lora_bf16" in shown(*SMALL, *given, *there)
    assert (tmp_path / "studies" / "mine" / "report.md").is_file()
    found = [read_json(path, RunRecord).plan for path in (tmp_path / "runs").rglob("record.json")]
    assert {plan.model.name for plan in found} == {"small"}
    assert {Path(plan.corpus.source).name for plan in found} == {"trees.jsonl"}
    tasks = {plan.score.split: {task.name for task in plan.score.tasks} for plan in found}
    assert str(task) in tasks["held_out"]
    assert not tasks["validation"]
    other = refused(*SMALL, *there)
    assert "--name mine is already used by another study" in other


def in_two_folders(small: Small, path: Path) -> None:
    """The same trees twice, in files of one name."""
    for folder in ("first", "second"):
        (path / folder).mkdir()
        shutil.copyfile(small.folder / "trees.jsonl", path / folder / "trees.jsonl")


def test_files_of_one_name_in_two_folders_make_two_studies(
    made_up: World, tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_two_folders(small, tmp_path)
    there = ("--reports", str(tmp_path / "reports"), "--budget", "runs=1")
    shown(*SMALL, "--data", str(tmp_path / "first" / "trees.jsonl"), *there)
    other = ("--data", str(tmp_path / "second" / "trees.jsonl"))
    message = refused(*SMALL, *other, *there, "--status")
    assert "is already used by another study" in message
    assert "--name" in message
    monkeypatch.chdir(tmp_path)  # the first one, spelled otherwise
    shown(*SMALL, "--data", "first/trees.jsonl", *there, "--status")


def test_a_study_is_the_same_from_any_folder(
    made_up: World, tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths hold in the folder where they were typed, whatever lies in another under that name."""
    in_two_folders(small, tmp_path)
    there = ("--reports", str(tmp_path / "reports"))
    typed = (*SMALL, "--data", "./trees.jsonl", *there, "--name", "mine")
    monkeypatch.chdir(tmp_path / "first")
    shown(*typed, "--budget", "runs=1")
    monkeypatch.chdir(tmp_path / "second")
    assert "is already used by another study" in refused(*typed, "--status")
    whole = ("--data", str(tmp_path / "first" / "trees.jsonl"))
    shown(*SMALL, *whole, *there, "--name", "mine", "--status")
    monkeypatch.chdir(tmp_path)
    assert "0 of 3" in shown("study", "mine", *there, "--device", "cpu", "--status")
    elsewhere = tmp_path / "copied"  # as on another machine, where nothing of it lies
    shutil.copytree(tmp_path / "reports", elsewhere / "reports")
    for folder in ("first", "second"):
        shutil.rmtree(tmp_path / folder)
    monkeypatch.chdir(elsewhere)
    assert "0 of 3" in shown(*typed[:-4], "--reports", "reports", "--name", "mine", "--status")


def test_a_budget_is_kept_and_is_no_other_study(made_up: World, tmp_path: Path) -> None:
    there = ("--reports", str(tmp_path))
    told = shown(*SMALL, *there, "--budget", "runs=4")
    assert "The study has stopped: the budget of 4 runs is used up" in told
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 4
    told = shown(*SMALL, *there, "--budget", "hours=0.02", "--plan")
    assert "Budget: 0.02 hours of run time, 0.01 of them used" in told
    shown(*SMALL, *there, "--budget", "hours=0.02")
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 7
    assert [path.name for path in (tmp_path / "studies").iterdir()] == [FOLDER]


def test_devices_where_a_study_ran_are_named_apart_from_each_other(tmp_path: Path) -> None:
    """Two processors of one name are two, also where the one here has another name."""
    asked = StudyRequest(study="quantization", settings=SMALL[5::2])
    for threads in (2, 8):
        device = CPU.model_copy(update={"threads": threads})
        there = open_study(asked, device, tmp_path)
        there.kept_arms.keep(there.resolved())
    names = [f"{CPU.name} with {threads} threads" for threads in (2, 8)]
    assert open_study(asked, GPU, tmp_path).other_devices() == names


ONE_CLAIM = ("study", "quantization", "--claim", "nf4_beats_fp4", "--device", "cpu")
ONE_CLAIM = (*ONE_CLAIM, "--set", "study.tune.trials=1", "--set", "study.seeds.stop=3")


def test_a_study_can_be_limited_to_a_claim_which_it_judges(made_up: World, tmp_path: Path) -> None:
    there = ("--reports", str(tmp_path))
    named = StudyRequest(study="quantization", called="mine", claims=("nf4_beats_fp4",))
    open_study(named, CPU, tmp_path / "named").keep_request()
    other = named.model_copy(update={"claims": ("double_quantization",)})
    with pytest.raises(UserError, match="--name mine is already used by another study"):
        open_study(other, CPU, tmp_path / "named")
    assert "default settings     6" in shown(*ONE_CLAIM, *there, "--plan")
    told = shown(*ONE_CLAIM, *there)
    assert "Does it hold here? NF4 loses less quality than FP4." in told
    assert re.search(r"nf4_beats_fp4 .* reproduced", told)
    assert "1 claim: 1 reproduced" in told
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 6
    (folder,) = (tmp_path / "studies").iterdir()
    assert folder.name == "quantization+claims=nf4_beats_fp4+seeds.stop=3+tune.trials=1"
    assert "1 reproduced" in shown(*ONE_CLAIM, *there, "--publish", str(tmp_path / "kept"))
    assert rebuild.differences(tmp_path / "kept") == []


def test_what_hours_buy_is_said_before_and_after_the_first_run(
    made_up: World, tmp_path: Path
) -> None:
    few = (*SMALL, "--reports", str(tmp_path), "--budget", "hours=0.01")
    assert "A budget of 0.01 hours: how much it buys is not known" in shown(*few, "--plan")
    told = shown(*few)
    assert "0.01 hours buys about 3 of at least 30 runs of 10.0 s each: it stops while it" in told
    assert "The study has stopped: the budget of 0.01 hours has no room for a run" in told
    assert "0.01 hours buys about 3 of at least 30 runs" in shown(*few, "--plan")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("quantization", "--claim", "qpissa"), ["no run can test qpissa"]),
        (("quantization", "--claim", "nf4_beats_fp"), ["unknown claim", "nf4_beats_fp4"]),
        (("quantization", "--claim", "qlora_speed"), ["it asks for device.kind = cuda"]),
        (("quantisation",), ["unknown study", "did you mean quantization"]),
        (("nowhere/published",), ["or a TOML file of your own (name.toml), or the folder of a"]),
        (("quantization", "--shard", "9/8"), ["--shard '9/8'", "3/8"]),
        (("quantization", "--drop", "lora"), ["unknown variant of the study 'lora'"]),
        (("quantization", "--drop", "lora_bf16"), ["lora_bf16 is the reference", "--drop"]),
        (("quantization", "--plan", "--more-seeds", "2"), ["--plan writes nothing"]),
        (("quantization", "--plan", "--status"), ["--plan does not go with --status", "leave out"]),
        (("quantization", "--plan", "--publish", "kept"), ["--publish does not go with --plan"]),
        (("quantization", "--status", "--publish", "kept"), ["--publish", "--status"]),
        (("quantization", "--add", "qlora_nf5"), ["unknown variant 'qlora_nf5'"]),
        (("quantization", "--set", "study.seed.most=3"), ["seed: unknown key", "seeds"]),
        (("quantization", "--set", "corpus.source=nowhere"), ["no such corpus"]),
        (("quantization", "--budget", "2h"), ["--budget '2h'", "hours=2 or runs=40"]),
        (("quantization", "--budget", "days=2"), ["days: unknown key", "--budget"]),
        (("quantization", "--name", "../up"), ["--name", "name:"]),
        (("quantization", "--store", "nowhere://x"), ["--store nowhere://x", "fsspec"]),
    ],
)
def test_a_mistake_is_explained_and_leaves_nothing(
    arguments: tuple[str, ...], words: list[str], tmp_path: Path
) -> None:
    message = refused("study", *arguments, "--device", "cpu", "--reports", str(tmp_path))
    assert all(word in message for word in words), message
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("given", [(), ("--trust-remote-code",)])
def test_code_from_a_repository_is_run_only_if_it_is_trusted(
    made_up: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: tuple[str, ...]
) -> None:
    all_options: list[RunOptions] = []

    def make(store: RunStore, options: RunOptions, *_: object) -> StubExecutor:
        all_options.append(options)
        return StubExecutor(store, made_up)

    monkeypatch.setattr("harness.runs.executor.LocalExecutor", make)
    shown(*SMALL, "--reports", str(tmp_path), "--status", *given)
    assert [options.trust_remote_code for options in all_options] == [bool(given)]


@pytest.mark.parametrize("looks", [(), ("--plan",)])
def test_a_misspelt_score_that_decides_is_refused_before_anything_runs(
    made_up: World, tmp_path: Path, looks: tuple[str, ...]
) -> None:
    there = ("--reports", str(tmp_path), *looks)
    for name, meant in (("perplexty", "perplexity"), ("wikitext2 bits_per_byte", "bits_per_byte")):
        message = refused(*SMALL, *there, "--set", f"study.primary={name}")
        assert f"unknown score '{name}'" in message
        assert meant in message
    assert not (tmp_path / "runs").exists()
    for name in ("bits_per_byte", "held_out_replies acc"):
        shown(*SMALL, *there[:2], "--set", f"study.primary={name}", "--plan")
    asks = ("--set", "score.forgetting=true", "--set", "study.primary=wikitext2 bits_per_byte")
    shown(*SMALL, *there[:2], *asks, "--plan")


@pytest.mark.parametrize(
    "typed",
    [
        ("--set", 'corpus.source="./trees.jsonl"'),
        ("--set", 'study.variants=["lora_bf16", "./mine.toml"]'),
        ("--set", "study.reference=./mine.toml", "--set", 'study.variants=["lora_bf16"]'),
    ],
)
def test_a_named_study_finds_files_of_lists_and_quoted_ones_from_another_folder(
    made_up: World,
    tmp_path: Path,
    small: Small,
    monkeypatch: pytest.MonkeyPatch,
    typed: tuple[str, ...],
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(small.folder / "trees.jsonl", here)
    (here / "mine.toml").write_text('description = "mine"\n[adapter]\nr = 8\n', encoding="utf-8")
    monkeypatch.chdir(here)
    there = ("--reports", str(tmp_path / "reports"))
    shown(*SMALL, *typed, *there, "--name", "mine", "--budget", "runs=1")
    monkeypatch.chdir(tmp_path)
    shown("study", "mine", *there, "--device", "cpu", "--budget", "runs=2")
