"""Validator: takes validation losses while training pauses, metered apart and told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.records.validation import ValidationPoint
from harness.runs.draft import RunLog

if TYPE_CHECKING:
    from harness.measure.meter import Meter
    from harness.score.validation import ValidationLoss


class Validator:
    """What a training calls to be validated."""

    def __init__(self, loss: ValidationLoss, meter: Meter, log: RunLog) -> None:
        """Take ``loss`` at the cost of the phase "validate", and tell ``log``."""
        self.loss = loss
        self._meter = meter
        self._log = log

    def __call__(self, step: int, tokens: int) -> ValidationPoint:
        """Validate after ``step`` optimizer steps over ``tokens`` tokens."""
        self._log.start_validation(step)
        with self._meter.aside("validate"):
            started = time.perf_counter()
            loss = self.loss.take()
            seconds = time.perf_counter() - started
        point = ValidationPoint(step=step, tokens=tokens, loss=loss, seconds=seconds)
        self._log.end_validation(point)
        return point
