"""Answers: greedy continuations of many prompts; what prompts share is run once, in few passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from harness.records.events import Progress
from harness.score.body import TreeBody
from harness.score.likelihood import COMPARED, NATS
from harness.score.prefixes import MIN_SHARED, IntArray, Tree, common_prefix, lay_out
from harness.score.probe import CANNOT, ROUGH, is_exact
from harness.score.rows import SHORT, Rows
from harness.score.steps import Steps

MOST_ROWS = {"cpu": 16, "cuda": 64}  # answered side by side
CACHE_BYTES = {"cpu": 512 << 20, "cuda": 4 << 30}  # of the keys and values of all rows
FEWEST_IN_GROUP = 8  # prompts that are worth a prefix of their own
REFILL = 8  # this part of all rows is worth a pass over new prompts while the others wait


@dataclass(frozen=True, eq=False)
class Ask:
    """A prompt to continue.

    ``prompt`` [n] tokens, at least one; at most ``limit`` new ones. ``over`` is told the new
    tokens and how many of them it has seen before; it says after how many the answer is over.
    """

    prompt: IntArray
    limit: int
    over: Callable[[list[int], int], int | None]


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts, by their places in a sorted list, whose first ``prefix`` tokens are the same."""

    members: tuple[int, ...]
    prefix: int


