"""Likelihood: log-probabilities of chosen tokens of many sequences, each prefix run once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from harness.errors import DivergedError
from harness.records.events import Progress
from harness.score.body import Body, RowsBody, TreeBody, WholeBody
from harness.score.prefixes import (
    Extend,
    Idle,
    IntArray,
    PrefixPasses,
    SideBySide,
    Tree,
    distinct_rows,
    foreign_tokens,
    lay_out,
)
from harness.score.probe import (
    BRANCH,
    find_ways,
    is_exact,
    same,
    soft_prompt_tokens,
    stretches_after,
)
from harness.spec.model import context_of

FloatArray = npt.NDArray[np.float64]
CPU_BUDGET = 512  # more gains no speed on a CPU and costs memory
LONGER = 1.25  # times the longest sequence compared so far: then one is compared again
COMPARED = 16  # targets of it
ANY_TOKEN = np.zeros(1, np.int64)
NATS = 1e-3  # by which its float32 log-probabilities may differ


@dataclass(frozen=True, eq=False)
class Query:
    """Which tokens of one sequence are asked for.

    ``tokens`` [n]; ``targets`` [m] indices into it, rising, each at least 1.
    """

    tokens: IntArray
    targets: IntArray


@dataclass(frozen=True, eq=False)
class TargetScores:
    """Log-probabilities [m] of a query's targets, and whether each was the likeliest token."""

    log_probs: FloatArray
    greedy: npt.NDArray[np.bool_]


@dataclass
class _Seen:
    """What is seen of a set of queries while it is answered, to be compared.

    ``foreign`` is the most tokens of others before a query in its pass, ``due`` are the queries to
    be compared; ``states`` holds of each that was run here some positions and their hidden states,
    ``own`` the model's own logits of those that had a pass to themselves, which gives both.
    """

    foreign: int
    due: list[int]
    states: dict[int, tuple[IntArray, torch.Tensor]] = field(default_factory=dict)
    own: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass
class _Gathered:
    """Where the hidden states of one pass are needed: flat row, target token, query, slot."""

    rows: list[IntArray]
    targets: list[IntArray]
    slots: list[tuple[int, int]]


