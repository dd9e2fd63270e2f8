"""Kept: what the harness writes and reads again."""

from __future__ import annotations

import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.fuzz.kinds import command, damaged, kind


@cache
def stored() -> Path:
    """A store of three runs."""
    from tests.report.records import seven, write_runs

    root = Path(tempfile.mkdtemp(prefix="fuzz-")) / "runs"
    write_runs(root, seven(1)[2:5])
    return root


@kind(0.2)
def records(chance: random.Random, folder: Path) -> None:
    """One record or items file of a store: what is read is what was written, or is refused."""
    from harness.records.store import RunStore, StoredRun
    from harness.report.trust import trusted

    root = folder / "runs"
    shutil.copytree(stored(), root)
    wanted = {run.folder.path: run.record for run in RunStore(root).scan() if _is_stored(run)}
    path = chance.choice(sorted(root.rglob("*.parquet")) + sorted(root.rglob("record.json")) * 3)
    path.write_bytes(damaged(path.read_bytes(), chance))
    for run in trusted(RunStore(root).scan()):
        same = isinstance(run, StoredRun) and run.record == wanted[run.folder.path]
        assert same or run.folder.path in path.parents, f"{run.folder.path} was not touched"
        assert same or not isinstance(run, StoredRun), "a record was read that nobody wrote"
    command("list", "runs", "--reports", str(folder))
    if chance.random() < 0.1:
        command("report", "--reports", str(folder), "--format", "json")


def _is_stored(run: object) -> bool:
    from harness.records.store import StoredRun

    return isinstance(run, StoredRun)


@kind(0.04)
def old_records(chance: random.Random, folder: Path) -> None:
    """A record without a seal, as older harnesses wrote it, damaged: read, or named."""
    root = folder / "runs"
    shutil.copytree(stored(), root)
    path = chance.choice(sorted(root.rglob("record.json")))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(damaged(b"".join(lines[:1] + lines[2:]), chance))
    command("list", "runs", "--reports", str(folder))
    command("report", "--reports", str(folder), "--format", "json")


@kind(0.12)
def caches(chance: random.Random, folder: Path) -> None:
    """A kept folder: what is handed out is what was filled in."""
    from harness.cache import cached_folder

    wanted = {"a": b"x" * 300, "b.json": b'{"digits": 12345}', "c/d": bytes(range(256))}

    def fill(scratch: Path) -> None:
        (scratch / "c").mkdir()
        for name, data in wanted.items():
            (scratch / name).write_bytes(data)

    kept = cached_folder(folder / "kept", fill)
    for _ in range(chance.choice((1, 2))):
        path = chance.choice(sorted(path for path in kept.rglob("*") if path.is_file()))
        if chance.random() < 0.2:
            path.unlink()
        elif chance.random() < 0.1:
            path.with_name("one more").write_bytes(b"")
        else:
            path.write_bytes(damaged(path.read_bytes(), chance))
    again = cached_folder(kept, fill)
    found = {path.relative_to(again).as_posix(): path for path in again.rglob("*")}
    files = {n: p.read_bytes() for n, p in found.items() if p.is_file() and n != ".digests.json"}
    assert files == wanted


@cache
def trained() -> tuple[str, bytes]:
    """Name and bytes of a checkpoint of the tiny model."""
    from harness.records.events import Silence
    from harness.train.path import train
    from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

    with tempfile.TemporaryDirectory() as name:
        job = tiny_job(tiny_model(), tiny_rows(), tiny_plan(steps=2), checkpoint=Path(name))
        train(job, Silence())
        (path,) = Path(name).glob("training-*.pt")
        return path.name, path.read_bytes()


@kind(0.1)
def checkpoints(chance: random.Random, folder: Path) -> None:
    """A checkpoint that is not what was written is not taken."""
    from harness.records.events import Silence
    from harness.train.checkpoint import load_state
    from tests.train.tiny import tiny_model, tiny_plan

    name, data = trained()
    other = damaged(data, chance)
    (folder / name).write_bytes(other)
    state = load_state(folder, tiny_plan(steps=2).fingerprint, tiny_model(), Silence())
    assert (state is None) == (other != data)


LINES = (
    b'{"time": 1.0, "clock": 1.0, "kind": "start", "pid": 7}',
    b'{"time": 2.0, "clock": 2.0, "kind": "phase_start", "phase": "train"}',
    b'{"time": 3.0, "clock": 3.0, "kind": "progress", "done": 3, "total": 9, "numbers": {}}',
    b'{"time": 4.0, "clock": 4.0, "kind": "phase_end", "cost": {"name": "load", "seconds": 1.0}}',
    b'{"kind":"phase_start","time":1,"phase":"x"}',
    b'{"kind":"phase_start","phase":"train"}',
)


@kind(0.1)
def events(chance: random.Random, folder: Path) -> None:
    """What an abandoned run said: lines that say nothing are passed over."""
    from harness.runs.attempt import read_account

    path = folder / "events.jsonl"
    lines = [chance.choice(LINES) for _ in range(chance.randrange(12))]
    path.write_bytes(damaged(b"\n".join(lines) + b"\n", chance))
    account = read_account(path)
    assert account.seconds >= 0
    assert account.step is None or account.step >= 0
