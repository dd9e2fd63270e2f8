"""`plan` says what a run would do, before anything is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.checks.plans import check_adapter
from harness.errors import UserError
from tests.cli.terminal import refused, shown
from tests.planned import planned


def test_plan_as_json_is_the_plan_itself() -> None:
    found = json.loads(
        shown("plan", "-v", "qlora_nf4", "--set", "adapter.r=32", "--json", "--device", "cpu")
    )
    assert found["variant"] == "qlora_nf4+adapter.r=32"
    assert found["suite"] == "quick"
    assert found["adapter"]["r"] == 32


def test_several_plans_as_json_are_a_list() -> None:
    found = json.loads(
        shown("plan", "-v", "base", "-v", "qlora_nf4", "--seeds", "0..1", "--json", "--gpu", "t4")
    )
    names = [(plan["variant"], plan["seed"], plan["device"]["kind"]) for plan in found]
    assert names == [
        ("base", 0, "cuda"),
        ("qlora_nf4", 0, "cuda"),
        ("qlora_nf4", 1, "cuda"),
    ]


def test_plan_for_people_says_memory_and_what_the_corpus_steps_leave() -> None:
    text = shown("plan", "-v", "qlora_nf4", "--gpu", "h100")
    for words in ("qlora_nf4", "H100", "GiB", "trees"):
        assert words in text


def test_several_variants_stand_side_by_side_each_once_and_what_does_not_fit_gets_a_hint() -> None:
    text = shown(
        *("plan", "-v", "lora_bf16", "-v", "qlora_nf4", "-v", "base", "--seeds", "0..2"),
        *("--memory", "1GiB", "--device", "cpu", "--set", "budget.steps=3"),
        width=100,
    )
    assert text.count("quick with budget.steps=3") == 1
    rows = [line.split() for line in text.splitlines() if line.strip()]
    names = ("lora_bf16", "qlora_nf4", "base")
    table = [row for row in rows if row[0] in names and row[1] not in ("does", "trains")]
    assert [row[0] for row in table] == list(names)
    base = table[-1]
    assert base[2] == base[3] == "–", "nothing is trained"
    assert "qlora_nf4 does not fit. " in text
    assert "saved: compared with lora_bf16" in " ".join(text.split())
    assert "base trains nothing and is run once" in text
    assert "rows of 512 tokens, the most that is allowed" in text


def test_plan_for_two_gpus_says_what_fits_and_which_way_is_fastest() -> None:
    text = shown("plan", "-v", "qlora_nf4", "--gpu", "rtx4090", "--devices", "2")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    ways = {row[0]: row for row in rows if row[0] in ("one", "data", "sharded")}
    assert set(ways) == {"one", "data", "sharded"}
    assert all("yes" in row for row in ways.values())
    assert "fastest: data" in text


def test_a_budget_without_a_unit_is_refused() -> None:
    assert "with its unit" in refused("plan", "-v", "base", "--memory", "12", "--device", "cpu")


@pytest.mark.parametrize("setting", ["adapter.lora_alfa=3", "adapter.r=eight", "adapter.type=LOAR"])
def test_an_adapter_that_peft_would_refuse_is_a_mistake(setting: str) -> None:
    with pytest.raises(UserError, match=r"\[adapter\]"):
        check_adapter(planned("qlora_nf4", setting))


def test_an_unknown_gpu_is_refused() -> None:
    assert "rtx9999" in refused("plan", "-v", "base", "--gpu", "rtx9999")


CASES = Path(__file__).parents[3] / "shared" / "cases" / "toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[adapter]\ntarget_modules = "(("', "[adapter] target_modules"),
        ('[adapter]\nexclude_modules = "*x"', "[adapter] exclude_modules"),
        ('[adapter]\nrank_pattern = {"((" = 2}', "[adapter] rank_pattern"),
        ("[adapter]\nr = 0", "[adapter] r"),
        ("[adapter]\nr = -3", "[adapter] r"),
        ("[adapter]\nrank = 8", "[adapter]"),
        ('[adapter]\ntype = "LORAA"', "[adapter] type"),
        ('[adapter]\nlora_dropout = "much"', "[adapter] lora_dropout"),
        ("training = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("training." + "a." * 300 + "b = 1", "nested too deeply"),
    ],
)
@pytest.mark.parametrize("command", [("plan", "--device", "cpu", "-v"), ("show",)])
def test_what_peft_would_refuse_names_file_and_key(
    tmp_path: Path, text: str, said: str, command: tuple[str, ...]
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'description = "d"\n{text}\n')
    message = refused(*command, str(own))
    assert str(own) in message
    assert said in message


@pytest.mark.parametrize(
    "setting",
    ["adapter.r=0", "adapter.target_modules=((", "adapter.rank=2", "a" + ".b" * 2000 + "=1"],
)
def test_what_is_set_is_blamed_too(setting: str) -> None:
    assert setting[:20] in refused("plan", "-v", "qlora_nf4", "--device", "cpu", "--set", setting)


def test_a_value_nested_deeply_is_refused() -> None:
    value = "[" * 5000 + "]" * 5000
    assert "nested" in refused("plan", "-v", "base", "--set", f"score.tasks={value}")


def test_a_suite_that_names_no_model_is_named_itself(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('description = "d"\nmodel = "sample"\n[budget]\nsteps = 1\nbatch_size = 1\n')
    for command in (("plan", "-v", "base", "--suite"), ("show",)):
        message = refused(*command, str(own))
        assert "unknown model 'sample'" in message
        assert f"{own}, model" in message


@pytest.mark.parametrize("name", ["variant-117", "variant-172", "variant-20", "suite-24"])
def test_cases_that_once_failed(name: str) -> None:
    path = CASES / f"{name}.toml"
    if not path.is_file():
        pytest.skip(f"no such case at {path}")
    kind = ("--suite", str(path), "-v", "base") if name[0] == "s" else ("-v", str(path))
    message = refused("plan", "--device", "cpu", *kind)
    assert str(path) in message
    assert "\x1b" not in message