class Likelihood:
    """Answers queries about one model; sequences that share a prefix share its computation.

    The answers are the model's own: before anything is asked, short sequences are compared with
    its own forward pass; and whenever sequences get longer, the longest of them is. Where they
    differ, everything asked for is computed again with less sharing.

    Attributes:
        batch_tokens: tokens of one pass at most.
        context: positions the model was made for, less those of a soft prompt; None where its
            configuration does not say.
        computed_tokens: tokens run so far, padding included.
    """

    _compares_in_step = False  # whether several devices make every pass of a comparison

    def __init__(self, model: Any, batch_tokens: int, progress: Progress) -> None:
        """Look the model over. ``batch_tokens`` bounds the tokens of one pass."""
        ways = find_ways(model)
        self._body: Body = ways.bodies[0]
        self._others = list(ways.bodies[1:])
        self._reason = ways.reason
        self._stretches_after = stretches_after(model)
        self._exact = is_exact(model)
        self._compared = 0
        self._foreign = 0
        self._cpu = self._body.device.type == "cpu"
        self.batch_tokens = batch_tokens
        self._budget = min(batch_tokens, CPU_BUDGET) if self._cpu else batch_tokens
        self._progress = progress
        self._virtual_tokens = soft_prompt_tokens(model)
        limit = context_of(model.config)
        self.context: int | None = None if limit is None else limit - self._virtual_tokens
        self.computed_tokens = 0

    @property
    def details(self) -> dict[str, JsonValue]:
        """How sequences are run, and why not with less work; for the details of a score."""
        found: dict[str, JsonValue] = {"passes": self._body.way}
        if self._virtual_tokens:
            found["virtual_tokens"] = self._virtual_tokens
        return found if self._reason is None else {**found, "passes_reason": self._reason}

    @property
    def tree(self) -> TreeBody | None:
        """The model as what runs shared prefixes; None where it does not."""
        return self._body if isinstance(self._body, TreeBody) else None

    @property
    def reason(self) -> str | None:
        """Why sequences are run with more work than others."""
        return self._reason

    @property
    def pass_tokens(self) -> int:
        """Tokens of one pass at most, as this device runs them."""
        return self._budget

    @property
    def stretches_after(self) -> int | None:
        """See :func:`harness.score.probe.stretches_after`."""
        return self._stretches_after

    @property
    def progress(self) -> Progress:
        """Whom to tell how far it is."""
        return self._progress

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query]) -> list[TargetScores]:
        """The answers, in order.

        Raises:
            DivergedError: a log-probability is not a finite number.
        """
        answers = [
            TargetScores(np.zeros(len(q.targets)), np.zeros(len(q.targets), np.bool_))
            for q in queries
        ]
        apart = self._stretched(queries)
        together = [index for index in range(len(queries)) if index not in set(apart)]
        self._answer_compared(*_of(together, queries, answers))
        self._answer_apart(*_of(apart, queries, answers))
        for answer in answers:
            if not np.isfinite(answer.log_probs).all():
                raise DivergedError("a log-likelihood is not a finite number")
        return answers

    def _stretched(self, queries: Sequence[Query]) -> list[int]:
        """Queries whose positions depend on the length of the pass, shortest first."""
        limit = self._stretches_after
        if limit is None:
            return []
        sizes = {index: len(query.tokens) - 1 for index, query in enumerate(queries)}
        return sorted((i for i, size in sizes.items() if size >= limit), key=sizes.__getitem__)

    def _answer_compared(self, queries: Sequence[Query], answers: Sequence[TargetScores]) -> None:
        """Fill in answers; with less sharing if some differ from the model's own.

        The longest is compared, and the one that lies deepest in a tree.
        """
        seen = self._fill(self._body, queries, answers)
        while self._others and seen.due:
            # every one of them, since devices that share a model run it in step
            found = [self._is_own(q, queries[q], answers[q], seen) for q in seen.due]
            if self._agreed(all(found)):
                longest = max(len(queries[query].tokens) for query in seen.due)
                self._compared = max(self._compared, longest)
                self._foreign = max(self._foreign, seen.foreign)
                return
            self._reason = (
                f"{self._body.way} differ from the model's own forward pass at "
                f"{max(len(queries[query].tokens) for query in seen.due)} tokens"
            )
            self._body = self._others.pop(0)
            seen = self._fill(self._body, queries, answers)

    def _due(self, queries: Sequence[Query], foreign: int, deepest: int) -> list[int]:
        """The longest query and the deepest, where they go beyond what was compared before."""
        sizes = [len(query.tokens) for query in queries]
        longest = int(np.argmax(sizes)) if sizes else 0
        due = [longest] if sizes and sizes[longest] > LONGER * self._compared else []
        return [*due, deepest] if foreign > LONGER * self._foreign else due

    def _is_own(self, index: int, query: Query, answer: TargetScores, seen: _Seen) -> bool:
        """Whether an answer is that of the model's own forward pass over the query alone.

        In 16 bits logits are compared, not the few log-probabilities that are asked for; another
        device compares those of a query that is not run here.
        """
        body = self._body
        if not isinstance(body, RowsBody):
            return True
        chosen, states = _some_targets(query), seen.states.get(index)
        targets = query.targets[chosen]
        own = seen.own.get(index)
        if own is None:
            places = targets - 1 if self._exact or states is None else states[0]
            own = body.own_logits(query.tokens[:-1], places)
            self.computed_tokens += len(query.tokens) - 1
        if self._exact:
            wanted = torch.from_numpy(query.tokens[targets]).to(own.device)
            found = torch.log_softmax(own.float(), dim=-1).gather(1, wanted[:, None])[:, 0]
            return _agree(answer.log_probs[chosen], found.double().cpu().numpy())
        if states is None or not bool(own.isfinite().all()):
            return True
        return same(body.logits(states[1]), own, exact=False)

    def _answer_apart(self, queries: Sequence[Query], answers: Sequence[TargetScores]) -> None:
        """Fill in answers of rising length, each by a pass of its own.

        A rotary embedding that stretches keeps the longest length it has seen until a short
        sequence comes, so one comes first.
        """
        if not queries:
            return
        whole = next(b for b in (self._body, *self._others) if isinstance(b, WholeBody))
        whole.run_rows([queries[0].tokens[:1]])
        self._reason = self._reason or (
            f"sequences of {self._stretches_after} tokens and more were run one at a time: "
            "their positions depend on their length"
        )
        for query, answer in zip(queries, answers, strict=True):
            self._fill(whole, [query], [answer])

    def _fill(self, body: Body, queries: Sequence[Query], answers: Sequence[TargetScores]) -> _Seen:
        """Fill in answers by passes over the distinct inputs of all queries."""
        inputs, members = distinct_rows([query.tokens[:-1] for query in queries])
        first = [min(int(queries[q].targets[0]) - 1 for q in asked) for asked in members]
        every = list(self._steps(body, inputs, first))
        foreign, member = max(foreign_tokens(every, inputs), default=(0, 0))
        deepest = members[member][0] if members else 0
        seen = _Seen(foreign, self._due(queries, foreign, deepest))
        steps, total = self._chosen(every, inputs)
        done, told = 0, 0.0
        cache, filled = None, list[int]()
        with body.expecting(_shapes(steps, inputs)):
            for step in steps:
                if isinstance(step, Extend):
                    cache = body.extend(cache if step.keep else None, step.keep, step.tokens)
                    self.computed_tokens += len(step.tokens)
                    done += len(step.tokens)
                elif isinstance(step, Idle):
                    body.run_rows([ANY_TOKEN])
                else:
                    hidden, paths = self._run_alone(
                        body, step, queries, members, seen
                    ) or self._run(body, step, inputs, cache)
                    wanted = _gather(step, paths, members, queries)
                    _read(body, hidden, wanted, answers)
                    _look(seen, step, paths, members, hidden)
                    filled += [query for query, _ in wanted.slots]
                    done += sum(len(inputs[member]) for member in step.members)
                if time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    self._progress.advance(min(done, total), total)
        self._complete(answers, filled)
        return seen

    def _chosen(
        self, steps: Sequence[Extend | Tree | SideBySide], inputs: Sequence[IntArray]
    ) -> tuple[Sequence[Extend | Tree | SideBySide | Idle], int]:
        """The passes to run here, and the tokens of all inputs in them."""
        return steps, sum(len(row) for row in inputs)

    def _complete(self, answers: Sequence[TargetScores], filled: Sequence[int]) -> None:
        """Fill in the answers that are not among ``filled``: there are none."""

    def _agreed(self, found: bool) -> bool:  # noqa: FBT001 - what was found
        """A decision that holds wherever the passes are run."""
        return found

    def _steps(
        self, body: Body, inputs: Sequence[IntArray], first: Sequence[int]
    ) -> Iterable[Extend | Tree | SideBySide]:
        schedule = PrefixPasses(inputs, first, self._budget)
        if body.takes_trees:
            return schedule.steps()
        if body.takes_rows:
            return schedule.side_by_side(range(len(inputs)))
        return (SideBySide((index,)) for index in range(len(inputs)))

    def _run_alone(
        self,
        body: Body,
        step: Tree | SideBySide,
        queries: Sequence[Query],
        members: list[list[int]],
        seen: _Seen,
    ) -> tuple[torch.Tensor, dict[int, tuple[int, IntArray]]] | None:
        """What `_run` gives of a query to be compared that has the pass to itself; else None."""
        if self._compares_in_step or not isinstance(step, SideBySide) or len(step.members) > 1:
            return None
        (member,) = step.members
        asked = [query for query in members[member] if query in seen.due]
        if len(asked) != 1 or not isinstance(body, RowsBody):
            return None
        query = queries[asked[0]]
        row = query.tokens[:-1]
        places = query.targets[_some_targets(query)] - 1
        places = places if self._exact else _two_stretches(len(row))
        self.computed_tokens += len(row)
        hidden, seen.own[asked[0]] = body.run_alone(row, places)
        return hidden, {member: (0, np.arange(len(row)))}

    def _run(
        self, body: Body, step: Tree | SideBySide, inputs: Sequence[IntArray], cache: Any
    ) -> tuple[torch.Tensor, dict[int, tuple[int, IntArray]]]:
        """Hidden states [tokens, width], and for each member its offset and flat indices."""
        if isinstance(step, Tree):
            layout = lay_out(inputs, step)
            self.computed_tokens += len(layout.tokens)
            hidden = body.run_tree(cache if step.base else None, step.base, layout)
            return hidden, {member: (step.base, path) for member, path in layout.paths.items()}
        rows = [inputs[member] for member in step.members]
        width = max(len(row) for row in rows)
        self.computed_tokens += width * len(rows)
        hidden = body.run_rows(rows)
        return hidden, {
            member: (0, np.arange(i * width, i * width + len(inputs[member])))
            for i, member in enumerate(step.members)
        }


