"""A mistake in typing ends with one message and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.checks.data import check_division, check_space, said_few
from harness.errors import StorageError, TooFew
from tests.cli.terminal import refused
from tests.planned import planned
from tests.runs.small_run import Small
from tests.weights.test_agreement import edit_config, edit_weights
from tests.weights.tiny_llama import write_folder

OWN_TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: answer
"""


def _cut(folder: Path) -> list[str]:
    (folder / "cut.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi')
    return ["--data", str(folder / "cut.jsonl")]


def _few(folder: Path) -> list[str]:
    """Replies of three conversations cannot be told from three others."""
    said = [[f"What is {n} twice?", f"Twice {n} is {2 * n}."] for n in range(60)]
    turns = [zip(("user", "assistant"), both, strict=True) for both in said]
    lines = [
        json.dumps({"messages": [{"role": role, "content": text} for role, text in one]})
        for one in turns
    ]
    (folder / "few.jsonl").write_text("\n".join(lines))
    limit = ["--set", "corpus.held_out_limit=3"]
    return ["--data", str(folder / "few.jsonl"), "--task", "held_out_replies", *limit]


def _task_without_data(folder: Path) -> list[str]:
    (folder / "mine.yaml").write_text(OWN_TASK.format(data=folder / "nowhere.jsonl"))
    return ["--task", str(folder / "mine.yaml")]


def _unreadable_task(folder: Path) -> list[str]:
    (folder / "mine.yaml").write_text("task: mine\noutput_type: [")
    return ["--task", str(folder / "mine.yaml")]


def _eight(folder: Path) -> str:
    said = [(f"Where is river {n}?", f"North of town {n * n}.") for n in range(8)]
    turns = [zip(("user", "assistant"), both, strict=True) for both in said]
    lines = [
        json.dumps({"messages": [{"role": role, "content": text} for role, text in one]})
        for one in turns
    ]
    (folder / "eight.jsonl").write_text("\n".join(lines))
    return f"corpus.source={folder / 'eight.jsonl'}"


def test_what_is_advised_for_few_conversations_is_enough(tmp_path: Path) -> None:
    source = _eight(tmp_path)
    plan = planned("lora_bf16", source)
    assert [task.name for task in plan.score.tasks] == ["held_out_replies"]
    with pytest.raises(TooFew) as caught:
        check_division(plan.corpus, [plan])
    ways = str(caught.value.hint).split(", or ")
    assert [way.startswith("--set score.tasks=none") for way in ways] == [False, True, False]
    assert ways[-1] == "more data"
    for way in ways[:2]:
        settings = way.partition(" (")[0].removeprefix("--set ").split(" --set ")
        changed = planned("lora_bf16", source, *settings)
        check_division(changed.corpus, [changed])


@pytest.mark.parametrize(("held_out", "said"), [(2, True), (7, True), (8, False)])
def test_too_few_held_out_conversations_for_an_interval_are_told_beforehand(
    held_out: int, said: bool
) -> None:
    settings = (f"corpus.held_out_limit={held_out}", "score.tasks=[]", "score.forgetting=false")
    plan = planned("lora_bf16", "corpus.held_out_fraction=0.5", *settings)
    told = list(said_few(check_division(plan.corpus, [plan])))
    assert bool(told) == said
    assert all(f"{held_out} held-out conversations give no interval" in line for line in told)


def test_no_division_is_advised_where_none_would_do(tmp_path: Path) -> None:
    plan = planned("lora_bf16", _eight(tmp_path))
    file = tmp_path / "eight.jsonl"
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(TooFew, match="left") as caught:
        check_division(plan.corpus, [plan])
    assert "--set" not in str(caught.value)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda _: ["--set", "adapter.r=0"], ["r = 0", "1 or more"]),
        (_cut, ["cut.jsonl", "line 1"]),
        (_task_without_data, ["mine", "nowhere.jsonl"]),
        (_unreadable_task, ["not a YAML file", "mine.yaml, line 2"]),
        (lambda _: ["--task", "arc_eazy"], ["unknown task 'arc_eazy'", "arc_easy"]),
        (lambda _: ["--task", "mine", "--include-path", "nowhere"], ["no such folder"]),
        (lambda _: ["--set", "corpus.held_out_limit=1"], ["1 held-out conversation"]),
        (_few, ["task held_out_replies", "of 3 held-out", "4 or more", "held_out_limit=none"]),
        (lambda _: ["--set", "corpus.policy=best"], ["policy"]),
        (lambda _: ["--set", "adapter.rank=4"], ["rank", "did you mean", "lora_bf16"]),
        (lambda _: ["--set", "adapter.type=LORAX"], ["LORAX", "LORA"]),
        (lambda _: ["--set", "adapter.target_modules=(("], ["target_modules"]),
        (lambda _: ["--set", 'adapter.target_modules=["wq"]'], ["wq", "target_modules"]),
        (lambda _: ["--set", "training.optimizer=adan"], ["adan", "adamw"]),
        (lambda _: ["--set", "budget.steps=-1"], ["budget.steps"]),
        (lambda _: ["--set", "score.data_folder=nowhere"], ["nowhere"]),
        (lambda _: ["--set", 'score.forms=["gguf:Q9"]'], ["Q9", "Q8_0"]),
        (lambda _: ["--seeds", "0,x"], ["0,x"]),
        (lambda _: ["--track", "tensorbord"], ["tensorbord", "tensorboard"]),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    small: Small, tmp_path: Path, mistake: object, words: list[str]
) -> None:
    arguments = mistake(tmp_path)  # type: ignore[operator]
    reports = tmp_path / "reports"
    command = ("run", "-v", "lora_bf16", "-s", str(small.suite), "--device", "cpu")
    message = refused(*command, "--reports", str(reports), *arguments)
    assert all(word in message for word in words), message
    assert "Traceback" not in message
    assert message.count("error: ") == 1
    assert not reports.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("{{data}}", "{{data}}"), ["nowhere.jsonl"]),
        (("multiple_choice", "multiple_joys"), ["mine"]),
        (("test_split: test", "test_split: exam"), ["mine"]),
    ],
)
def test_a_plan_finds_what_a_task_of_ones_own_lacks(
    small: Small, tmp_path: Path, change: tuple[str, str], words: list[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "So?", "answer": 0}\n')
    data = tmp_path / "nowhere.jsonl" if words == ["nowhere.jsonl"] else rows
    task = tmp_path / "mine.yaml"
    task.write_text(OWN_TASK.format(data=data).replace(*change))
    command = ("plan", "-v", "base", "-s", str(small.suite), "--device", "cpu")
    message = refused(*command, "--task", str(task))
    assert all(word in message for word in words), message
    assert "Traceback" not in message


UP = "model.layers.1.mlp.up_proj.weight"


def _without(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop(UP))


def _narrower(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({UP: weights[UP][:-1].contiguous()}))


def _cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without, ["missing from the files", UP]),
        (_narrower, ["127×64, not 128×64", UP]),
        (_cut_short, ["transformers cannot load the model"]),
        (lambda folder: edit_config(folder, num_hidden_layers=3), ["missing", "model.layers.2."]),
        (lambda folder: edit_config(folder, num_hidden_layers=1), ["not in the model"]),
        (lambda folder: edit_config(folder, intermediate_size=160), ["of another shape"]),
        (lambda folder: edit_config(folder, attention_bias=True), ["missing", "q_proj.bias"]),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_weights_of_another_model_are_refused_before_anything_is_made(
    tmp_path: Path, command: str, damage: Callable[[Path], None], words: list[str]
) -> None:
    folder, reports = write_folder(tmp_path / "own"), tmp_path / "reports"
    damage(folder)
    arguments = (command, "-v", "lora_bf16", "--model", str(folder), "--device", "cpu")
    message = refused(*arguments, "--reports", str(reports))
    assert all(word in message for word in [*words, str(folder)]), message
    assert not reports.exists()


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(StorageError, match="are free"):
        check_space(tmp_path / "not" / "yet", 1 << 60)
