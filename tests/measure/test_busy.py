"""A person is told beforehand that costs measured on an overloaded machine are not comparable."""

from __future__ import annotations

import os

import pytest

from harness.measure.busy import said_busy


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (4.0, False), (6.1, True), (40.0, True)])
def test_a_load_well_above_the_cores_is_said(
    monkeypatch: pytest.MonkeyPatch, load: float, busy: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert (f"a load of {load} on 4 cores" in said_busy()) == busy
    assert ("will not be comparable" in said_busy()) == busy


def test_a_system_that_tells_no_load_is_not_called_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert said_busy() == ""
