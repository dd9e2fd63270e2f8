"""Exports are whole or absent, load in plain libraries, and refuse what cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness import numbers
from harness.deploy.export import ExportOrder, export
from harness.deploy.results import find_result
from harness.deploy.size import export_bytes, folder_bytes
from harness.deploy.whole import check_room, write_whole
from harness.errors import HarnessError, InvalidFile, StorageError, UserError
from harness.forms import again
from harness.forms.dequantize import dequantize
from harness.forms.make import make
from harness.forms.merging import attach
from harness.records.events import Silence
from harness.spec.form import parse_form
from harness.spec.storage import free_bytes, write_json
from tests.cli.terminal import refused
from tests.forms.tiny_results import Tiny, logits, make_plan, make_result, slow_but

FAMILIES = ("llama", "qwen2", "phi3")
AGAIN = ("nf4_again", "fp4_again:double=true", "int8_again", "torchao_int8_again")
FORMS = (
    "adapter", "merged", "merged_dequantized", "gguf:F16", "gguf:Q8_0",
    *(form for form in AGAIN if not form.startswith("torchao") or find_spec("torchao")),
)  # fmt: skip

# Runs where harness cannot be imported: only what a stranger has.
STRANGER = """
import json, sys
sys.modules["harness"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
base, *places = sys.argv[1:]
found = {}
for place in places:
    form, folder = place.split("@", 1)
    extra = {"gguf_file": f"model-{form.split(':')[1]}.gguf"} if form.startswith("gguf") else {}
    where = base if form == "adapter" else folder
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **extra)
    if form == "adapter":
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, folder)
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "the otter"}], add_generation_prompt=True, return_dict=True)
    with torch.inference_mode():
        out = model.eval()(input_ids=torch.tensor([ids["input_ids"]])).logits[0, -1]
    found[form] = {"ids": ids["input_ids"], "logits": out.tolist()}
