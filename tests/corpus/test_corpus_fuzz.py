"""Fuzz: a file with random damage is read, or refused with a message; never a traceback."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.corpus.corpus import build_corpus
from harness.errors import HarnessError
from harness.spec.plan_digests import SAMPLE
from harness.spec.suite import CorpusSpec

SEED = int(os.environ.get("FUZZ_SEED", "0"))
TRIES = int(os.environ.get("FUZZ_TRIES", "40"))
ODD = ("\x00", "\ud800", "\x1b[31m", "￿", "", " ", "[", "{", "-1", "1e999", "null", "NaN")


def table(records: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(records)


def parquet(records: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(records), sink)
    return sink.getvalue()


def arrow(records: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    made = table(records)
    with pa.ipc.new_file(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue()


def text(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def chats() -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": f"A number, {n}."},
            ],
            "extra": {"weight": n},
        }
        for n in range(12)
    ]


def alpaca() -> list[dict[str, Any]]:
    return [
        {"instruction": f"Name {n}.", "input": "", "output": f"It is {n}.", "history": [["a", "b"]]}
        for n in range(12)
    ]


SEEDS: dict[str, Callable[[], bytes]] = {
    "chat.jsonl": lambda: text(chats()),
    "alpaca.jsonl": lambda: text(alpaca()),
    "list.json": lambda: json.dumps(chats()).encode(),
    "trees.jsonl": lambda: b"".join(SAMPLE.read_bytes().splitlines(keepends=True)[:12]),
    "chat.jsonl.gz": lambda: gzip.compress(text(chats())),
    "chat.parquet": lambda: parquet(chats()),
    "alpaca.arrow": lambda: arrow(alpaca()),
}


def flipped(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def cut(data: bytes, rng: random.Random) -> bytes:
    start = rng.choice((0, 0, rng.randrange(len(data))))
    return data[start : rng.randrange(start, len(data) + 1)]


def spliced(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.randrange(1, 60)
    odd = rng.choice(ODD).encode("utf-8", "surrogatepass") * rng.choice((1, 1, 2000))
    return data[:at] + odd + data[at + rng.choice((0, size)) :]


DAMAGE = (flipped, cut, spliced)


@pytest.mark.parametrize("name", SEEDS)
def test_damage_ends_in_a_corpus_or_a_message(name: str, tmp_path: Path) -> None:
    rng = random.Random(f"{SEED} {name}")
    whole, path = SEEDS[name](), tmp_path / name
    for tries in range(TRIES):
        damage = rng.choice(DAMAGE)
        path.write_bytes(damage(whole, rng))
        on_bad: Any = rng.choice(("error", "skip"))
        try:
            build_corpus(CorpusSpec(source=str(path), on_bad=on_bad, on_leak="drop"))
        except HarnessError as error:
            said = str(error).strip()
            assert said
        except Exception as error:  # noqa: BLE001 - whatever else it raises is the finding
            kept = tmp_path / f"kept-{name}"
            kept.write_bytes(path.read_bytes())
            pytest.fail(
                f"FUZZ_SEED={SEED}, try {tries}, {damage.__name__}, on_bad={on_bad}: "
                f"{type(error).__name__}: {error}; the file is {kept}"
            )
