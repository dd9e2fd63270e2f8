"""A file of prompts is answered in its order, or refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.records.store import RunFolder
from harness.spec.digests import file_sha256
from harness.spec.storage import write_json
from tests.cli.terminal import refused, shown
from tests.forms.tiny_results import Tiny, make_plan, make_result


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of LoRA on a random llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return make_result(folder, make_plan(folder))


def test_prompts_are_answered_in_their_order(tiny: Tiny, tmp_path: Path) -> None:
    run, target = str(tiny.run.folder.path), tmp_path / "answers.jsonl"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "one"}\n\n{"prompt": "two\\nlines"}\n')
    options = ["--prompts", str(prompts), "--out", str(target), "--max-new-tokens", "4"]
    assert "2 answers" in shown("generate", run, *options, "--device", "cpu")
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [item["prompt"] for item in found] == ["one", "two\nlines"]
    assert all(isinstance(item["answer"], str) for item in found)
    assert "the target already exists" in refused("generate", run, *options)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", " \n", "no prompts"),
        ("p.jsonl", '{"prompt": 3}\n', "p.jsonl, line 1"),
        ("p.jsonl", "not json\n", "p.jsonl, line 1"),
        ("none.txt", None, "cannot read the prompts: No such file"),
        ("p.jsonl", '{"prompt": "half \\ud800"}\n', "p.jsonl, line 1"),
        ("p.jsonl", "[" * 100_000, "p.jsonl, line 1"),
        ("p.txt", "caf\udce9", "byte 3 is not UTF-8"),
        ("p.txt", "one\n" + "otter " * 200, "prompt 2 of 2"),
    ],
)
def test_prompts_that_are_none(
    name: str, text: str | None, said: str, tiny: Tiny, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    options = ["--prompts", str(tmp_path / name), "--out", str(tmp_path / "out.jsonl")]
    assert said in refused("generate", str(tiny.run.folder.path), *options)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_prompt_ends_where_its_line_ends(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """A file of Windows, and characters at which some programs break lines."""
    texts = ["one\u2028more", "two\x0cpages\x85of it"]
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in texts]
    written = "\r\n".join(lines if name == "p.jsonl" else texts)
    (tmp_path / name).write_text("\ufeff" + written + "\r\n", encoding="utf-8", newline="")
    target = tmp_path / "out.jsonl"
    options = ["--prompts", str(tmp_path / name), "--out", str(target), "--max-new-tokens", "2"]
    shown("generate", str(tiny.run.folder.path), *options, "--device", "cpu")
    found = target.read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["prompt"] for line in found] == texts


@pytest.mark.parametrize("temperature", ["inf", "1e-300", "-1", "nan"])
def test_temperatures_at_which_nothing_can_be_drawn(
    temperature: str, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("one\n")
    options = ["--prompts", str(tmp_path / "p.txt"), "--out", str(tmp_path / "out.jsonl")]
    command = ("generate", str(tiny.run.folder.path), *options, "--temperature", temperature)
    assert "temperature" in refused(*command)


def test_an_adapter_that_is_not_the_one_that_was_scored(tiny: Tiny, tmp_path: Path) -> None:
    """One flipped bit gives another model, and nothing else would say so."""
    folder = RunFolder(Path(shutil.copytree(tiny.run.folder.path, tmp_path / "0-copy")))
    written = {path.name: file_sha256(path) for path in folder.adapter.iterdir()}
    write_json(folder.record, tiny.run.record.model_copy(update={"adapter_sha256": written}))
    weights = folder.adapter / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    (tmp_path / "p.txt").write_text("one\n")
    out, run = str(tmp_path / "out"), str(folder.path)
    commands = (
        ("generate", run, "--prompts", str(tmp_path / "p.txt"), "--out", out),
        ("chat", run),
        ("export", run, "--to", out, "--form", "merged"),
        ("push", run, "--to", "a/b"),
    )
    for damage in (lambda: weights.write_bytes(data), weights.unlink):
        data[-1] ^= 1
        damage()
        for command in commands:
            message = refused(*command, "--device", "cpu")
            assert str(weights) in message
            assert "SHA-256" in message