def _shapes(
    steps: Sequence[Extend | Tree | SideBySide | Idle], inputs: Sequence[IntArray]
) -> list[tuple[int, int]]:
    """Rows and tokens of each of the padded passes."""
    apart = [step.members for step in steps if isinstance(step, SideBySide)]
    return [(len(members), max(len(inputs[member]) for member in members)) for members in apart]


def _read(
    body: Body, hidden: torch.Tensor, wanted: _Gathered, answers: Sequence[TargetScores]
) -> None:
    """Fill in answers from hidden states; logits exist for a few positions at a time."""
    rows, targets = np.concatenate(wanted.rows), np.concatenate(wanted.targets)
    log_probs, greedy = body.log_probs(hidden, rows, targets)
    start = 0
    for query, size in wanted.slots:
        answers[query].log_probs[:] = log_probs[start : start + size]
        answers[query].greedy[:] = greedy[start : start + size]
        start += size


def _of(
    chosen: Sequence[int], queries: Sequence[Query], answers: Sequence[TargetScores]
) -> tuple[list[Query], list[TargetScores]]:
    return [queries[index] for index in chosen], [answers[index] for index in chosen]


def _some_targets(query: Query) -> IntArray:
    """Places of the targets that are compared."""
    return np.unique(np.linspace(0, len(query.targets) - 1, COMPARED).astype(int))


def _two_stretches(count: int) -> IntArray:
    """Of so many positions some from all over, then the last ones, which a wrong mask upsets."""
    early = max(0, count - BRANCH)
    spread = np.linspace(0, early - 1, BRANCH).astype(np.int64) if early > BRANCH else range(early)
    return np.array([*spread, *range(early, count)], np.int64)


def _look(
    seen: _Seen,
    step: Tree | SideBySide,
    paths: dict[int, tuple[int, IntArray]],
    members: list[list[int]],
    hidden: torch.Tensor,
) -> None:
    """Keep hidden states of the queries in a pass that are to be compared."""
    for member in step.members:
        for query in set(members[member]).intersection(seen.due):
            base, path = paths[member]
            chosen = _two_stretches(len(path))
            rows = torch.from_numpy(path[chosen]).to(hidden.device)
            seen.states[query] = (base + chosen, hidden[rows])


def _agree(ours: FloatArray, own: FloatArray) -> bool:
    """Whether log-probabilities agree to the rounding of float32."""
    return bool(np.allclose(ours, own, rtol=NATS, atol=NATS, equal_nan=True))


def _gather(
    step: Tree | SideBySide,
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
