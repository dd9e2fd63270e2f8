"""A plan leaves nothing to default, says what it substituted, and is known by its fingerprint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from harness.errors import CorpusError, InvalidFile, StorageError, UserError
from harness.spec.device import Device
from harness.spec.plan import NEWER, UNDECIDING, Plan, RunRequest
from harness.spec.schema import default_of, leave_out, model_in
from harness.spec.storage import read_json, write_json
from tests.planned import CPU, GPU, planned

OLDER_PRINT = "8f0d0fff0070f4d0db7a708d121c90839f4989302153c82a34948abbc5c4c005"
OLDER_BASE_PRINT = "688276c72f55c912ff288c5aed5c89ca5f9d989d146296d45eb606660ee82b60"


def substituted(plan: Plan) -> dict[str, tuple[object, object]]:
    return {item.key: (item.asked, item.used) for item in plan.substitutions}


# Determinism


def test_the_same_request_gives_the_same_plan_in_another_process() -> None:
    code = (
        "from tests.planned import planned\n"
        "print(planned('qlora_nf4_r64', 'training.packing=true', seed=3).fingerprint)\n"
    )
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    here = planned("qlora_nf4_r64", "training.packing=true", seed=3).fingerprint
    assert done.stdout.strip() == here


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = planned("qlora_nf4_dq", "training.sequence_length=64")
    write_json(tmp_path / "plan.json", plan)
    again = read_json(tmp_path / "plan.json", Plan)
    assert again == plan
    assert again.fingerprint == plan.fingerprint


def test_planning_loads_neither_torch_nor_peft() -> None:
    code = (
        "import sys\n"
        "from tests.planned import planned\n"
        "planned('qlora_nf4')\n"
        "print(sorted({'torch', 'peft', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What the fingerprint covers


@pytest.mark.parametrize(
    "setting",
    [
        "adapter.r=17",
        "quantization.double=true",
        "training.sequence_length=256",
        "training.learning_rate=1e-4",
        "training.packing=true",
        "precision.trainable=bfloat16",
        "budget.steps=41",
        "budget.batch_size=4",
        "corpus.held_out_limit=7",
        "corpus.policy=all_paths",
        "score.window=768",
        "score.generations=0",
        "model=phi2",
    ],
)
def test_what_changes_the_result_changes_the_fingerprint(setting: str) -> None:
    assert planned("qlora_nf4", setting, device=GPU).fingerprint != planned(device=GPU).fingerprint


def test_seed_and_device_change_the_fingerprint() -> None:
    prints = {planned(seed=0).fingerprint, planned(seed=1).fingerprint}
    prints.add(planned(device=GPU).fingerprint)
    prints.add(planned(device=CPU.model_copy(update={"threads": 1})).fingerprint)
    assert len(prints) == 4


def test_names_and_the_place_of_the_data_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    lines = b'{"message_tree_id": "x"}\n'
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_bytes(lines)
    one = planned("qlora_nf4", f"corpus.source={tmp_path / 'one.jsonl'}")
    two = planned("qlora_nf4", f"corpus.source={tmp_path / 'two.jsonl'}")
    assert one.suite != two.suite
    assert one.fingerprint == two.fingerprint
    (tmp_path / "two.jsonl").write_bytes(lines * 2)
    assert planned("qlora_nf4", f"corpus.source={tmp_path / 'two.jsonl'}") != two


def test_how_a_plan_was_asked_for_is_kept_and_changes_nothing() -> None:
    one = planned("qlora_nf4", "adapter.r=8", "budget.steps=7")
    two = planned("qlora_nf4", "budget.steps = 7", "adapter.r=8")
    assert one.request == RunRequest(
        variant="qlora_nf4", suite="quick", settings=("adapter.r=8", "budget.steps=7")
    )
    assert two.request != one.request
    assert two.fingerprint == one.fingerprint
    assert two.base_fingerprint == one.base_fingerprint
    assert two.run_name == one.run_name


def test_plans_that_older_harnesses_wrote_can_be_read(tmp_path: Path) -> None:
    plan = planned("qlora_nf4")
    older = json.loads(plan.model_dump_json())
    del older["request"]
    (tmp_path / "plan.json").write_text(json.dumps(older))
    again = read_json(tmp_path / "plan.json", Plan)
    assert again.request is None
    assert again.fingerprint == plan.fingerprint


def test_a_folder_of_data_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.jsonl").write_text("{}\n")
    before = planned("qlora_nf4", f"corpus.source={tmp_path}")
    (tmp_path / "part" / "a.jsonl").write_text('{"other": 1}\n')
    after = planned("qlora_nf4", f"corpus.source={tmp_path}")
    assert before.corpus_sha256 is not None
    assert before.fingerprint != after.fingerprint


def test_variants_that_come_to_the_same_plan_on_a_device_share_a_fingerprint() -> None:
    assert planned("lora_bf16").fingerprint == planned("lora_fp16").fingerprint
    on_gpu = {planned(name, device=GPU).fingerprint for name in ("lora_bf16", "lora_fp16")}
    assert len(on_gpu) == 2


def test_the_untrained_model_is_shared_by_variants_that_load_it_alike() -> None:
    shared = {planned(name).base_fingerprint for name in ("base_nf4", "qlora_nf4", "qlora_nf4_r64")}
    assert len(shared) == 1
    assert planned("qlora_nf4", seed=5).base_fingerprint in shared
    others = {planned(name).base_fingerprint for name in ("base", "qlora_nf4_dq", "qlora_fp4")}
    assert len(others | shared) == 4
    assert planned("qlora_nf4", "corpus.held_out_limit=3").base_fingerprint not in shared


def test_a_run_lies_under_suite_variant_and_seed() -> None:
    plan = planned("qlora_nf4", "adapter.r=32", seed=4)
    assert plan.run_name == f"quick/qlora_nf4+adapter.r=32/4-{plan.fingerprint[:12]}"


# Substitutions


def test_low_precision_on_a_plain_cpu_is_float32_and_said() -> None:
    assert planned("lora_bf16").precision.compute == "float32"
    assert substituted(planned("lora_bf16")) == {"precision.compute": ("bfloat16", "float32")}
    assert substituted(planned("lora_fp16")) == {"precision.compute": ("float16", "float32")}
    assert "no bfloat16 arithmetic" in planned("lora_bf16").substitutions[0].reason


def test_bfloat16_stays_where_the_hardware_has_it() -> None:
    fast = CPU.model_copy(update={"bfloat16": True})
    assert substituted(planned("lora_bf16", device=fast)) == {}
    assert substituted(planned("lora_fp16", device=fast)) == {
        "precision.compute": ("float16", "float32")
    }
    assert substituted(planned("lora_bf16", device=GPU)) == {}
    assert substituted(planned("lora_fp16", device=GPU)) == {}


def test_an_old_gpu_without_bfloat16_gets_float32_and_keeps_float16() -> None:
    old = Device(kind="cuda", name="Example T4", bfloat16=False)
    assert substituted(planned("lora_bf16", device=old)) == {
        "precision.compute": ("bfloat16", "float32")
    }
    assert substituted(planned("lora_fp16", device=old)) == {}


def test_a_sequence_longer_than_the_model_is_cut_to_its_limit() -> None:
    plan = planned("qlora_nf4", "model=phi2", "training.sequence_length=4096")
    assert plan.training.sequence_length == 2048
    assert substituted(plan)["training.sequence_length"] == (4096, 2048)


@pytest.mark.parametrize(
    ("batch", "micro", "used"), [(2, 4, 2), (6, 4, 3), (5, 2, 1), (8, 2, 2), (4, 4, 4)]
)
def test_the_micro_batch_divides_the_batch(batch: int, micro: int, used: int) -> None:
    settings = (f"budget.batch_size={batch}", f"training.micro_batch_size={micro}")
    plan = planned("qlora_nf4", *settings)
    assert plan.training.micro_batch_size == used
    expected = {} if used == micro else {"training.micro_batch_size": (micro, used)}
    assert {k: v for k, v in substituted(plan).items() if k.startswith("training")} == expected


def test_an_untrained_reference_has_no_training_to_substitute() -> None:
    plan = planned("base_nf4", "training.micro_batch_size=3", "model=phi2")
    assert not plan.trains
    assert plan.budget.steps == 0
    assert set(substituted(plan)) == {"precision.compute"}
    assert planned("base", "training.learning_rate=1.0").fingerprint == planned("base").fingerprint


# Corpus


def test_the_bundled_sample_is_the_default_and_is_pinned_by_its_checksum() -> None:
    assert planned().corpus.source == "sample"
    assert len(planned().corpus_sha256 or "") == 64


def test_a_corpus_that_is_not_there_is_refused_before_anything_runs() -> None:
    with pytest.raises(CorpusError, match="no such corpus") as caught:
        planned("qlora_nf4", "corpus.source=no/such/file.jsonl")
    assert "no/such/file.jsonl" in str(caught.value)
    assert "sample" in str(caught.value)


def test_a_corpus_in_the_home_folder_may_be_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text("{}\n")
    plan = planned("base", "corpus.source=~/rows.jsonl")
    assert (
        plan.corpus_sha256 == planned("base", f"corpus.source={tmp_path}/rows.jsonl").corpus_sha256
    )


def model_folder(folder: Path, weights: bytes = b"w" * 64) -> Path:
    """A model TOML beside a folder with the files that a model is loaded from."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    path = folder.parent / "mine.toml"
    path.write_text(
        'description = "d"\nlicense = "MIT"\nconfig = { model_type = "llama" }\n'
        f'source = {{ kind = "folder", path = "{folder}" }}\n'
    )
    return path


