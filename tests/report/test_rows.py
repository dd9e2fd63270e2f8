"""Rows: which runs stand together, under which label, and what is read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import PhaseCost, RunRecord
from harness.records.store import RunStore, StoredRun
from harness.report.blocks import Facts
from harness.report.decision import price
from harness.report.ranking import ranking
from harness.report.rows import Row, make_rows, memory_kind, twins
from harness.report.settings import alpha_over_rank, bits_of, flatten, method_of, plain, without
from harness.spec.storage import read_json, write_json
from tests.planned import planned
from tests.report.records import CPU, GPU, Made, build_from, write_run, write_runs
from tests.report.tables import texts

SHORTER = ("budget.steps=20",)


def rows_of(root: Path, *runs: Made) -> dict[str, Row]:
    """Rows of these runs, by label."""
    write_runs(root, runs)
    return {row.label: row for row in make_rows(read(root))}


def read(root: Path) -> list[StoredRun]:
    return [found for found in RunStore(root).scan() if isinstance(found, StoredRun)]


def change_phases(folder: Path, name: str, **changes: object) -> None:
    """Write a run's record again, with one phase's cost changed."""
    record = read_json(folder / "record.json", RunRecord)
    phases = tuple(
        PhaseCost.model_validate({**cost.model_dump(), **changes}) if cost.name == name else cost
        for cost in record.phases
    )
    write_json(folder / "record.json", record.model_copy(update={"phases": phases}))


def test_shares_of_runs_that_trained_together_are_no_costs_of_a_variant(tmp_path: Path) -> None:
    """An eighth of what eight needed would let a variant into a budget that holds none."""
    write_runs(tmp_path, [Made("lora_bf16", seed=seed) for seed in (0, 1)])
    first, second = read(tmp_path)
    (alone,) = make_rows([first])
    write_json(second.folder.record, second.record.model_copy(update={"together": 8}))
    (both,) = make_rows(read(tmp_path))
    assert both.seeds == (0, 1)
    assert both.peaks("peak_resident_bytes") == alone.peaks("peak_resident_bytes") != ()
    assert both.times("train") == alone.times("train")
    assert both.energies() == alone.energies()
    assert both.tokens_per_second == alone.tokens_per_second
    write_json(first.folder.record, first.record.model_copy(update={"together": 8}))
    (none,) = make_rows(read(tmp_path))
    assert none.seeds == (0, 1)
    assert (none.peak_bytes("peak_resident_bytes"), none.training_seconds, none.seconds) == (
        None,
    ) * 3


def test_the_seeds_of_a_variant_are_one_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, *(Made("lora_bf16", seed=seed) for seed in (2, 0, 1)), Made("base"))
    assert list(rows) == ["base", "lora_bf16"], "in name order"
    assert rows["lora_bf16"].seeds == (0, 1, 2), "by seed"
    assert rows["base"].is_reference_base
    assert not rows["lora_bf16"].is_reference_base


def test_a_failed_run_stays_in_its_row_and_is_no_seed(tmp_path: Path) -> None:
    row = rows_of(tmp_path, Made("lora_bf16"), Made("lora_bf16", seed=1, status="oom"))["lora_bf16"]
    assert row.seeds == (0,)
    assert [record.plan.seed for record in row.failures] == [1]
    assert len(row.records) == 2


def test_settings_that_differ_are_named_in_the_label(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, Made("lora_bf16"), Made("lora_bf16", settings=SHORTER))
    assert sorted(label.partition(",")[0] for label in rows) == [
        "lora_bf16 [budget.steps=20",
        "lora_bf16 [budget.steps=28",
    ]
    assert {row.variant for row in rows.values()} == {"lora_bf16"}


def test_processors_of_one_name_are_told_by_threads_and_then_by_what_else_differs(
    tmp_path: Path,
) -> None:
    """Memory that differs with the threads is not named: it would take another key's place."""
    larger = CPU.model_copy(update={"threads": 8, "memory_bytes": 48 << 30})
    rows = rows_of(
        tmp_path,
        Made("lora_bf16"),
        Made("lora_bf16", settings=SHORTER),
        Made("lora_bf16", device=larger),
    )
    assert {label.partition("[")[2] for label in rows} == {
        "device.threads=2, budget.steps=28]",
        "device.threads=2, budget.steps=20]",
        "device.threads=8, budget.steps=28]",
    }


