"""Fuzz: thousands of damaged inputs; none may end in a traceback, a wrong exit code or a number.

Usage: python -m tests.fuzz [--seed N] [--count N] [--only KIND] [--first N]

Every input has a seed of its own, which is printed where something goes wrong:
``--seed S --only KIND --first N --count 1`` makes that input again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import FetchError, HarnessError
from tests.cli.terminal import harness

Try = Callable[[random.Random, Path], None]
KINDS: dict[str, tuple[float, Try]] = {}
"""What is tried, and its share of all inputs. Other rooms add theirs with :func:`kind`."""


def kind(share: float) -> Callable[[Try], Try]:
    """Register a function that makes one input in an empty folder and asserts what must hold."""

    def register(try_one: Try) -> Try:
        KINDS[try_one.__name__] = (share, try_one)
        return try_one

    return register


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes cut out, doubled or put in, digits exchanged, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(changed) + 1)
        length = chance.choice((1, 2, 8, 60))
        way = chance.randrange(7)
        if way == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << chance.randrange(8)
        elif way == 1:
            del changed[place : place + length]
        elif way == 2:
            changed[place:place] = changed[place : place + length]
        elif way == 3:
            changed[place:place] = chance.choice(PIECES)
        elif way == 4 and chance.random() < 0.3:
            del changed[place:]
        elif digits := [match.start() for match in DIGIT.finditer(changed)]:
            changed[chance.choice(digits)] = chance.choice(b"0123456789")  # still well formed
    return bytes(changed)


DIGIT = re.compile(rb"\d")
PIECES = (
    b"\x00", b"\x1b[2J", b"\xff", b"\xc2\x9b", "\u202e".encode(), b"((", b"[" * 3000, b"{}", b"-1",
    b"0", b"1e999", b"nan", b"-inf", b"9" * 400, b'""', b"null", b"true", b"\n[x]\n", b"\n", b"=",
    b"../..", b"none", b"user:token@", b'"""', b"a.b.c.d.e.f.g.h.i", b"1979-05-27", b"\\u0000",
)  # fmt: skip


def command(*arguments: str, codes: tuple[int, ...] = (0, 2)) -> str:
    """Run the command line; it must end with one of ``codes``, say why, and steer no terminal."""
    done = harness(*arguments)
    text = done.stdout + done.stderr
    assert done.code in codes, f"exit code {done.code}: {text[:600]}"
    assert done.code == 0 or done.stderr.strip(), "a failure that says nothing"
    steering = re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert steering is None, f"{steering[0]!r} reaches the terminal"
    return done.stdout


@cache
def shipped() -> list[tuple[str, bytes]]:
    """The TOML files of the project, each with what it is of."""
    from harness.spec.registry import MODELS, SUITES, variants_folder

    folders = {"variant": variants_folder(), "suite": SUITES, "model": MODELS}
    return [
        (name, path.read_bytes())
        for name, folder in folders.items()
        for path in sorted(folder.glob("*.toml"))
    ]


@kind(0.25)
def toml(chance: random.Random, folder: Path) -> None:
    """A variant, suite or model file: shown and planned, or refused by its name."""
    what, data = chance.choice(shipped())
    path = folder / "own.toml"
    path.write_bytes(damaged(data, chance))
    command("show", str(path))
    if what == "suite" and chance.random() < 0.3:
        command("plan", "-v", "base", "--suite", str(path), "--json", "--gpu", "h100")


SECTIONS = (
    "adapter",
    "training",
    "precision",
    "quantization",
    "budget",
    "corpus",
    "score",
    "suite",
)
NAMES = ("r", "learning_rate", "steps", "type", "source", "tasks", "seeds", "double", "compute")
VALUES = ("1", "-1", "0", "nan", "1e400", "none", "[]", "{}", "true", "((", "9" * 30, "x", "[1]")


@kind(0.15)
def settings(chance: random.Random, _folder: Path) -> None:
    """``--set`` with sections, names and values that may or may not be."""
    text = f"{chance.choice(SECTIONS)}.{chance.choice(NAMES)}={chance.choice(VALUES)}"
    if chance.random() < 0.6:
        text = os.fsdecode(damaged(text.encode(), chance)).replace("\0", "")
    command(
        "plan", "-v", chance.choice(("base", "lora_bf16")), "--json", "--gpu", "t4", "--set", text
    )


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


@cache
def gguf_file() -> bytes:
    """A tiny GGUF file."""
    from tests.weights.tiny_llama import write_gguf

    with tempfile.TemporaryDirectory() as name:
        return write_gguf(Path(name) / "tiny.gguf").read_bytes()


@kind(0.04)
def gguf(chance: random.Random, folder: Path) -> None:
    """A GGUF header that says what cannot be is a fetch error."""
    from harness.weights.convert import convert_gguf
    from harness.weights.fetch import quiet_libraries

    quiet_libraries()
    data = gguf_file()
    header = min(6000, len(data))
    path = folder / "tiny.gguf"
    path.write_bytes(damaged(data[:header], chance) + data[header:])
    (folder / "made").mkdir()
    try:
        convert_gguf(path, folder / "made")
    except FetchError as refused:
        what = str(refused)
    else:
        return
    assert "damaged" in what
    assert str(folder) not in what


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


