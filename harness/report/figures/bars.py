"""Bars: one variant's values for the parts of a figure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.figures.canvas import Mark


@dataclass(frozen=True)
class Bar:
    """One variant's parts, in the order of the drawing's ``parts``; None is not measured."""

    label: str
    mark: Mark
    values: tuple[float | None, ...]
    beside: tuple[float | None, ...] = ()
    total: str = ""