def test_a_model_folder_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    first = planned("base", f"model={model_folder(tmp_path / 'a')}")
    moved = planned("base", f"model={model_folder(tmp_path / 'b')}")
    assert moved.fingerprint == first.fingerprint
    assert moved.base_fingerprint == first.base_fingerprint
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        before = planned("base", f"model={tmp_path / 'mine.toml'}")
        (tmp_path / "b" / name).write_text(f"changed {name}")
        after = planned("base", f"model={tmp_path / 'mine.toml'}")
        assert after.fingerprint != before.fingerprint, name
        assert after.base_fingerprint != before.base_fingerprint, name


@pytest.mark.parametrize("place", [100, 3 << 20, 10 << 20, 17 << 20, (20 << 20) - 1])
def test_every_byte_of_large_weights_counts(tmp_path: Path, place: int) -> None:
    weights = bytearray(20 << 20)
    setting = f"model={model_folder(tmp_path / 'a', bytes(weights))}"
    before = planned("base", setting).fingerprint
    weights[place] = 1
    (tmp_path / "a" / "model.safetensors").write_bytes(weights)
    assert planned("base", setting).fingerprint != before


def test_models_from_elsewhere_keep_the_fingerprints_that_older_harnesses_gave() -> None:
    plan = planned("qlora_nf4", "order=rows", device=GPU)
    assert plan.model_sha256 is None
    assert plan.fingerprint == OLDER_PRINT
    assert plan.base_fingerprint == OLDER_BASE_PRINT


