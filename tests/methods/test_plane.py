"""The plane has no empty cell, its page is its file, and a sample of it is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness.spec.listing import variants_markdown
from harness.spec.methods import refusal
from harness.spec.plane import MethodCell, plane_markdown, read_plane
from harness.spec.schemes import scheme_names
from harness.spec.variant import Adapter, Quantization
from tests.cli.terminal import shown
from tests.methods.bench import FAMILIES, Bench
from tests.methods.plane import PAGE, find_pair, method_names
from tests.methods.promises import check_foresight, check_training
from tests.parallel.pair import run_pair

ROOT = Path(__file__).parents[2]


def test_every_method_stands_in_the_plane_on_every_scheme() -> None:
    found = [(row.method, scheme) for row in read_plane().rows for scheme in row.schemes]
    assert len(found) == len(set(found))
    assert set(found) == {
        (method, scheme) for method in method_names() for scheme in scheme_names()
    }


def test_what_is_refused_or_not_offered_has_a_reason() -> None:
    cells: list[MethodCell] = [cell for row in read_plane().rows for cell in row.cells]
    assert all(cell.reason for cell in cells if cell.state != "works")


def test_a_row_that_names_architectures_names_three() -> None:
    named = [row for row in read_plane().rows if row.architectures]
    assert named
    for row in named:
        taken = [name for name, cell in row.architectures if cell.state == "works"]
        others = [cell for _, cell in row.architectures if cell.state != "works"]
        assert len(taken) + len(others) == 3, row.method
        assert taken
        assert all(cell.reason for cell in others)


def test_forty_methods_and_eight_schemes_work() -> None:
    works = [row for row in read_plane().rows if row.plain.state == "works"]
    assert len({row.method for row in works}) >= 40
    assert len({scheme for row in works for scheme in row.schemes}) >= 8


# What the list calls them, where a variant is called otherwise.
CALLED = {
    "lora": "lora_bf16", "rslora": "lora_rs", "dora": "lora_dora", "pissa": "lora_pissa",
    "olora": "lora_olora", "loftq": "lora_loftq", "eva": "lora_eva", "corda": "lora_corda",
    "modules_to_save": "lora_embeddings",
}  # fmt: skip
ASKED = [
    "prompt_tuning",
    "prefix_tuning",
    "p_tuning",
    "cartridge",
    "lora",
    "rslora",
    "dora",
    "pissa",
    "olora",
    "loftq",
    "eva",
    "corda",
    "lora_ga",
    "lora_plus",
    "lora_fa",
    "adalora",
    "vera",
    "randlora",
    "vblora",
    "tinylora",
    "unilora",
    "delora",
    "hira",
    "gralora",
    "lily",
    "miss",
    "road",
    "c3a",
    "fourierft",
    "waveft",
    "shira",
    "loha",
    "lokr",
    "psoft",
    "osf",
    "ia3",
    "oft",
    "boft",
    "hra",
    "ln_tuning",
    "beft",
    "trainable_tokens",
    "lora_last_half",
    "modules_to_save",
    "longlora",
    "full_finetune",
    "full_adamw_8bit",
    "full_paged_adamw_8bit",
    "full_muon",
    "full_galore",
    "full_apollo",
]
# Not VeRA and trained norms: plain PEFT loads their float32 weights in the base's 16 bits.
IN_BFLOAT16 = [
    *((method, "none") for method in ("ia3", "prefix_tuning")),
    *(("lora_rs", scheme) for scheme in ("hqq", "int4", "nvfp4", "mxfp4", "torchao_int8")),
]
NOT_ON_A_CPU = {"lora_loftq", "full_adamw_8bit", "full_paged_adamw_8bit"}


@pytest.mark.parametrize("name", ASKED)
def test_every_method_that_was_asked_for_works_on_a_plain_base(name: str) -> None:
    method = CALLED.get(name, name)
    (row,) = [one for one in read_plane().rows if one.method == method and "none" in one.schemes]
    if method in NOT_ON_A_CPU:
        assert "GPU" in row.plan.reason
    else:
        assert row.plain.state == "works", row.plan.reason


def test_x_lora_is_refused_by_name() -> None:
    reason = str(refusal(Adapter(type="XLORA"), Quantization()))
    assert "it mixes adapters" in reason
    assert "`XLORA`: it mixes adapters" in PAGE.read_text(encoding="utf-8")


def test_the_page_is_made_from_the_file() -> None:
    made = plane_markdown(read_plane())
    assert PAGE.read_text(encoding="utf-8") == made, "python -m tests.methods.plane --page"


def test_readme_has_the_table_of_the_registry() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("list variants --markdown` -->\n")[2].partition("\n<!-- /variants")[0]
    assert table == variants_markdown(), "harness list variants --markdown"


def test_list_prints_the_plane() -> None:
    text = shown("list", "methods")
    assert "adalora" in text
    assert "refused" in text
    assert shown("list", "variants", "--markdown").startswith("| variant |")


@pytest.mark.parametrize(
    ("method", "scheme"),
    [
        ("lora_eva", "none"),
        ("lora_ga", "none"),
        ("ia3", "nf4"),
        ("lora_pissa", "nf4"),
        ("full_muon", "none"),
        ("full_galore", "none"),
        ("full_apollo", "none"),
    ],
)
def test_a_cell_is_made_again(bench: Bench, method: str, scheme: str) -> None:
    (written,) = [
        row for row in read_plane().rows if row.method == method and scheme in row.schemes
    ]
    found = find_pair(bench, method, scheme, FAMILIES[:1])
    assert found.model_copy(update={"gpus": written.gpus}).cells == written.cells


@pytest.mark.parametrize(
    ("method", "scheme"),
    [
        ("lora_rs", "nf4"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in IN_BFLOAT16),
    ],
)
def test_a_sample_works_in_bfloat16(bench: Bench, method: str, scheme: str) -> None:
    """Products in bfloat16, adapters in float32, as on a GPU; scores are compared elsewhere."""
    base = () if scheme == "none" else (f"quantization.type={scheme}",)
    plan = bench.plan(method, FAMILIES[0], *base)
    precision = plan.precision.model_copy(update={"compute": "bfloat16"})
    plan = plan.model_copy(update={"precision": precision})
    trained = check_training(plan)
    assert trained.model.dtype == torch.bfloat16
    check_foresight(plan, trained.model)


@pytest.mark.slow
def test_two_devices_are_tried_again(bench: Bench, tmp_path: Path) -> None:
    """Of the cells that say so: an adapter, a start from rows, a soft prompt, four bits."""
    pairs = [("ia3", "none"), ("lora_eva", "none"), ("prompt_tuning", "none"), ("lora_rs", "nf4")]
    rows = {(row.method, scheme): row for row in read_plane().rows for scheme in row.schemes}
    assert {rows[pair].gpus.state for pair in pairs} == {"works"}
    run_pair("tests.parallel.methods_pair", str(bench.folder), str(tmp_path), json.dumps(pairs))
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == dict.fromkeys((f"{method} on {base}" for method, base in pairs), "")