print(json.dumps(found))
"""


# What a tokenizer is saved as, and more than a model's own small files take.
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CONFIGURATION = 1 << 14


class Said(Silence):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.said = ""

    def note(self, text: str) -> None:
        self.said += f"{text}\n"


class Passing:
    """Measures the merged weights that lie beside those made of them, when they are removed."""

    bytes = 0

    def rmtree(self, folder: Path, **options: Any) -> None:
        self.bytes += folder_bytes(folder)
        shutil.rmtree(folder, **options)


def order(form: str, target: Path) -> ExportOrder:
    return ExportOrder(parse_form(form), target)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of LoRA on a random llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return make_result(folder, make_plan(folder))


@pytest.mark.parametrize("family", slow_but(["llama"], FAMILIES))
def test_a_stranger_loads_every_form(family: str, tmp_path: Path) -> None:
    import torch

    result = make_result(tmp_path, make_plan(tmp_path, family))
    for form in FORMS:
        folder = export(result.run, order(form, tmp_path / "out" / form), Silence()).folder
        assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
        assert str(tmp_path) not in "".join(p.read_text() for p in folder.glob("*.json"))
        settings = json.loads((folder / "generation_config.json").read_text())
        assert settings["eos_token_id"][0] == 2, "generation stops where replies ended in training"
    answers = as_stranger(tmp_path)
    for form in FORMS:
        scratch = tmp_path / "scratch" / form
        scratch.mkdir(parents=True)
        ours = make(result.parts, parse_form(form), scratch)
        with torch.inference_mode():
            expected = ours(input_ids=torch.tensor([answers[form]["ids"]])).logits[0, -1].float()
        # with fast bfloat16 bitsandbytes rounds the block constants, which the harness forbids
        bound = 0.2 if "4_again" in form else 1e-3
        assert (torch.tensor(answers[form]["logits"]) - expected).abs().max() <= bound, form


def as_stranger(folder: Path) -> dict[str, Any]:
    places = [f"{form}@{folder / 'out' / form}" for form in FORMS]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder / "weights"), *places],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_four_bits_are_saved_as_they_were_quantized(tiny: Tiny, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = export(tiny.run, order("merged_4bit", tmp_path / "out"), Silence()).folder
    (tmp_path / "scratch").mkdir()
    ours = dequantize(make(tiny.parts, parse_form("merged_4bit"), tmp_path / "scratch"))
    theirs = dequantize(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    for (name, weight), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(weight, other), name


def test_prompts_are_those_of_training(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from harness.corpus.conversation import Message
    from harness.deploy.export import make_renderer

    folder = export(tiny.run, order("merged", tmp_path / "out"), Silence()).folder
    text = "the otter"
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert theirs == make_renderer(tiny.parts).prompt_ids([Message(role="user", text=text, id="m")])


@pytest.mark.parametrize(("name", "begins"), [("chatml", [0, 1]), (None, [1])])
def test_a_named_template_brings_its_bos_along_and_the_models_own_stays_as_it_is(
    tmp_path: Path, name: str | None, begins: list[int]
) -> None:
    from transformers import AutoTokenizer

    from harness.corpus.render import Renderer
    from harness.deploy.companions import PROBE, deployed_tokenizer, prompt_ids

    make_plan(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "weights")
    tokenizer.bos_token = "<|endoftext|>"
    deployed = deployed_tokenizer(Renderer(tokenizer, name))
    assert prompt_ids(deployed, PROBE)[: len(begins)] == begins


def test_the_dequantized_merge_is_what_was_trained(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    result = make_result(tmp_path, make_plan(tmp_path, variant="qlora_nf4"))
    trained = logits(attach(result.parts.base(), result.parts.adapter))
    distance = {}
    for form in ("merged", "merged_dequantized"):
        folder = export(result.run, order(form, tmp_path / form), Silence()).folder
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        distance[form] = float((logits(model) - trained).abs().max())
    assert distance["merged_dequantized"] <= 1e-4
    assert distance["merged"] > 1e-2


@pytest.mark.parametrize("form", slow_but(["adapter", "merged", "gguf:Q8_0"], FORMS))
def test_what_is_needed_is_estimated_from_above(
    form: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = parse_form(form)
    notes, passing = Said(), Passing()
    monkeypatch.setattr(again, "shutil", passing)
    done = export(tiny.run, order(form, tmp_path / "out"), notes)
    tokenizer = sum((done.folder / name).stat().st_size for name in TOKENIZER)
    needed = export_bytes(
        parsed, tiny.parts.source, tiny.parts.adapter, "float32", tokenizer=tokenizer
    )
    if parsed.scheme is not None:
        needed += again.again_bytes(parsed, tiny.parts.plan)
    assert done.bytes == folder_bytes(done.folder)
    assert 0.8 * needed < done.bytes + passing.bytes < needed + CONFIGURATION
    assert f"{form} needs {numbers.size(needed)} at " in notes.said


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    target = tmp_path / "out"
    check_room(target, 1)
    with pytest.raises(StorageError, match="the export needs"):
        check_room(target, free_bytes(target))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", slow_but(["gguf:Q8_0"], ["merged", "gguf:Q8_0"]))
def test_a_full_disk_leaves_nothing(form: str, tiny: Tiny, tmp_path: Path) -> None:
    """A limit on file sizes makes writing fail in the middle, as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from harness.deploy.export import ExportOrder, export\n"
        "from harness.deploy.results import find_result\n"
        "from harness.records.events import Silence\n"
        "from harness.errors import StorageError\n"
        "from harness.spec.form import parse_form\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    export(find_result(sys.argv[1], Path('.')), ExportOrder(parse_form(sys.argv[3]),"
        " Path(sys.argv[2])), Silence())\n"
        "except StorageError as error:\n"
        "    print('refused', error)\n"
    )
    target = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny.run.folder.path), str(target), form],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "refused cannot write" in done.stdout, done.stdout + done.stderr[-3000:]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("late", slow_but([True], [False, True]))
