"""How long whole runs take is told by those that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.forecast.duration import whole_run_seconds
from harness.records.store import RunStore
from tests.planned import planned
from tests.store_records import record_of


@pytest.mark.parametrize("variant", ["base", "lora_bf16"])
def test_a_whole_run_takes_the_median_of_those_of_its_kind(tmp_path: Path, variant: str) -> None:
    """Untrained runs take time too: they load and score."""
    store = RunStore(tmp_path)
    for seed, seconds in enumerate((50.0, 10.0, 20.0)):
        store.write(record_of(planned(variant, seed=seed), seconds=seconds))
    store.write(record_of(planned(variant, seed=3), seconds=1.0, status="failed"))
    longer = planned(variant, "budget.steps=999")
    store.write(record_of(planned("qlora_nf4"), seconds=7.0))
    tell = whole_run_seconds(tmp_path)
    assert tell(planned(variant, seed=9)) == 20.0
    assert tell(longer) == (None if longer.trains else 20.0), "a budget is for training"
    assert tell(planned("base_nf4")) is None


def test_without_a_store_nothing_is_known(tmp_path: Path) -> None:
    assert whole_run_seconds(tmp_path / "none")(planned()) is None
