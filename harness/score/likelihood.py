"""Likelihood: log-probabilities of chosen tokens of many sequences, each prefix run once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.errors import DivergedError
from harness.records.events import Progress
from harness.score.body import Body, open_body
from harness.score.schedule import Extend, IntArray, Rows, Schedule, Tree, lay_out

FloatArray = npt.NDArray[np.float64]
CPU_BUDGET = 512  # more gains no speed on a CPU and costs memory


@dataclass(frozen=True, eq=False)
class Query:
    """Which tokens of one sequence are asked for.

    ``tokens`` [n]; ``targets`` [m] indices into it, rising, each at least 1.
    """

    tokens: IntArray
    targets: IntArray


@dataclass(frozen=True, eq=False)
class Answer:
    """Log-probabilities [m] of a query's targets, and whether each was the likeliest token."""

    log_probs: FloatArray
    greedy: npt.NDArray[np.bool_]


@dataclass
class _Gathered:
    """Where the hidden states of one pass are needed: flat row, target token, query, slot."""

    rows: list[IntArray]
    targets: list[IntArray]
    slots: list[tuple[int, int]]


class Likelihood:
    """Answers queries about one model; sequences that share a prefix share its computation.

    Attributes:
        context: positions the model was made for; None where its configuration does not say.
        computed_tokens: tokens run so far, padding included.
    """

    def __init__(self, model: Any, batch_tokens: int, progress: Progress) -> None:
        """Look the model over. ``batch_tokens`` bounds the tokens of one pass."""
        self._body: Body = open_body(model)
        self._cpu = self._body.device.type == "cpu"
        self._budget = min(batch_tokens, CPU_BUDGET) if self._cpu else batch_tokens
        self._progress = progress
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self.computed_tokens = 0

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """The answers, in order.

        Raises:
            DivergedError: a log-probability is not a finite number.
        """
        inputs, members = _distinct([query.tokens[:-1] for query in queries])
        first = [
            min(int(queries[q].targets[0]) - 1 for q in asked) if asked else 0 for asked in members
        ]
        answers = [
            Answer(np.zeros(len(q.targets)), np.zeros(len(q.targets), np.bool_)) for q in queries
        ]
        total, done, told = sum(len(row) for row in inputs), 0, 0.0
        cache = None
        for step in self._steps(inputs, first):
            if isinstance(step, Extend):
                cache = self._body.extend(cache if step.keep else None, step.keep, step.tokens)
                self.computed_tokens += len(step.tokens)
                done += len(step.tokens)
            else:
                hidden, paths = self._run(step, inputs, cache)
                wanted = _gather(step, paths, members, queries)
                self._read(hidden, wanted, answers)
                done += sum(len(inputs[member]) for member in step.members)
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                self._progress.advance(min(done, total), total)
        for answer in answers:
            if not np.isfinite(answer.log_probs).all():
                raise DivergedError("a log-likelihood is not a finite number")
        return answers

    def _steps(
        self, inputs: Sequence[IntArray], first: Sequence[int]
    ) -> Iterable[Extend | Tree | Rows]:
        if self._body.takes_trees:
            return Schedule(inputs, first, self._budget).steps()
        return (Rows((index,)) for index in range(len(inputs)))

    def _run(
        self, step: Tree | Rows, inputs: Sequence[IntArray], cache: Any
    ) -> tuple[torch.Tensor, dict[int, tuple[int, IntArray]]]:
        """Hidden states [tokens, width], and for each member its offset and flat indices."""
        if isinstance(step, Tree):
            layout = lay_out(inputs, step)
            self.computed_tokens += len(layout.tokens)
            hidden = self._body.run_tree(cache if step.base else None, step.base, layout)
            return hidden, {member: (step.base, path) for member, path in layout.paths.items()}
        rows = [inputs[member] for member in step.members]
        width = max(len(row) for row in rows)
        self.computed_tokens += width * len(rows)
        hidden = self._body.run_rows(rows)
        return hidden, {
            member: (0, np.arange(i * width, i * width + len(inputs[member])))
            for i, member in enumerate(step.members)
        }

    def _read(self, hidden: torch.Tensor, wanted: _Gathered, answers: list[Answer]) -> None:
        """Fill in answers from hidden states; logits exist for a few positions at a time."""
        rows, targets = np.concatenate(wanted.rows), np.concatenate(wanted.targets)
        log_probs, greedy = self._body.log_probs(hidden, rows, targets)
        start = 0
        for query, size in wanted.slots:
            answers[query].log_probs[:] = log_probs[start : start + size]
            answers[query].greedy[:] = greedy[start : start + size]
            start += size


def _gather(
    step: Tree | Rows,
    paths: dict[int, tuple[int, IntArray]],
    members: list[list[int]],
    queries: Sequence[Query],
) -> _Gathered:
    gathered = _Gathered([], [], [])
    for member in step.members:
        base, path = paths[member]
        for q in members[member]:
            query = queries[q]
            gathered.rows.append(path[query.targets - 1 - base])
            gathered.targets.append(query.tokens[query.targets])
            gathered.slots.append((q, len(query.targets)))
    return gathered


def _distinct(rows: Iterable[IntArray]) -> tuple[list[IntArray], list[list[int]]]:
    """Distinct inputs in lexicographic order, and which queries use each."""
    found: dict[bytes, list[int]] = {}
    kept: dict[bytes, IntArray] = {}
    for index, row in enumerate(rows):
        key = row.astype(">u4").tobytes()
        found.setdefault(key, []).append(index)
        kept.setdefault(key, row)
    order = sorted(found)
    return [kept[key] for key in order], [found[key] for key in order]
