"""Results: the run that a person means, and whether anything of it can be deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.deploy.results import check_deployable, find_result
from harness.errors import InvalidFile, UserError
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs.bucket import Bucket
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, plan_of, write_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three finished runs of two variants, and one that failed."""
    for made in (
        Made("lora_bf16"),
        Made("lora_bf16", seed=1),
        Made("qlora_nf4"),
        Made("full_finetune", status="oom"),
    ):
        write_run(tmp_path, made)
    return tmp_path


def test_a_run_is_found_by_its_folder(root: Path) -> None:
    folder = next(root.glob("quick/qlora_nf4/*"))
    found = find_result(str(folder), Path("/nowhere"))
    assert found.record.plan.variant == "qlora_nf4"
    assert found.folder.path == folder


@pytest.mark.parametrize("name", ["quick/qlora_nf4", "quick/qlora_nf4/0", "/quick/qlora_nf4/"])
def test_a_run_is_found_by_its_name(root: Path, name: str) -> None:
    assert find_result(name, root).record.plan.variant == "qlora_nf4"


def test_a_seed_tells_runs_of_a_variant_apart(root: Path) -> None:
    assert find_result("quick/lora_bf16/1", root).record.plan.seed == 1
    with pytest.raises(UserError, match="quick/lora_bf16 names 2 runs") as caught:
        find_result("quick/lora_bf16", root)
    assert str(caught.value).count("quick/lora_bf16/") == 2, "both are offered"


def test_the_start_of_a_folder_s_name_will_do(root: Path) -> None:
    name = next(root.glob("quick/lora_bf16/1-*")).name
    assert find_result(f"quick/lora_bf16/{name[:6]}", root).record.plan.seed == 1


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("quick", "SUITE/VARIANT/SEED"),
        ("slow/lora_bf16", "SUITE/VARIANT/SEED"),
        ("quick/lora_bf16/0/more", "SUITE/VARIANT/SEED"),
        ("quick/lora_fp16", "one of quick/"),
        ("quick/lora_bf16/7", "one of quick/"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    root: Path, name: str, offered: str
) -> None:
    with pytest.raises(UserError, match="no such run") as caught:
        find_result(name, root)
    assert offered in str(caught.value)


def test_a_run_that_failed_leaves_nothing_to_deploy(root: Path) -> None:
    with pytest.raises(UserError, match="the run ended oom"):
        find_result("quick/full_finetune", root)


def test_many_runs_are_offered_as_a_few(tmp_path: Path) -> None:
    for seed in range(23):
        folder = tmp_path / "quick" / "lora_bf16" / f"{seed}-abc"
        folder.mkdir(parents=True)
        write_json(folder / "record.json", _record(tmp_path))
    with pytest.raises(UserError, match=r"and 3 others$") as caught:
        find_result("quick/lora_bf16", tmp_path)
    assert "names 23 runs" in str(caught.value)


def _record(root: Path) -> RunRecord:
    return read_json(write_run(root / "made", Made("lora_bf16")) / "record.json", RunRecord)


def with_adapter(folder: Path) -> Path:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder


def test_an_adapter_can_be_deployed(tmp_path: Path) -> None:
    folder = with_adapter(write_run(tmp_path, Made("lora_bf16")))
    assert check_deployable(find_result(str(folder), tmp_path)) == plan_of(Made("lora_bf16"))


def test_an_adapter_of_another_machine_s_run_is_fetched_when_it_is_wanted(tmp_path: Path) -> None:
    """A study took the record and its items from the store, and no more."""
    name = "/".join(write_run(tmp_path / "there", Made("lora_bf16")).parts[-3:])
    with_adapter(tmp_path / "there" / name)
    url, here = f"file://{tmp_path / 'bucket'}", RunStore(tmp_path / "here")
    Bucket(url, RunStore(tmp_path / "there")).exchange([], [name])
    Bucket(url, here).exchange([name], [])
    run = find_result(str(here.root / name), here.root)
    assert not run.folder.adapter.exists()
    check_deployable(run)
    assert (run.folder.adapter / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("base", "base trains nothing"),
        ("full_finetune", "fully fine-tuned weights are not kept"),
        ("lora_bf16", "the run has no adapter"),
    ],
)
def test_what_left_no_adapter_cannot(tmp_path: Path, variant: str, words: str) -> None:
    run = find_result(str(write_run(tmp_path, Made(variant))), tmp_path)
    with pytest.raises(UserError, match=words):
        check_deployable(run)


def test_a_base_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    folder = with_adapter(write_run(tmp_path, Made("lora_bf16")))
    record = read_json(folder / "record.json", RunRecord)
    plan = record.plan.model_copy(update={"model_sha256": "ab" * 32})
    changed = record.model_copy(update={"plan": plan, "fingerprint": plan.fingerprint})
    write_json(folder / "record.json", changed)
    with pytest.raises(InvalidFile, match="has changed since the run") as caught:
        check_deployable(find_result(str(folder), tmp_path))
    assert "put the old files back" in str(caught.value)