class Answers:
    """Continues prompts of one model; see :class:`harness.score.rows.Rows`.

    Attributes:
        reason: why it could not; None where it could.
    """

    def __init__(self, body: TreeBody, pass_tokens: int, progress: Progress) -> None:
        """``pass_tokens`` bounds the tokens of one pass over prompts."""
        self._body = body
        self._pass_tokens = pass_tokens
        self._progress = progress
        self._told = 0.0
        self.reason: str | None = None
        self._most = _most_rows(body.device)

    def answered(self, asks: Sequence[Ask]) -> list[list[int]] | None:
        """See :meth:`answer`; None, and a ``reason``, where the model cannot be run so."""
        try:
            return self.answer(asks)
        except torch.OutOfMemoryError:
            raise
        except CANNOT as error:
            said = str(error).splitlines()
            self.reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
        return None

    @torch.inference_mode()
    def answer(self, asks: Sequence[Ask]) -> list[list[int]]:
        """New tokens of each prompt, in order, with the one that ended it.

        Raises:
            ValueError: the model attends in a way that rows cannot follow, or some answers are
                not the model's own.
        """
        order = sorted(range(len(asks)), key=lambda index: asks[index].prompt.tolist())
        found: list[list[int]] = [[] for _ in asks]
        done, last = 0, 0
        for group in prefix_groups([asks[index].prompt for index in order]):
            members = [order[place] for place in group.members]
            inside = [asks[index] for index in members]
            for place, tokens in _Going(self._body, inside, group.prefix, self._pass_tokens).run():
                last, done = members[place], done + 1
                found[last] = tokens
                self._tell(done, len(asks))
        if asks:
            longest = max(range(len(asks)), key=lambda i: len(asks[i].prompt) + len(found[i]))
            reused = len(asks) > self._most
            for index in {longest, last} if reused else {longest}:
                self._compare(asks[index], found[index])
        return found

    def _compare(self, ask: Ask, tokens: Sequence[int]) -> None:
        """Hold an answer to the model's own forward pass over the whole of it."""
        chosen = np.unique(np.linspace(0, len(tokens) - 1, COMPARED).astype(int))
        row = np.concatenate([ask.prompt, np.array(tokens[:-1], np.int64)])
        logits = self._body.own_logits(row, chosen + len(ask.prompt) - 1).float()
        taken = torch.tensor([tokens[place] for place in chosen], device=logits.device)
        best = logits.amax(-1)
        gaps = (best - logits.gather(1, taken[:, None])[:, 0]).double()
        if is_exact(self._body.model):
            fine = bool((gaps <= NATS * best.abs().clamp(min=1)).all())
        else:
            fine = bool((gaps / logits.double().std(-1)).mean() <= ROUGH)
        if not fine and bool(best.isfinite().all()):
            msg = f"an answer after {len(ask.prompt)} tokens is not the model's own"
            raise ValueError(msg)

    def _tell(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > 0.5:
            self._told = time.monotonic()
            self._progress.advance(done, total)


def _most_rows(device: torch.device) -> int:
    return MOST_ROWS.get(device.type, MOST_ROWS["cpu"])


def _cache_bytes(device: torch.device) -> int:
    """Bytes that rows may take: no more than half of what a GPU has left."""
    if device.type != "cuda":
        return CACHE_BYTES["cpu"]
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(CACHE_BYTES["cuda"], (torch.cuda.mem_get_info(device)[0] + unused) // 2)


def prefix_groups(inputs: Sequence[IntArray]) -> list[PrefixGroup]:
    """Divide sorted prompts so that many share a long prefix; one token of each is left over."""
    common = [0, *(common_prefix(a, b) for a, b in pairwise(inputs))]
    found: list[PrefixGroup] = []
    parts = [(0, len(inputs))] if inputs else []
    while parts:
        low, high = parts.pop()
        prefix = _shared(inputs, common, low, high)
        edges = [i for i in range(low + 1, high) if common[i] <= prefix]
        children = list(zip([low, *edges], [*edges, high], strict=True))
        large = [
            (a, b)
            for a, b in children
            if b - a >= FEWEST_IN_GROUP and _shared(inputs, common, a, b) >= prefix + MIN_SHARED
        ]
        parts += large
        rest = [i for a, b in children if (a, b) not in large for i in range(a, b)]
        if rest:
            found.append(PrefixGroup(tuple(rest), prefix if prefix >= MIN_SHARED else 0))
    return found


def _shared(inputs: Sequence[IntArray], common: Sequence[int], low: int, high: int) -> int:
    return min([len(row) - 1 for row in inputs[low:high]] + list(common[low + 1 : high]))


@dataclass
class _Row:
    """A prompt being answered: which, and the new tokens so far."""

    asked: int
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Begun:
    """Prompts that were run: where the tokens of each lie beyond the prefix, and its next one."""

    members: tuple[int, ...]
    paths: list[IntArray]
    first: torch.Tensor


class _Going:
    """One group being answered: rows leave when their answer is over, and the next ones enter."""

    def __init__(self, body: TreeBody, asks: Sequence[Ask], prefix: int, budget: int) -> None:
        """Run the first prompts and what all share: in one pass, if they fit into one."""
        self._body, self._asks, self._prefix, self._budget = body, asks, prefix, budget
        self._prompts = [ask.prompt for ask in asks]
        self._waiting = list(range(len(asks)))[::-1]
        self._room = max(map(len, self._prompts)) - prefix + SHORT + max(ask.limit for ask in asks)
        self._places: list[_Row | None] = [None] * self._number()
        self._cache: Any = DynamicCache()
        base = 0 if self._fits_one_pass() else prefix
        if base:
            self._cache = body.extend(self._cache, 0, self._prompts[0][:base])
        self._begun = self._run_next(base)
        self._rows = Rows(body, self._cache, prefix, len(self._places), self._room)
        self._steps = Steps(body, self._rows)

    def run(self) -> Iterator[tuple[int, list[int]]]:
        """Places of prompts with their answers, as they are done."""
        yield from self._enter(self._begun)
        while self._waiting or any(self._places):
            if self._is_room():
                yield from self._enter(self._run_next(self._prefix))
            if any(self._places):
                yield from self._go_on()

    def _number(self) -> int:
        """Rows that are answered side by side."""
        fit = _cache_bytes(self._body.device) // (self._body.token_bytes() * self._room)
        return min(_most_rows(self._body.device), len(self._asks), max(1, fit))

    def _fits_one_pass(self) -> bool:
        """Whether the prefix and the prompts of the first rows are few enough tokens."""
        first = self._prompts[: len(self._places)]
        return self._prefix + sum(len(row) - self._prefix for row in first) <= self._budget

    def _is_room(self) -> bool:
        """Whether as many rows are free as are worth a pass over new prompts."""
        free = self._places.count(None)
        worth = max(1, min(len(self._places) // REFILL, len(self._waiting)))
        return bool(self._waiting) and free >= worth

    def _run_next(self, base: int) -> _Begun:
        """Run the next prompts in one pass, from their first ``base`` tokens on."""
        members = self._next()
        layout = lay_out(self._prompts, Tree(base, members))
        states = self._body.run_tree(self._cache, base, layout)
        paths = [layout.paths[member] for member in members]
        ends = torch.tensor([int(path[-1]) for path in paths], device=states.device)
        first = self._body.logits(states[ends]).argmax(-1)
        beyond = self._prefix - base  # the first prompt's, from the first place of the pass on
        return _Begun(members, [path[beyond:] - beyond for path in paths], first)

    def _enter(self, begun: _Begun) -> Iterator[tuple[int, list[int]]]:
        """Let the rows of prompts that were run begin."""
        free = [place for place, row in enumerate(self._places) if row is None]
        places = free[: len(begun.members)]
        self._rows.enter(places, self._cache, begun.paths, begun.first)
        for place, member, token in zip(places, begun.members, begun.first.tolist(), strict=True):
            self._places[place] = _Row(member)
            yield from self._take(place, [token])

    def _next(self) -> tuple[int, ...]:
        """The next prompts that fit the free rows and one pass; at least one."""
        found: list[int] = []
        tokens = 0
        while self._waiting and len(found) < self._places.count(None):
            prompt = self._prompts[self._waiting[-1]]
            known = common_prefix(self._prompts[found[-1]], prompt) if found else self._prefix
            tokens += len(prompt) - known
            if found and tokens > self._budget:
                break
            found.append(self._waiting.pop())
        return tuple(found)

    def _go_on(self) -> Iterator[tuple[int, list[int]]]:
        """A few more tokens for every row."""
        if not self._waiting:
            self._close_up()
        going = {place: row for place, row in enumerate(self._places) if row is not None}
        left = max(self._asks[row.asked].limit - len(row.tokens) for row in going.values())
        sizes = [self._size(row) for row in going.values()]
        with self._rows.open():
            found = self._steps.take(max(going) + 1, min(left, self._steps.at_once), max(sizes))
        for place in going:
            yield from self._take(place, found[place])

    def _size(self, row: _Row) -> int:
        """Own tokens of a row, its newest included."""
        return len(self._prompts[row.asked]) - self._prefix + len(row.tokens)

    def _take(self, place: int, tokens: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Add tokens to a row; if its answer is over, it leaves."""
        row = self._places[place]
        if row is None:
            return
        ask, seen = self._asks[row.asked], len(row.tokens)
        row.tokens = [*row.tokens, *tokens][: ask.limit]
        end = ask.over(row.tokens, seen)
        if end is None and len(row.tokens) < ask.limit:
            return
        self._places[place] = None
        yield row.asked, row.tokens[:end]

    def _close_up(self) -> None:
        """Let the last rows take the places of those that left."""
        going = [place for place, row in enumerate(self._places) if row is not None]
        holes = [place for place in range(len(going)) if self._places[place] is None]
        moved = going[len(going) - len(holes) :]
        if holes:
            self._rows.move(moved, holes)
        for source, target in zip(moved, holes, strict=True):
            self._places[target], self._places[source] = self._places[source], None