TURNS = [{"role": "user", "content": "Hi NUMBER"}, {"role": "assistant", "content": "Ho NUMBER"}]
SAID = [{"from": "human", "value": "Hi NUMBER"}, {"from": "gpt", "value": "Ho NUMBER"}]
ROWS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "system", "content": "Be brief."}, *TURNS]},
    {"messages": [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS]},
    {"conversations": SAID, "system": "Be brief."},
    {"instruction": "Do NUMBER", "input": "it", "output": "Ho", "history": [["a", "b"]]},
    {"instruction": "Do NUMBER", "context": "there", "response": "Ho", "category": "qa"},
    {"prompt": "Hi NUMBER", "chosen": "Ho NUMBER", "rejected": "No NUMBER"},
    {"prompt": "Hi NUMBER", "completion": "Ho NUMBER", "label": True},
    {"text": "### Human: Hi NUMBER ### Assistant: Ho NUMBER"},
    {"id": "1", "data": ["Hi NUMBER", "Ho NUMBER"]},
)


@cache
def data_files() -> list[tuple[str, bytes]]:
    """One file of every layout and packaging, as (suffix, bytes)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made: list[tuple[str, bytes]] = []
    for row in ROWS:
        lines = [json.dumps(row).replace("NUMBER", str(number)) for number in range(12)]
        text = "\n".join(lines).encode()
        made += [(".jsonl", text), (".json", b"[" + text.replace(b"\n", b",") + b"]")]
        made.append((".jsonl.gz", gzip.compress(text)))
        table = pa.Table.from_pylist([json.loads(line) for line in lines])
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        made.append((".parquet", buffer.getvalue().to_pybytes()))
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
        made.append((".arrow", buffer.getvalue().to_pybytes()))
    return made


@kind(0.3)
def corpora(chance: random.Random, folder: Path) -> None:
    """A data file: read, or refused by the name of the file; nothing is lost without a word."""
    from harness.corpus.corpus import build_corpus
    from harness.errors import CorpusError, LeakageError, StorageError
    from harness.spec.suite import CorpusSpec

    suffix, data = chance.choice(data_files())
    path = folder / f"own{suffix}"
    path.write_bytes(damaged(data, chance))
    skips = chance.choice((True, False))
    spec = CorpusSpec(
        source=str(path),
        held_out_fraction=0.4,
        on_bad="skip" if skips else "error",
        on_leak=chance.choice(("error", "drop")),
    )
    try:
        corpus = build_corpus(spec)
    except (CorpusError, StorageError, LeakageError) as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert "own" in f"{refused.where}", refused
        return
    found = corpus.result
    kept = found.train_conversations + found.held_out_conversations
    said = " ".join(str(row.removed) for row in found.funnel)
    assert kept or said
    assert skips or "bad records" not in said


@cache
def tokenizer() -> Any:
    """The tokenizer of the tiny model, with a special token that ends turns."""
    from harness.weights.load import load_tokenizer
    from tests.weights.tiny_llama import write_folder

    return load_tokenizer(write_folder(Path(tempfile.mkdtemp(prefix="fuzz-")) / "tiny"))


@kind(0.03)
def templates(chance: random.Random, _folder: Path) -> None:
    """A chat template: its tokens are transformers' own, or it is refused."""
    import copy

    from harness.corpus.conversation import Conversation, Message
    from harness.corpus.render import TEMPLATES, Renderer
    from harness.errors import CorpusError

    own = copy.copy(tokenizer())
    source = chance.choice([own.chat_template, *TEMPLATES.values()])
    own.chat_template = damaged(source.encode(), chance).decode(errors="replace")
    try:
        renderer = Renderer(own)
        talk = (Message("user", "Hi there", "1"), Message("assistant", "Ho", "2"))
        ids = renderer.encode(Conversation("c", "t", "en", talk)).input_ids.tolist()
    except CorpusError:
        return
    turns = [{"role": one.role, "content": one.text} for one in talk]
    assert ids == own.apply_chat_template(turns, tokenize=True, return_dict=False)


def try_one(name: str, seed: str) -> str | None:
    """What went wrong with one input, or None."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            KINDS[name][1](chance, Path(folder))
        except HarnessError as error:
            return f"an error that nobody handled: {error!r}"
        except Exception:  # noqa: BLE001 - the point of it all
            return traceback.format_exc(limit=-8)
        finally:
            os.chdir(before)
    return None


def main(arguments: list[str]) -> int:
    """Try all kinds; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=sorted(KINDS))
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}", flush=True)
    wrong = tried = 0
    for name, (share, _) in sorted(KINDS.items()):
        if asked.only not in (None, name):
            continue
        count = asked.count if asked.only else round(asked.count * share)
        started = time.perf_counter()
        for number in range(asked.first, asked.first + count):
            problem = try_one(name, f"{asked.seed}-{name}-{number}")
            if problem is not None:
                wrong += 1
                print(f"--seed {asked.seed} --only {name} --first {number} --count 1\n{problem}")
        tried += count
        print(f"{name}: {count} inputs in {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{tried} inputs, {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