def test_hub_data_is_pinned_by_its_revision() -> None:
    plan = planned(
        "qlora_nf4",
        "corpus.source=hub:OpenAssistant/oasst1@fdf72ae0827c1cda404aff25b6603abec9e3399b",
    )
    assert plan.corpus_sha256 is None
    with pytest.raises(InvalidFile, match="pinned to a commit"):
        planned("qlora_nf4", "corpus.source=hub:OpenAssistant/oasst1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_corpus_that_may_not_be_read_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(StorageError, match="cannot read"):
        planned("qlora_nf4", f"corpus.source={path}")


def test_a_plan_is_plain_data() -> None:
    data = json.loads(planned("qlora_nf4").model_dump_json())
    assert data["quantization"] == {"type": "nf4", "double": False}
    assert data["adapter"]["r"] == 16
    assert all(value is not None for value in data["training"].values())


def test_a_base_stored_in_another_dtype_is_another_base() -> None:
    gpu = GPU
    full = planned("full_finetune", device=gpu)
    base = planned("base", device=gpu)
    assert planned("lora_bf16", device=gpu).base_fingerprint == base.base_fingerprint
    assert full.stored == "float32"
    assert full.base_fingerprint != base.base_fingerprint


def test_task_data_with_other_content_is_another_plan(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("{}\n")
    setting = f"score.data_folder={folder}"
    first = planned("base", setting)
    assert planned("base", setting).fingerprint == first.fingerprint
    (folder / "rows.jsonl").write_text('{"changed": 1}\n')
    assert planned("base", setting).fingerprint != first.fingerprint
    assert planned("base", setting).base_fingerprint != first.base_fingerprint


def test_a_bitsandbytes_optimizer_on_a_cpu_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="needs a GPU"):
        planned("qlora_nf4", "training.optimizer=adamw_8bit")


def test_offloading_that_cannot_be_had_is_a_substitution() -> None:
    plan = planned("qlora_nf4", "training.activation_offload=true")
    assert not plan.training.activation_offload
    assert "training.activation_offload" in {item.key for item in plan.substitutions}


# Settings that came after the first records

RECORDS = (
    Path(__file__).parents[1] / "records" / "record-version-1.json",
    *sorted((Path(__file__).parents[2] / "reports").glob("*/records/**/record.json")),
)
SET = {
    "order": "conversations",
    "order_seed": 7,
    "model_sha256": "0" * 64,
    "corpus.validation_fraction": 0.25,
    "corpus.validation_limit": 3,
    "corpus.chat_date": "2025-01-01",
    "validation": {"every": 5, "keep": "best", "patience": 2},
    "score.also": ["other"],
    "score.split": "validation",
    "interpolation": 4,
    "precision.products": "float8",
    "training.loss_on": "everything",
    "training.attention": "shifted",
    "training.attention_groups": 8,
    "training.kept_layers": 3,
    "training.memory_gib": 12.0,
    "training.devices": 2,
    "training.parallel": "data",
}
RENAMED = {"score.forms"}


def keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of all fields of ``kind`` that are no sections themselves."""
    for name, field in kind.model_fields.items():
        inner = model_in(field.annotation)
        if inner is None:
            yield prefix + name
        else:
            yield from keys(inner, f"{prefix}{name}.")


def has(data: object, key: str) -> bool:
    """Whether plain data holds the dotted key; an absent or empty section tells nothing."""
    first, _, rest = key.partition(".")
    if isinstance(data, list):
        return all(has(item, key) for item in data)
    if not isinstance(data, dict):
        return True
    return first in data and (not rest or has(data[first], rest))


def changed(plan: Plan, key: str, value: object) -> Plan:
    data = json.loads(plan.model_dump_json())
    *path, name = key.split(".")
    section = data
    for part in path:
        section = section[part]
    section[name] = value
    return Plan.model_validate_json(json.dumps(data))


def test_every_setting_newer_than_a_committed_record_is_left_out_at_its_default() -> None:
    plans = [json.loads(path.read_text())["plan"] for path in RECORDS]
    assert len(plans) > 1
    newer = {key for key in keys(Plan) if not all(has(plan, key) for plan in plans)}
    inside = {key for key in newer if key.partition(".")[0] in (*UNDECIDING, *NEWER)}
    assert newer - RENAMED - inside <= {*NEWER, *UNDECIDING}


def test_what_is_left_out_are_settings() -> None:
    known = set(keys(Plan))
    assert set(NEWER) <= known | set(Plan.model_fields)
    assert set(UNDECIDING) <= known | set(Plan.model_fields)
    assert set(SET) == set(NEWER), "name a value for the new setting"


@pytest.mark.parametrize("key", NEWER)
def test_a_newer_setting_decides_only_where_it_is_set(key: str) -> None:
    plan = planned("qlora_nf4")
    default = changed(plan, key, default_of(Plan, key))
    assert changed(default, key, SET[key]).fingerprint != default.fingerprint
    older = json.loads(default.model_dump_json())
    leave_out(older, key)
    assert Plan.model_validate_json(json.dumps(older)).fingerprint == default.fingerprint


def test_new_plans_draw_their_order_over_conversations_and_old_ones_over_rows() -> None:
    plan = planned("qlora_nf4")
    assert plan.order == "conversations"
    rows = planned("qlora_nf4", "order=rows")
    older = json.loads(plan.model_dump_json())
    del older["order"]
    assert Plan.model_validate_json(json.dumps(older)).order == "rows" == rows.order
    assert plan.fingerprint != rows.fingerprint
    assert plan.base_fingerprint == rows.base_fingerprint
    base = planned("base", "order_seed=3")
    assert (base.order, base.order_seed) == ("rows", None), "nothing is trained in any order"


def test_the_order_can_be_held_while_the_seed_changes() -> None:
    held = [planned("qlora_nf4", "order_seed=5", seed=seed) for seed in (0, 1)]
    assert [plan.order_seed for plan in held] == [5, 5]
    assert len({plan.fingerprint for plan in held}) == 2
    assert planned("qlora_nf4", seed=0).order_seed is None
