"""Which runs of a command are forked, and when the process that forks them begins to load."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.store import RunStore
from harness.runs.forks import Forks
from harness.runs.options import RunOptions
from harness.spec.device import Device
from harness.spec.plan import Plan
from tests.planned import CPU, GPU, planned
from tests.store_records import record_of

WARM = RunOptions(warm=True)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows when a process begins to load the libraries; none does."""
    found: list[str] = []

    class Server:
        def begin(self) -> None:
            found.append("begun")

    monkeypatch.setattr("harness.runs.forks.warm_start", Server)
    return found


def taken(forks: Forks, plans: list[Plan]) -> list[bool]:
    for plan in plans:
        forks.expect(plan)
    return [forks.take(plan) for plan in plans]


def seeds(count: int, device: Device = GPU, *settings: str) -> list[Plan]:
    return [planned("lora_bf16", *settings, seed=seed, device=device) for seed in range(count)]


TWO_DEVICES = "training.devices=2"


@pytest.mark.parametrize(
    ("plans", "forked"),
    [
        pytest.param(seeds(3), [False, True, True], id="several"),
        pytest.param(seeds(1), [False], id="one"),
        pytest.param(seeds(2, CPU), [False, False], id="on a CPU"),
        pytest.param(seeds(2, GPU, TWO_DEVICES), [False, False], id="divided"),
    ],
)
def test_what_follows_the_first_run_on_a_gpu_is_forked(
    plans: list[Plan], forked: list[bool], tmp_path: Path, begun: list[str]
) -> None:
    """A CPU's runs are not: their resident memory would read too low."""
    assert taken(Forks(RunStore(tmp_path), WARM, at_once=False), plans) == forked
    assert begun == ["begun"] * any(forked), "it begins beside the first"


def test_where_runs_begin_at_once_the_second_begins_the_process_that_it_needs(
    tmp_path: Path, begun: list[str]
) -> None:
    assert taken(Forks(RunStore(tmp_path), WARM, at_once=True), seeds(2)) == [False, True]
    assert begun == []


def test_none_is_forked_that_was_not_asked_to_be(tmp_path: Path, begun: list[str]) -> None:
    assert taken(Forks(RunStore(tmp_path), RunOptions(), at_once=False), seeds(2)) == [False, False]
    assert begun == []


def test_a_run_that_is_known_is_not_counted(tmp_path: Path, begun: list[str]) -> None:
    """The one that is left takes the process that was begun for it."""
    store, (known, left) = RunStore(tmp_path), seeds(2)
    store.write(record_of(known))
    assert taken(Forks(store, WARM, at_once=False), [known, left]) == [False, False]
    assert begun == []


def test_runs_that_are_asked_for_one_by_one_are_forked_from_the_second_on(
    tmp_path: Path, begun: list[str]
) -> None:
    forks = Forks(RunStore(tmp_path), WARM, at_once=False)
    assert [taken(forks, [plan]) for plan in seeds(2)] == [[False], [True]]
    assert begun == [], "it begins when the second asks for it"
