"""`doctor` prints a line for every check."""

from __future__ import annotations

from harness.doctor import examine
from tests.cli.terminal import shown


def test_doctor_prints_every_check_and_what_it_found() -> None:
    text = shown("doctor")
    for check in examine():
        assert check.name in text
        assert check.found.split(",")[0] in text
