"""Variants, suites and models by name, and how their layers lie over each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, InvalidFile, UnknownName, UserError
from harness.spec.listing import descriptions
from harness.spec.model import Model
from harness.spec.registry import (
    MODELS,
    SUITES,
    build_variant,
    find,
    load_model,
    load_suite,
    load_variant,
    model_names,
    suite_names,
    variant_names,
    variants_folder,
)
from harness.spec.request import Request, resolve
from harness.spec.schema import parse
from harness.spec.storage import read_toml
from harness.spec.suite import Suite
from harness.spec.variant import Variant
from tests.planned import CPU, planned

REQUIRED_VARIANTS = {
    "base",
    "base_nf4",
    "base_nf4_dq",
    "full_finetune",
    "lora_bf16",
    "lora_fp16",
    "lora_int8",
    "qlora_nf4",
    "qlora_nf4_dq",
    "qlora_fp4",
    "qlora_fp4_dq",
    *(f"{method}_r{rank}" for method in ("qlora_nf4", "lora_bf16") for rank in (4, 8, 64, 256)),
    *(f"qlora_nf4_seq{length}" for length in (512, 1024, 2048)),
}


def quick(**overrides: object) -> Suite:
    return load_suite("quick", overrides)


# What ships with the harness


def test_a_model_that_is_nowhere_may_have_been_meant_as_a_folder() -> None:
    for load in (lambda: load_model("modle"), lambda: load_suite("quick", {"model": "modle"})):
        with pytest.raises(UnknownName, match="unknown model 'modle'") as caught:
            load()
        assert "a folder (there is none of that name here), or one of" in str(caught.value)


def test_every_promised_variant_is_registered() -> None:
    assert set(variant_names()) >= REQUIRED_VARIANTS


@pytest.mark.parametrize("name", variant_names())
def test_every_variant_resolves_and_is_described(name: str) -> None:
    variant = load_variant(name, quick())
    assert variant.name == name
    assert variant.description


@pytest.mark.parametrize("name", variant_names())
def test_a_variant_states_only_how_it_differs_from_the_defaults(name: str) -> None:
    written = read_toml(variants_folder() / f"{name}.toml")
    without = {"description": "d", "method": written.get("method", "adapter")}
    if "type" in written.get("adapter", {}):  # the harness has defaults for LoRA alone
        without["adapter"] = {"type": written["adapter"]["type"]}
    default = build_variant(name, without, quick(), where=name).model_dump()
    repeated = [
        f"{key}.{inner}"
        for key, table in written.items()
        if isinstance(table, dict)
        for inner, value in table.items()
        if (default[key] or {}).get(inner, "no such default") == value and inner != "type"
    ]
    # The default length has a name of its own, to stand beside its longer twins.
    assert repeated == (["training.sequence_length"] if name == "qlora_nf4_seq512" else [])


@pytest.mark.parametrize("rank", [4, 8, 64, 256])
def test_rank_twins_differ_in_the_quantization_alone(rank: int) -> None:
    lora = load_variant(f"lora_bf16_r{rank}", quick())
    qlora = load_variant(f"qlora_nf4_r{rank}", quick())
    apart = {"name": "", "description": "", "quantization": None}
    assert lora.model_dump() | apart == qlora.model_dump() | apart
    assert lora.adapter is not None
    assert lora.adapter.fields["r"] == rank


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_resolves_and_names_a_registered_model(name: str) -> None:
    assert load_suite(name).model in model_names()


@pytest.mark.parametrize("name", model_names())
def test_every_model_resolves_and_states_its_shape(name: str) -> None:
    model = load_model(name)
    assert model.description
    assert model.license
    assert "model_type" in model.config


def test_hub_models_are_pinned_to_a_commit() -> None:
    sources = [load_model(name).source for name in model_names()]
    revisions = [source.revision for source in sources if source.kind == "hub"]
    assert all(re.fullmatch(r"[0-9a-f]{40}", revision) for revision in revisions)


def test_lists_give_names_with_descriptions() -> None:
    assert [name for name, _ in descriptions("variants")] == variant_names()
    assert all(text for kind in ("suites", "models") for _, text in descriptions(kind))


# Names


@pytest.mark.parametrize(
    "name",
    [
        "../variants/base",
        "/etc/passwd",
        "base.toml",
        "sub/base",
        "",
        ".",
        "..",
        "base\n",
        "a" * 300,
    ],
)
def test_a_name_is_never_a_path_into_other_folders(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown variant|no such variant file"):
        load_variant(name, quick())
    with pytest.raises(UserError, match=r"unknown suite|no such suite file"):
        load_suite(name)
    with pytest.raises(UserError, match=r"unknown model|no such model file|not a model|pinned"):
        load_model(name)


def test_a_misspelt_name_gets_its_close_matches() -> None:
    with pytest.raises(UnknownName, match="did you mean qlora_nf4"):
        load_variant("qlora_nf", quick())


def test_a_variant_of_the_users_own_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "mine"\nadapter = { r = 3 }\n')
    variant = load_variant(str(path), quick())
    assert variant.name == "mine"
    assert variant.adapter is not None
    assert variant.adapter.fields["r"] == 3


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/b", "..", ".hidden", "a b"])
def test_a_file_cannot_name_a_folder_outside_the_store(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "{name}"\ndescription = "mine"\n')
    with pytest.raises(InvalidFile, match="name: "):
        load_variant(str(path), quick())


def test_a_file_whose_own_name_is_unusable_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my variant.toml"
    path.write_text('description = "mine"\n')
    with pytest.raises(InvalidFile, match="name: "):
        load_variant(str(path), quick())


def test_a_users_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("{}")
    with pytest.raises(InvalidFile, match="not a TOML file") as caught:
        load_variant(str(path), quick())
    assert str(path) in str(caught.value)


# Layers: defaults < suite < variant file < --set


def layered(suite: dict, written: dict, overrides: dict) -> Variant:
    data = load_suite("quick", {"training": suite})
    return build_variant("v", {"description": "d", **written}, data, overrides, where="v.toml")


def test_later_layers_win_key_by_key() -> None:
    nothing = layered({}, {}, {})
    suite = {"learning_rate": 1e-3, "sequence_length": 128, "warmup_steps": 3}
    file = {"training": {"sequence_length": 256, "learning_rate": 1e-4}}
    typed = {"training": {"learning_rate": 1e-5}}
    made = layered(suite, file, typed).training
    assert nothing.training.learning_rate == 2e-4
    assert (made.warmup_steps, made.sequence_length, made.learning_rate) == (3, 256, 1e-5)
    assert made.optimizer == nothing.training.optimizer


def test_lora_defaults_fill_what_an_adapter_leaves_open() -> None:
    adapter = layered({}, {"adapter": {"r": 4}}, {}).adapter
    assert adapter is not None
    assert adapter.fields["r"] == 4
    assert adapter.fields["target_modules"] == "all-linear"
    assert adapter.fields["lora_alpha"] == 32


def test_other_adapter_types_do_not_get_loras_defaults() -> None:
    adapter = layered({}, {"adapter": {"type": "IA3"}}, {}).adapter
    assert adapter is not None
    assert adapter.fields == {}


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("training.sequence_lenght=5", "unknown key; did you mean sequence_length?"),
        ("quantization.kind=nf4", "unknown nf4 quantization setting 'kind'"),
        ("score.tasks=[{nam='x'}]", "score.tasks.0.nam: unknown key; did you mean name?"),
        ("training.sequence_length=long", "training.sequence_length: "),
        ("training.sequence_length=2024-01-01", "training.sequence_length"),
        ("training.learning_rate=nan", "training.learning_rate"),
        ("training.learning_rate=inf", "training.learning_rate"),
        ("training=", "training: "),
        ("adapter=3", "adapter: "),
        ("method=fulll", "method: "),
        ("budget.steps=-1", "budget.steps: "),
        ("budget.tokens=100", "set exactly one of steps and tokens"),
        ("model=phi3", "unknown model 'phi3'"),
        ("score=1979-05-27T07:32:00Z", "score"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_key(setting: str, found: str) -> None:
    with pytest.raises(UserError) as caught:
        planned("qlora_nf4", setting)
    assert found in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_refused_setting_is_blamed_on_the_option_and_not_only_on_the_file() -> None:
    with pytest.raises(InvalidFile, match="--set"):
        planned("qlora_nf4", "training.sequence_length=long")
    with pytest.raises(InvalidFile, match="--set"):
        planned("qlora_nf4", "budget.steps=many")


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("suite.training.speeed=fast", "training.speeed: unknown key; did you mean speed?"),
        ("suite.precision.compute=int3", "precision.compute: "),
        ("suite.training=5", "training: "),
    ],
)
def test_a_mistake_in_the_protocol_is_blamed_on_its_option(setting: str, found: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        planned("qlora_nf4", setting)
    assert found in str(caught.value)
    assert "quick.toml, with --set" in str(caught.value)
    assert "qlora_nf4.toml" not in str(caught.value)


# Show


def test_show_spells_out_every_value() -> None:
    assert '"sequence_length":512' in find("qlora_nf4", "quick").model_dump_json()
    assert '"stride":512' in find("quick", "quick").model_dump_json()
    assert '"hidden_size":576' in find("smollm2_135m_instruct", "quick").model_dump_json()


def test_show_of_an_unknown_name_knows_all_three_kinds() -> None:
    with pytest.raises(UnknownName, match="unknown variant, suite, model or study") as caught:
        find("quik", "quick")
    assert "did you mean quick?" in str(caught.value)


def test_no_file_ships_that_the_registry_does_not_list() -> None:
    for folder in (variants_folder(), SUITES, MODELS):
        assert {path.suffix for path in folder.iterdir()} == {".toml"}


def test_every_registry_error_is_a_harness_error() -> None:
    with pytest.raises(HarnessError):
        resolve(Request(("nope",)), CPU)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "hub", "repository": "user:token@org/name", "revision": "0" * 40},
        {"kind": "hub", "repository": "https://user:token@host/org/name", "revision": "0" * 40},
        {"kind": "hub", "repository": "org/name?token=secret", "revision": "0" * 40},
        {"kind": "hub", "repository": "org/name", "revision": "main"},
        {"kind": "hub", "repository": "org/name", "revision": "token@" + "0" * 34},
        {"kind": "wheel", "package": "--index-url=https://u:token@host", "version": "1"},
        {"kind": "wheel", "package": "name", "version": "1 @ https://u:token@host"},
    ],
)
def test_a_source_holds_no_address_and_no_token(source: dict[str, Any]) -> None:
    if source["kind"] == "wheel":
        source = {**source, "member": "m.gguf", "sha256": "0" * 64, "bytes": 1}
    model = {"name": "m", "description": "d", "license": "MIT", "source": source}
    with pytest.raises(InvalidFile, match="not a valid model") as caught:
        parse(Model, model, where="m.toml")
    assert ":token@" not in str(caught.value), "what is refused is not repeated in a log"
