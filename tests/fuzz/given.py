"""Given: data, weights and templates that other people have made."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import FetchError
from tests.fuzz.kinds import command, damaged, kind


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

    return load_tokenizer(model_folder())


@cache
def model_folder() -> Path:
    """A tiny model in the transformers layout."""
    from tests.weights.tiny_llama import write_folder

    return write_folder(Path(tempfile.mkdtemp(prefix="fuzz-")) / "tiny")


@kind(0.03)
def folders(chance: random.Random, folder: Path) -> None:
    """A model's folder, one file of it damaged: planned, or refused with what is wrong."""
    own = Path(shutil.copytree(model_folder(), folder / "own"))
    path = chance.choice(sorted(path for path in own.iterdir() if path.is_file()))
    data = path.read_bytes()
    part = 4000 if path.suffix == ".safetensors" else len(data)  # the header: values are no lies
    path.write_bytes(damaged(data[:part], chance) + data[part:])
    command("plan", "-v", "lora_bf16", "--model", str(own), "--device", "cpu", "--json")


@kind(0.04)
def prompts(chance: random.Random, folder: Path) -> None:
    """A file of prompts: each is a text that a tokenizer takes, or the file is refused by name."""
    from harness.deploy.speak import read_prompts
    from harness.errors import UserError

    suffix, text = chance.choice(
        (
            (".txt", "one\nzwei drei\u2028vier\n\n"),
            (".jsonl", '{"prompt": "one\u2028more"}\n{"prompt": "\\ud83d\\ude00"}\n'),
        )
    )
    path = folder / f"own{suffix}"
    path.write_bytes(damaged(text.encode(), chance))
    try:
        found = read_prompts(path)
    except UserError as error:
        refused: UserError | None = error
    else:
        refused = None
    if refused is not None:
        assert "own" in f"{refused.where}", refused
        return
    assert all(one.strip() for one in found)
    tokenizer()(found)


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
