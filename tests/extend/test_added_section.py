"""To add a section, a kind of figure or a command: its own file, and a line where it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.store import RunStore
from tests.extend.overlay import Overlay, copy_harness
from tests.planned import planned
from tests.store_records import record_of

FIGURE = '''
"""Dots: a dot for every variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.figures.canvas import Axis, area, name_axes


@dataclass(frozen=True)
class Dots:
    """Values in the order of their labels."""

    x: Axis
    y: Axis
    values: tuple[float, ...]

    def paint(self, figure: Any) -> None:
        """One dot each."""
        axes = area(figure, 2.0, (0.75, 0.2, 0.55, 0.3))
        axes.plot(range(len(self.values)), self.values, "o")
        name_axes(axes, self.x, self.y)
'''

SECTION = '''
"""Sizes: how many bytes the weights of every variant take."""

from __future__ import annotations

from harness.report.blocks import Figure, Section, prose
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.dots import Dots


def sizes_section(evidence: Evidence) -> Section | None:
    """A sentence and a picture."""
    sizes = tuple(float(row.weight_bytes or 0) for row in evidence.rows)
    alt = f"{len(sizes)} variants"
    figure = Figure("sizes", "Sizes", alt, Dots(Axis("variant"), Axis("bytes"), sizes))
    return Section("sizes", "Sizes of weights", (prose("How large they are."), figure))
'''

COMMAND = '''
"""Greet: the command that greets."""

from __future__ import annotations

from harness.cli.app import out


def greet(name: str) -> None:
    """Say hello to NAME."""
    out.print(f"hello {name}")
'''


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return copy_harness(tmp_path)


def test_a_section_with_a_kind_of_figure_of_its_own(overlay: Overlay) -> None:
    report = overlay.package / "report"
    (report / "figures" / "dots.py").write_text(FIGURE)
    (report / "sizes.py").write_text(SECTION)
    line = "from harness.report.tradeoff import tradeoff_section\n"
    overlay.replace(
        "report/sections.py", line, f"from harness.report.sizes import sizes_section\n{line}"
    )
    overlay.replace(
        "report/sections.py", "    ranking_section,\n", "    ranking_section,\n    sizes_section,\n"
    )
    store = RunStore(overlay.folder / "reports" / "runs")
    for variant in ("base", "qlora_nf4"):
        store.write(record_of(planned(variant)))
    done = overlay.run("report", "--suite", "quick")
    assert done.returncode == 0, done.stderr
    folder = overlay.folder / "reports" / "quick"
    text = (folder / "report.md").read_text()
    assert text.index("## Ranking") < text.index("## Sizes of weights")
    assert "How large they are." in text
    assert (folder / "figures" / "sizes.svg").is_file()
    assert "Sizes of weights" in (folder / "report.html").read_text()
    assert "2 variants" in text


def test_a_command(overlay: Overlay) -> None:
    (overlay.package / "cli" / "greet.py").write_text(COMMAND)
    line = "from harness.cli.list import list_\n"
    overlay.replace("cli/__init__.py", line, f"from harness.cli.greet import greet\n{line}")
    overlay.replace("cli/__init__.py", "COMMANDS = (\n", "COMMANDS = (\n    greet,\n")
    assert "Say hello to NAME." in overlay.run("greet", "--help").stdout
    done = overlay.run("greet", "otter")
    assert (done.returncode, done.stdout) == (0, "hello otter\n")
