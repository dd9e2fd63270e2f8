"""Runs of one study are made by one set of versions, or the page says that they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.records.record import Environment
from harness.studies.agenda import Agenda
from harness.studies.page import make_page
from harness.studies.steering import Steering
from harness.studies.versions import mixture, refuse_others
from tests.studies.stub import Bench


def environment(torch: str) -> Environment:
    packages = {"torch": torch, "peft": "0.20"}
    return Environment(
        python="3.11", packages=packages, os="Linux", cpu="any", cores=2, sources="ab" * 32
    )


def ran_with(folder: Path, *torch: str) -> Agenda:
    """A study whose first runs were made with these versions."""
    bench = Bench.of(folder)
    for job, version in zip(bench.agenda().jobs, torch, strict=False):
        record = bench.executor.run(job.plan)
        update = {"environment": environment(version)}
        bench.executor.store.write(record.model_copy(update=update))
    return bench.agenda()


def test_runs_are_added_to_those_of_the_same_versions_only(tmp_path: Path) -> None:
    agenda = ran_with(tmp_path, "2.12.0", "2.12.0")
    refuse_others(agenda, {"torch": "2.12.0", "trl": "1.10", "its sources": "ab" * 32})
    with pytest.raises(UserError) as caught:
        refuse_others(agenda, {"torch": "2.13.0", "its sources": "cd" * 32})
    assert "torch 2.12.0 (here 2.13.0) in 2 runs" in str(caught.value)
    assert "its sources abababababab (here cdcdcdcdcdcd) in 2 runs" in str(caught.value)
    assert "--mix-versions" in str(caught.value.hint)


def test_a_mixture_is_told_on_the_page(tmp_path: Path) -> None:
    one = ran_with(tmp_path / "one", "2.12.0", "2.12.0")
    assert mixture(one) == ""
    both = ran_with(tmp_path / "both", "2.12.0", "2.13.0", "2.13.0")
    told = "The runs were made with different versions: torch 2.12.0 in 1 runs, 2.13.0 in 2 runs."
    assert mixture(both) == told
    assert told in str(make_page(both, Steering()))
    assert told not in str(make_page(one, Steering()))