def test_a_repeated_seed_counts_once_and_the_later_run_is_taken(tmp_path: Path) -> None:
    write_run(tmp_path / "first", Made("lora_bf16", seconds=50))
    again = write_run(tmp_path / "second", Made("lora_bf16", seconds=70))
    record = read_json(again / "record.json", RunRecord)
    later = record.model_copy(update={"started_at": "2027-01-01T00:00:00Z"})
    write_json(again / "record.json", later)
    (row,) = make_rows([*read(tmp_path / "second"), *read(tmp_path / "first")])
    assert len(row.runs) == 1
    assert row.training_seconds == 70


def test_what_is_read_of_a_row_is_the_median_over_its_seeds(tmp_path: Path) -> None:
    times = (80.0, 100.0, 90.0)
    row = rows_of(
        tmp_path,
        *(
            Made("lora_bf16", seed=seed, seconds=took, memory=1 + seed / 10, device=GPU)
            for seed, took in enumerate(times)
        ),
    )["lora_bf16"]
    assert row.times("train") == (80.0, 90.0, 100.0)
    assert row.training_seconds == 90.0
    assert row.phase_seconds("score_base") == 25.0
    assert row.seconds == 140.0
    assert row.tokens_per_second == 350.0
    assert row.trainable == 305_000 * 16
    peaks = row.peaks("peak_allocated_bytes")
    assert peaks == tuple(int(2.1e9 * (1 + seed / 10)) for seed in range(3))
    assert row.peak_bytes("peak_allocated_bytes") == peaks[1]
    assert row.peak_bytes("peak_allocated_bytes", ["load"]) == int(6e8 * 1.1)
    assert row.predicted_bytes == int(2e9 * 1.1)
    energies = row.energies()
    assert len(energies) == 3
    assert row.energy_joules() == sorted(energies)[1]


def test_an_untrained_row_has_no_training_time_and_the_energy_of_all_its_phases(
    tmp_path: Path,
) -> None:
    row = rows_of(tmp_path, Made("base", device=GPU))["base"]
    assert row.training_seconds is None
    (record,) = row.records
    assert row.energy_joules() == pytest.approx(
        sum(cost.energy_joules or 0 for cost in record.phases)
    )
    assert row.peaks("peak_allocated_bytes") == (int(1.4e9),), "scoring must fit, not training"


