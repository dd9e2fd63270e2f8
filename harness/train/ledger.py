"""Ledger: the account that a training loop keeps of its steps, and the result made of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import DivergedError
from harness.measure.throughput import throughput
from harness.records.record import LossPoint, Tokens, TrainResult
from harness.train.collate import assistant_tokens

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRow
    from harness.records.events import Progress
    from harness.spec.plan import Plan


@dataclass(frozen=True)
class StepTokens:
    """Token counts of one optimizer step.

    ``pairs`` are the pairs of tokens of one conversation, the sum of its squared lengths: what
    attention works on, however conversations are put into rows.
    """

    assistant: int
    non_padding: int
    padded: int
    pairs: int

    @classmethod
    def of(cls, rows: Sequence[TrainingRow], micro_batch_size: int | None) -> StepTokens:
        """Count ``rows`` (one whole step).

        Micro-batches of ``micro_batch_size`` rows are padded to their longest; None: no padding.
        """
        sizes = [len(row.input_ids) for row in rows]
        micro = micro_batch_size or 1
        micros = [sizes[start : start + micro] for start in range(0, len(sizes), micro)]
        return cls(
            assistant=sum(assistant_tokens(row) for row in rows),
            non_padding=sum(sizes),
            padded=sum(max(part) * len(part) for part in micros),
            pairs=sum(length**2 for row in rows for length in row.lengths),
        )


class Ledger:
    """Collects loss points, refuses losses that are not finite and reports progress."""

    def __init__(
        self,
        tokens: Sequence[StepTokens],
        progress: Progress,
        points: Sequence[LossPoint] = (),
        share: int = 1,
    ) -> None:
        """Keep account of ``len(tokens)`` steps, ``points`` of which were done earlier.

        Of the seconds of a step that ``share`` trainings take together, each counts its part.
        """
        self._tokens = tokens
        self._progress = progress
        self._share = share
        self.points = list(points)
        self._started = time.perf_counter()

    @property
    def done(self) -> int:
        """Steps done so far."""
        return len(self.points)

    @property
    def tokens(self) -> int:
        """Non-padding tokens trained on so far."""
        return sum(point.non_padding_tokens for point in self.points)

    def start_step(self) -> None:
        """Start the clock of the next step."""
        self._started = time.perf_counter()

    def check(self, loss: float) -> float:
        """Return ``loss``.

        Raises:
            DivergedError: it is not a finite number.
        """
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss at step {self.done + 1} is {loss}",
                where=f"step {self.done + 1} of {len(self._tokens)}",
                expected="a finite number",
                hint="lower training.learning_rate, or use bfloat16 instead of float16",
            )
        return loss

    def finish_step(self, loss: float, learning_rate: float, grad_norm: float | None) -> None:
        """Enter one finished step (device work included: synchronize before)."""
        tokens = self._tokens[self.done]
        seconds = (time.perf_counter() - self._started) / self._share
        finite = grad_norm is not None and math.isfinite(grad_norm)
        self.points.append(
            LossPoint(
                step=self.done + 1,
                loss=self.check(loss),
                learning_rate=learning_rate,
                grad_norm=grad_norm if finite else None,
                seconds=seconds,
                non_padding_tokens=tokens.non_padding,
            )
        )
        self._progress.advance(
            self.done,
            len(self._tokens),
            loss=loss,
            tokens_per_second=tokens.non_padding / seconds if seconds > 0 else 0.0,
        )
        self._started = time.perf_counter()

    def result(
        self,
        trainer: str,
        truncated_tokens: int,
        compile_seconds: float | None = None,
        plan: Plan | None = None,
    ) -> TrainResult:
        """What training did; with ``plan`` also how many operations per second that was."""
        seen = self._tokens[: self.done]
        assistant = sum(step.assistant for step in seen)
        non_padding = sum(step.non_padding for step in seen)
        return TrainResult(
            steps=self.done,
            tokens=Tokens(
                assistant=assistant,
                non_padding=non_padding,
                padded=sum(step.padded for step in seen),
                truncated=truncated_tokens,
            ),
            losses=tuple(self.points),
            throughput=throughput(
                self.points,
                plan,
                labelled_share=assistant / max(non_padding, 1),
                context=sum(step.pairs for step in seen) / max(non_padding, 1),
            ),
            compile_seconds=compile_seconds,
            trainer=trainer,
            kept_layers=_kept_layers(plan),
        )


def _kept_layers(plan: Plan | None) -> int | None:
    """Layers that kept what they computed, where others are computed again."""
    if plan is None or not plan.training.gradient_checkpointing:
        return None
    return plan.training.kept_layers if plan.training.speed == "fast" else None
