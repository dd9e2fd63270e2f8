"""A study can be limited to what published claims compare, and says what it lacks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UnknownName, UserError
from harness.spec.claim import PairCheck
from harness.spec.derived_names import derived_name
from harness.spec.overrides import parse_settings
from harness.spec.registry import claim_names, load_claim, load_study, study_names
from harness.spec.schema import parse
from harness.spec.study import Contender, Study
from harness.studies.arms import compare_what, setting_line
from harness.studies.claimed import check_claims, limited, verdicts
from tests.planned import CPU
from tests.studies.stub import Bench, World


def folklore(*claims: str, **changed: object) -> Study:
    return limited(load_study("folklore", {"claims": list(claims), **changed}))


@pytest.mark.parametrize(
    ("claims", "variants", "reference"),
    [
        (("nf4_beats_fp4",), ["qlora_nf4", "qlora_fp4"], "qlora_fp4"),
        (
            ("double_quantization", "nf4_beats_fp4"),
            ["qlora_nf4", "qlora_nf4_dq", "qlora_fp4"],
            "qlora_nf4",
        ),
        (("lora_rate_ten_times",), ["lora_bf16", "full_finetune"], "lora_bf16"),
        (  # the second name of two: the study has it
            ("vera_equal_parameters",),
            ["vera", Contender(variant="lora_bf16", settings={"adapter.r": 1})],
            "lora_bf16+adapter.r=1",
        ),
        (("rslora_default",), ["lora_rs", "lora_bf16_r64"], "lora_bf16_r64"),
    ],
)
def test_only_what_claims_compare_is_run(
    claims: tuple[str, ...], variants: list[str | Contender], reference: str
) -> None:
    found = folklore(*claims)
    assert (list(found.variants), found.reference) == (variants, reference)
    assert found.question.startswith(f"Does it hold here? {load_claim(claims[0]).sentence}")
    assert found.settings == load_study("folklore").settings, "the protocol is the study's own"


def test_a_variant_that_the_study_has_not_is_spelled_out() -> None:
    written = {"claims": ["packing"], "grid": {"adapter.r": [4, 16]}}
    found = limited(load_study("quantization", written))
    packed = Contender(variant="lora_bf16", settings={"training.packing": True})
    assert found.variants == (packed, "lora_bf16")
    arms = compare_what(found, CPU)
    assert list(arms.by_label) == ["lora_bf16+training.packing=true", "lora_bf16"], "no grid"


def test_a_study_without_claims_is_as_it_was() -> None:
    assert folklore() == load_study("folklore", {"claims": []})


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("qpissa", "no run can test qpissa: such a start is refused"),
        ("merging_qlora", "compare qlora_nf4_dq with itself alone"),
        ("nf4_beats_fp", "unknown claim 'nf4_beats_fp'"),
    ],
)
def test_a_claim_that_no_study_tests_is_refused(claim: str, words: str) -> None:
    with pytest.raises((UserError, UnknownName), match=words):
        folklore(claim)


ONE_RATE = {"tune": {"trials": 1}}


@pytest.mark.parametrize(
    ("claim", "changed", "words"),
    [
        ("lora_rate_ten_times", {"tune": {"trials": 3}}, "asks for study.tune.trials >= 4"),
        ("rslora_tuned", ONE_RATE, "asks for tuned learning rates"),
        ("lora_learns_less", {"settings": {}}, "its score, wikitext2 bits_per_byte, is not taken"),
        ("mmlu_on_oasst1", {}, "its score, mmlu acc, is not taken"),
        ("lora_loses_at_large_batches", {}, "it asks for budget.batch_size >= 64"),
        ("qlora_speed", {}, "it asks for device.kind = cuda"),
    ],
)
def test_what_runs_cannot_decide_is_said_before_they_are_made(
    claim: str, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=f"cannot decide {claim}: .*{words}"):
        check_claims(compare_what(_small(claim, changed), CPU))


def _small(claim: str, changed: dict[str, object]) -> Study:
    """The study without its tasks, whose data are not here."""
    study = folklore(claim)
    settings = {**study.settings, "score.tasks": []}
    plain = {"score.forgetting": False} if changed.pop("settings", None) is not None else {}
    data = study.model_dump(mode="json") | {"settings": settings | plain} | changed
    return parse(Study, data, where="folklore.toml")


def test_every_claim_can_be_asked_of_the_study_or_is_refused_by_name() -> None:
    refused = []
    for claim in claim_names():
        try:
            assert len(folklore(claim).variants) >= 2
        except UserError:
            refused.append(claim)
    assert refused == ["merging_qlora", "qpissa"]


@pytest.mark.parametrize("stop", [3, "decided"])
def test_its_runs_judge_its_claims(tmp_path: Path, stop: int | str) -> None:
    """Seeds that are looked at one after the other have to show more."""
    bench = Bench.of(
        tmp_path,
        World(worse={"qlora_fp4": 0.03}),
        claims=("nf4_beats_fp4",),
        variants=["qlora_nf4", "qlora_fp4"],
        reference="qlora_fp4",
        tune={"trials": 1},
        seeds={"least": 3, "most": 3, "stop": stop},
    )
    (found,) = verdicts(bench.finish())
    assert (found.claim.name, found.outcome) == ("nf4_beats_fp4", "reproduced")
    assert found.ground is not None
    assert found.ground.looks(found.ground.arms["qlora_nf4"].rows[0]) == (1 if stop == 3 else 2)


@pytest.mark.parametrize("name", study_names())
def test_every_study_asked_for_a_claim_has_a_pair_of_it(name: str) -> None:
    """A claim is judged pair by pair, so both sides have to come from one."""
    for claim in map(load_claim, claim_names()):
        try:
            found = limited(load_study(name).model_copy(update={"claims": (claim.name,)}))
        except UserError:
            continue
        has = set(labels(found))
        for check in claim.checks:
            if isinstance(check, PairCheck):
                sides = [[has & set(names) for names in pair] for pair in check.choices]
                assert any(all(pair) for pair in sides), f"{claim.name}: {sorted(has)}"


def labels(study: Study) -> Iterator[str]:
    """The names that the runs of a study's entries have."""
    for entry in study.variants:
        if isinstance(entry, str):
            yield derived_name(entry, {})
        else:
            lines = [setting_line(key, value) for key, value in entry.settings.items()]
            yield derived_name(entry.variant, parse_settings(lines)[0])


def test_the_pair_that_a_study_has_most_of_is_taken() -> None:
    study = load_study("methods").model_copy(update={"claims": ("mmlu_on_oasst1",)})
    assert limited(study).variants == ("lora_bf16", "base")