def test_a_phase_that_was_taken_over_costs_nothing_and_says_no_peak(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base", device=GPU))
    change_phases(folder, "score_base", reused=True)
    (row,) = make_rows(read(tmp_path))
    assert row.reused("score_base") == 1
    assert row.times("score_base") == ()
    assert row.peaks("peak_allocated_bytes") == (), "what it would have taken is not known"
    assert row.peaks("peak_allocated_bytes", ["score"]) == (int(1.4e9),)
    assert row.energies() == (), "energy of only some phases is no energy of the run"


def test_energy_that_one_phase_did_not_measure_is_unknown(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("lora_bf16", device=GPU))
    change_phases(folder, "train", energy_joules=None, energy_source=None)
    (row,) = make_rows(read(tmp_path))
    assert row.energy_joules() is None


def test_a_row_without_a_finished_run_says_what_its_failures_took(tmp_path: Path) -> None:
    row = rows_of(tmp_path, Made("lora_bf16", status="oom"))["lora_bf16"]
    assert row.seeds == ()
    assert row.peaks("peak_resident_bytes") == (), "the whole was never reached"
    assert row.peak_bytes("peak_resident_bytes", ["load"]) == int(6e8)
    assert row.times("load") == (3.0,)
    assert row.tokens_per_second is None


def test_the_memory_that_most_rows_have_is_shown(tmp_path: Path) -> None:
    on_cpu = rows_of(tmp_path / "cpu", Made("base"), Made("lora_bf16"))
    on_gpu = rows_of(tmp_path / "gpu", Made("base", device=GPU), Made("lora_bf16", device=GPU))
    assert memory_kind([*on_cpu.values()]) == "peak_resident_bytes"
    assert memory_kind([*on_gpu.values()]) == "peak_device_bytes"
    assert memory_kind([*on_gpu.values(), *on_cpu.values()]) == "peak_resident_bytes", "of all"
    assert memory_kind([]) == "peak_resident_bytes"


@pytest.mark.parametrize(
    ("variant", "settings", "method", "bits", "scale"),
    [
        ("base", (), "untrained", 16, None),
        ("base_nf4", (), "untrained", 4, None),
        ("full_finetune", (), "full", 16, None),
        ("lora_bf16", (), "lora", 16, 2.0),
        ("lora_bf16", ("adapter.r=64",), "lora", 16, 0.5),
        ("lora_bf16", ("adapter.r=64", "adapter.use_rslora=true"), "rslora", 16, 4.0),
        ("lora_bf16", ("adapter.use_dora=true",), "dora", 16, 2.0),
        ("qlora_nf4", (), "lora", 4, 2.0),
        ("lora_hqq3", (), "lora", 3, 2.0),
        ("lora_torchao_float8", (), "lora", 8, 2.0),
    ],
)
def test_the_method_of_a_plan_in_a_word(
    variant: str, settings: tuple[str, ...], method: str, bits: int, scale: float | None
) -> None:
    plan = planned(variant, *settings)
    assert method_of(plan) == method
    assert bits_of(plan) == bits
    assert alpha_over_rank(plan) == scale


def test_marks_say_the_method_by_shape_and_the_bits_by_filling(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, *(Made(name) for name in ("base", "lora_bf16", "qlora_nf4")))
    lora, qlora, base = (rows[name].mark for name in ("lora_bf16", "qlora_nf4", "base"))
    assert lora.marker == qlora.marker != base.marker
    assert (lora.fill, qlora.fill) == ("full", "none")
    assert len({mark.colour for mark in (lora, qlora, base)}) == 3


def test_twins_differ_in_quantization_only(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        Made("qlora_nf4"),
        Made("qlora_nf4_dq"),
        Made("lora_bf16"),
        Made("lora_bf16", settings=SHORTER),
    )
    found = {(a.variant, b.variant) for a, b in twins(tuple(rows.values()))}
    assert ("qlora_nf4", "qlora_nf4_dq") in found
    assert ("qlora_nf4_dq", "qlora_nf4") in found, "in both directions"
    assert ("lora_bf16", "lora_bf16") not in found, "another budget is no twin"


def test_plans_without_a_key_are_compared_by_the_rest() -> None:
    one, two = planned("qlora_nf4"), planned("qlora_nf4_dq")
    assert without(one, "quantization") == without(two, "quantization")
    assert without(one) != without(two)
    assert without(one) == without(planned("qlora_nf4", seed=3)), "a seed is no setting"


def test_nested_settings_become_dotted_keys_with_lists_whole() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}
    assert flatten(nested) == {"a.b": 1, "a.c.d": [1, 2], "e": None}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/data/trees.jsonl", "trees.jsonl"),
        ("hub:owner/name", "hub:owner/name"),
        ("plain", "plain"),
        (None, "–"),
        (True, "true"),
        (2e-4, "0.0002"),
        (["q_proj", "v"], '["q_proj", "v"]'),
    ],
)
def test_a_plan_s_value_is_written_as_a_person_would(value: object, text: str) -> None:
    assert plain(value) == text


def test_a_peak_that_loading_sets_is_said_wherever_it_decides(tmp_path: Path) -> None:
    for place, made in enumerate([Made("lora_bf16", log_ratio=-0.2), Made("qlora_nf4")]):
        folder = write_run(tmp_path, made)
        change_phases(folder, "load", peak_resident_bytes=(3 << 30) * (1 + place))
    evidence = build_from(tmp_path).evidence
    chosen = evidence.by_label["lora_bf16"]
    assert chosen.peak_phase("peak_resident_bytes") == "load"
    assert chosen.needed_said("peak_resident_bytes") == (
        "3.00 GiB (loading sets it; training alone peaks at 1.96 GiB)"
    )
    rows = texts(ranking(evidence))
    assert [row["peak memory"] for row in rows] == ["3.00 GiB loading", "6.00 GiB loading"]
    (facts,) = price(evidence, chosen)
    assert isinstance(facts, Facts)
    (memory,) = [fact for fact in facts.facts if fact.title == "peak memory"]
    assert memory.note == "−50 % against the runner-up's 6.00 GiB; loading, not training, sets both"


def test_a_peak_that_training_sets_needs_no_words(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, Made("lora_bf16")).values()
    assert row.peak_phase("peak_resident_bytes") == "train"
    assert row.needed_said("peak_resident_bytes") == "1.96 GiB"
    assert row.peak_phase("peak_device_bytes") is None
