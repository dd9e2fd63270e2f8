"""To add a bundled lm-eval task: its YAML. One's own task file needs no place in the harness."""

from __future__ import annotations

from pathlib import Path

from harness.records.store import StoredRun
from tests.extend.overlay import Overlay
from tests.extend.scores import write_own
from tests.runs.small_run import Small


def test_a_bundled_task_is_its_yaml(scored: StoredRun) -> None:
    (found,) = [s for s in scored.record.scores if s.task == "reply_likelihood"]
    assert (found.metric, found.transform) == ("perplexity", "exp")
    assert found.n > 5
    assert found.headline


def test_a_task_file_of_one_s_own_is_scored(scored: StoredRun) -> None:
    (found,) = [s for s in scored.record.scores if s.task == "colours"]
    assert (found.metric, found.n) == ("acc", 3)
    assert found.headline


def test_a_task_in_a_folder_of_one_s_own_goes_by_its_name(
    overlay: Overlay, small: Small, tmp_path: Path
) -> None:
    task = write_own(tmp_path)
    folder = ("--set", f"score.include_path={task.parent}")
    common = ("plan", "--variant", "base", "--suite", str(small.suite), "--task", "colours")
    done = overlay.run(*common, *folder)
    assert done.returncode == 0, done.stderr
    assert "colours" in done.stdout


def test_what_is_wrong_with_a_task_is_said_before_weights_are_loaded(
    overlay: Overlay, small: Small, tmp_path: Path
) -> None:
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
