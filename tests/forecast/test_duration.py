"""How long whole runs take is told by those that there are."""

from __future__ import annotations

from pathlib import Path

from harness.forecast.duration import whole_run_seconds
from harness.records.store import RunStore
from tests.planned import planned
from tests.store_records import record_of


def test_a_whole_run_takes_the_median_of_those_of_its_kind(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for seed, seconds in enumerate((50.0, 10.0, 20.0)):
        store.write(record_of(planned("lora_bf16", seed=seed), seconds=seconds))
    store.write(record_of(planned("lora_bf16", seed=3), seconds=1.0, status="failed"))
    store.write(record_of(planned("qlora_nf4"), seconds=7.0))
    tell = whole_run_seconds(tmp_path)
    assert tell(planned("lora_bf16", seed=9)) == 20.0
    assert tell(planned("lora_bf16", "budget.steps=999")) is None
    assert tell(planned("base_nf4")) is None


def test_an_untrained_run_takes_time_too(tmp_path: Path) -> None:
    """It loads and scores, whatever the budget of training."""
    RunStore(tmp_path).write(record_of(planned("base"), seconds=20.0))
    tell = whole_run_seconds(tmp_path)
    assert tell(planned("base", seed=9)) == 20.0
    assert tell(planned("base", "budget.steps=999")) == 20.0
    assert tell(planned("base_nf4")) is None


def test_without_a_store_nothing_is_known(tmp_path: Path) -> None:
    assert whole_run_seconds(tmp_path / "none")(planned()) is None
