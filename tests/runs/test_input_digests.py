"""A run reads the very files that its plan names by digest, or does not begin."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import InvalidFile
from harness.runs.input_digests import check_inputs
from harness.spec import known_digests
from harness.spec.known_digests import KnownDigest, known_sha256
from harness.spec.places import ENVIRONMENT_VARIABLE
from harness.spec.storage import write_json
from harness.studies.arms import Arm, trial_plan
from tests.planned import planned
from tests.runs.small_run import make_small


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trees.jsonl", "the corpus has changed"),
        ("weights/model.safetensors", "the model folder has changed"),
        ("weights/tokenizer.json", "the model folder has changed"),
        ("weights/config.json", "the model folder has changed"),
        ("data/org/set/test.jsonl", "the task data has changed"),
    ],
)
def test_a_file_that_changed_after_planning_is_refused(
    tmp_path: Path, name: str, said: str
) -> None:
    data = tmp_path / "data" / "org" / "set"
    data.mkdir(parents=True)
    (data / "test.jsonl").write_text('{"a": 1}\n')
    plan = make_small(tmp_path).plan(f"score.data_folder={tmp_path / 'data'}")
    check_inputs(plan)
    path = tmp_path / name
    state = path.stat()
    changed = bytearray(path.read_bytes())
    changed[-2] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InvalidFile, match=said) as caught:
        check_inputs(plan)
    assert "since the run was planned" in str(caught.value)


def test_what_is_scored_on_validation_reads_no_task_data(tmp_path: Path) -> None:
    """Tasks wait for the verdict: a trial names no folder, so it names no digest of one."""
    data = tmp_path / "data" / "org" / "set"
    data.mkdir(parents=True)
    (data / "test.jsonl").write_text('{"a": 1}\n')
    own = tmp_path / "mine.yaml"
    own.write_text("task: mine\n")
    read = [f"score.data_folder={tmp_path / 'data'}", f'score.tasks=[{{name="{own}"}}]']
    verdict = make_small(tmp_path).plan(*read)
    on_validation = ("score.split=validation", "corpus.validation_fraction=0.2")
    trial = trial_plan(Arm(verdict), rate=1e-3, share=1.0, seed=1000)
    for plan in (trial, make_small(tmp_path).plan(*read, *on_validation)):
        assert plan.data_sha256 is None
        check_inputs(plan)


def test_a_bit_that_no_time_tells_of_is_found_before_it_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a damaged disk: the remembered digest still says what the file was."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    weights = tmp_path / "a" / "model.safetensors"
    weights.parent.mkdir()
    (weights.parent / "config.json").write_text("{}")
    model = tmp_path / "mine.toml"
    model.write_text(
        'description = "d"\nlicense = "MIT"\nconfig = { model_type = "llama" }\n'
        f'source = {{ kind = "folder", path = "{weights.parent}" }}\n'
    )
    data = bytearray(20 << 20)
    weights.write_bytes(data)
    good = known_sha256(weights)
    data[7 << 20] ^= 1
    weights.write_bytes(data)
    memory = known_digests.memory_of(weights, weights.stat())
    write_json(memory, KnownDigest(path=str(weights), sha256=good))
    plan = planned("base", f"model={model}")
    with pytest.raises(InvalidFile, match="the model folder has changed"):
        check_inputs(plan)
    check_inputs(planned("base", f"model={model}"))  # what was remembered is forgotten