def test_a_killed_export_leaves_nothing_half(late: bool, tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "out"
    command = [sys.executable, "-m", "harness", "export", str(tiny.run.folder.path),
               "--form", "merged", "--to", str(target)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    scratch = tmp_path / ".out.part"
    end = time.monotonic() + 600
    while time.monotonic() < end and process.poll() is None:
        with suppress(FileNotFoundError):  # not yet, or no more
            written = list(scratch.iterdir())
            if not late or any(path.suffix == ".safetensors" for path in written):
                process.send_signal(signal.SIGKILL)
                break
        time.sleep(0.001)
    process.wait()
    if target.exists():  # it was faster than the signal: then it is whole
        assert (target / "tokenizer.json").is_file()
        return
    assert export(tiny.run, order("merged", target), Silence()).folder == target
    assert (target / "model.safetensors").is_file()
    assert not scratch.exists()


def test_two_exports_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_text("a")
        with pytest.raises(UserError, match="another export"):
            write_whole(tmp_path / "out", lambda _: None)

    assert [path.name for path in write_whole(tmp_path / "out", fill).iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@dataclass(frozen=True)
class Broken:
    """What is wrong with an export, the command's arguments and what the refusal says."""

    said: str
    options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    variant: str = "lora_bf16"
    harm: Callable[[Tiny, Path], None] = lambda _result, _folder: None


def make_target(_: Tiny, folder: Path) -> None:
    (folder / "out").mkdir()


def lose_adapter(result: Tiny, _: Path) -> None:
    shutil.rmtree(result.run.folder.adapter)


def fail(result: Tiny, _: Path) -> None:
    write_json(result.run.folder.record, result.run.record.model_copy(update={"status": "oom"}))


def change_base(_: Tiny, folder: Path) -> None:
    path = folder / "weights" / "config.json"
    path.write_text(path.read_text() + "\n")


def put_file(_: Tiny, folder: Path) -> None:
    (folder / "file").write_text("")


BROKEN = {
    "unknown form": Broken("unknown form 'onnx'", ("--form", "onnx")),
    "unknown type": Broken("unknown GGUF type 'Q9'", ("--form", "gguf", "--quant", "Q9")),
    "unknown scheme": Broken("unknown quantization 'nf5'", ("--form", "nf5_again")),
    "a scheme's setting": Broken("bits", ("--form", "hqq_again:bits=5")),
    "a scheme that cannot": Broken("gptq_again cannot be made", ("--form", "gptq_again")),
    "nobody reads it": Broken("transformers reads no folder", ("--form", "int4_again")),
    "type of no form": Broken("is not a form", ("--form", "merged", "--quant", "Q8_0")),
    "a folder that exists": Broken("the target already exists", harm=make_target),
    "a file in the way": Broken("not a folder", ("--to", "{}/file/out"), harm=put_file),
    "no adapter": Broken("the run has no adapter", harm=lose_adapter),
    "nothing trained": Broken("base trains nothing", variant="base"),
    "a run that failed": Broken("the run ended oom", harm=fail),
    "a base that changed": Broken("has changed since the run", harm=change_base),
    "a method that refuses": Broken(
        "adds virtual tokens",
        ("--form", "merged"),
        ("adapter.type=PROMPT_TUNING", "adapter.num_virtual_tokens=4"),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_input(kind: str, tmp_path: Path) -> None:
    case = BROKEN[kind]
    result = make_result(
        tmp_path, make_plan(tmp_path, "llama", *case.settings, variant=case.variant)
    )
    case.harm(result, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = [option.format(tmp_path) for option in case.options]
    target = [] if "--to" in options else ["--to", str(tmp_path / "out")]
    said = refused("export", str(result.run.folder.path), *target, *options)
    assert case.said in said
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_run_is_offered_the_known_ones(tiny: Tiny, tmp_path: Path) -> None:
    said = refused(
        "export", "tiny/nobody", "--reports", str(tiny.root.parent), "--to", str(tmp_path / "out")
    )
    assert "no such run: tiny/nobody" in said
    assert tiny.run.record.plan.run_name in said


def test_runs_are_found_by_name(tiny: Tiny) -> None:
    plan = tiny.run.record.plan
    for name in (f"{plan.suite}/{plan.variant}", f"{plan.suite}/{plan.variant}/0", plan.run_name):
        assert find_result(name, tiny.root).folder.path == tiny.run.folder.path
    for name in (f"{plan.suite}/{plan.variant}/1", plan.suite, "nowhere/x", "../x/y"):
        with pytest.raises(HarnessError, match="no such run"):
            find_result(name, tiny.root)


def test_a_damaged_adapter_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny.run.folder.path, folder)
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InvalidFile, match="PEFT cannot load the adapter"):
        export(find_result(str(folder), tmp_path), order("merged", tmp_path / "out"), Silence())
    assert not (tmp_path / "out").exists()
