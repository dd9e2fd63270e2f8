"""Resident memory of forked runs lacks pages that others have, and the report says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.report.blocks import Section
from harness.report.costs import memory_section, time_section
from harness.report.evidence import Evidence
from harness.spec.device import Device
from harness.spec.storage import read_json, write_json
from tests.report.records import CPU, GPU, Made, build_from, write_run

MakeSection = Callable[[Evidence], Section | None]


def said(
    root: Path, *warm: bool, device: Device = CPU, section_of: MakeSection = memory_section
) -> str:
    """The words of the section for runs that were forked or not."""
    for variant, forked in zip(("lora_bf16", "qlora_nf4"), warm, strict=True):
        path = write_run(root, Made(variant, device=device)) / "record.json"
        write_json(path, read_json(path, RunRecord).model_copy(update={"warm": forked}))
    section = section_of(build_from(root).evidence)
    assert section is not None
    return " ".join(getattr(block, "text", "") for block in section.blocks)


def test_forked_runs_beside_others_are_named(tmp_path: Path) -> None:
    text = said(tmp_path, False, True)
    assert "had loaded all libraries: qlora_nf4." in text
    assert "reads lower" in text


@pytest.mark.parametrize("warm", [(False, False), (True, True)])
def test_where_all_are_alike_there_is_nothing_to_say(
    tmp_path: Path, warm: tuple[bool, ...]
) -> None:
    assert "Forked" not in said(tmp_path, *warm)


def test_memory_of_a_gpu_holds_no_libraries(tmp_path: Path) -> None:
    assert "Forked" not in said(tmp_path, False, True, device=GPU)


def test_the_time_of_forked_runs_lacks_the_loading_of_libraries(tmp_path: Path) -> None:
    text = said(tmp_path / "mixed", False, True, device=GPU, section_of=time_section)
    assert "had loaded all libraries: qlora_nf4. Their run time in the ranking lacks" in text
    for at, alike in enumerate([(False, False), (True, True)]):
        assert "Forked" not in said(tmp_path / str(at), *alike, section_of=time_section)
