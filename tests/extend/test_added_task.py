"""To add a bundled lm-eval task: its YAML. One's own task file needs no place in the harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.records.store import RunStore, StoredRun
from tests.extend.overlay import Overlay, copy_harness
from tests.runs.small_run import Small, make_small

BUNDLED = """
task: reply_likelihood
custom_dataset: !function documents.read
dataset_kwargs:
  kind: replies
test_split: test
output_type: loglikelihood
doc_to_text: prompt
doc_to_target: reply
target_delimiter: ""
num_fewshot: 0
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
metadata:
  version: 1.0
"""
OWN = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
num_fewshot: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def score(overlay: Overlay, small: Small, *options: str) -> list[Any]:
    common = ("--variant", "base", "--suite", str(small.suite))
    done = overlay.run("run", *common, *options)
    assert done.returncode == 0, done.stderr
    runs = [*RunStore(overlay.folder / "reports" / "runs").scan()]
    assert all(isinstance(run, StoredRun) for run in runs)
    return [s for run in runs for s in run.record.scores if s.task != "held_out"]


def write_own(folder: Path, rows: int = 3) -> Path:
    """A task file and its data."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "colours.jsonl"
    row = {"question": "The sky is", "choices": ["blue", "green"], "label": 0}
    data.write_text("".join(json.dumps(row) + "\n" for _ in range(rows)))
    task = folder / "colours.yaml"
    task.write_text(OWN.format(data=data))
    return task


def test_a_bundled_task_is_its_yaml(tmp_path: Path) -> None:
    overlay, small = copy_harness(tmp_path), make_small(tmp_path, steps=1)
    tasks = overlay.package / "score" / "tasks"
    (tasks / "reply_likelihood.yaml").write_text(BUNDLED)
    (found,) = score(overlay, small, "--task", "reply_likelihood")
    assert (found.task, found.metric, found.transform) == ("reply_likelihood", "perplexity", "exp")
    assert found.n > 5
    assert found.headline


def test_a_task_file_of_one_s_own_is_scored(tmp_path: Path) -> None:
    overlay, small = copy_harness(tmp_path), make_small(tmp_path, steps=1)
    task = write_own(tmp_path / "own")
    (found,) = score(overlay, small, "--task", str(task))
    assert (found.task, found.metric, found.n) == ("colours", "acc", 3)
    assert found.headline
    again = score(overlay, small, "--task", "colours", "--set", f"score.include_path={task.parent}")
    assert [s.value for s in again] == [found.value] * 2


def test_what_is_wrong_with_a_task_is_said_before_weights_are_loaded(tmp_path: Path) -> None:
    overlay, small = copy_harness(tmp_path), make_small(tmp_path, steps=1)
    common = ("--variant", "base", "--suite", str(small.suite))
    unknown = overlay.run("plan", *common, "--task", "arc_eazy")
    assert unknown.returncode == 2
    assert "did you mean arc_easy" in unknown.stderr
    missing = overlay.run("plan", *common, "--task", "none.yaml")
    assert missing.returncode == 2
    assert "none.yaml" in missing.stderr
    task = write_own(tmp_path / "own")
    (task.parent / "colours.jsonl").unlink()
    done = overlay.run("run", *common, "--task", str(task))
    assert done.returncode == 2
    assert "the data of task" in done.stderr + done.stdout
    assert "loading small" not in done.stdout + done.stderr
