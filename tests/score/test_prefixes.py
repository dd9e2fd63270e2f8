"""Every token that is needed is run, in its own context, and shared prefixes only once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.score.prefixes import Extend, PrefixPasses, SideBySide, Tree, distinct_rows, lay_out


def play(inputs: list[Any], first: list[int], budget: int) -> tuple[dict[int, dict[int, Any]], int]:
    """Carry a schedule out on paper: what each needed token would attend to, and the cost."""
    seen: dict[int, dict[int, Any]] = {i: {} for i in range(len(inputs))}
    cached: list[int] = []
    cost = 0
    for step in PrefixPasses(inputs, first, budget).steps():
        if isinstance(step, Extend):
            cached = [*cached[: step.keep], *step.tokens.tolist()]
            cost += len(step.tokens)
        elif isinstance(step, SideBySide):
            for member in step.members:
                row = inputs[member].tolist()
                seen[member] = {at: row[: at + 1] for at in range(len(row))}
                cost += len(row)
        else:
            layout = lay_out(inputs, step)
            cost += len(layout.tokens)
            for member, path in layout.paths.items():
                for at, flat in enumerate(path):
                    visible = np.flatnonzero(layout.sees[flat])
                    order = np.argsort(layout.depths[visible], kind="stable")
                    context = cached[: step.base] + layout.tokens[visible][order].tolist()
                    seen[member][step.base + at] = context
                    assert layout.depths[flat] == step.base + at
    return seen, cost


token = st.integers(0, 2)
row = st.lists(token, min_size=1, max_size=12)


@given(
    shared=st.lists(token, min_size=0, max_size=90),
    rows=st.lists(row, min_size=1, max_size=14),
    budget=st.integers(1, 120),
)
def test_needed_tokens_see_exactly_their_own_prefix(
    shared: list[int], rows: list[list[int]], budget: int
) -> None:
    half = len(rows) // 2
    lists = [[*shared, *r] if i >= half else r for i, r in enumerate(rows)]
    inputs, _ = distinct_rows([np.array(r) for r in lists])
    first = [max(0, len(r) - 3) for r in inputs]
    seen, cost = play(inputs, first, budget)
    for index, tokens in enumerate(inputs):
        for at in range(first[index], len(tokens)):
            assert seen[index][at] == tokens[: at + 1].tolist()
    assert cost <= sum(len(r) for r in inputs)


def test_a_preamble_is_run_once_for_all_its_questions() -> None:
    random = np.random.default_rng(0)
    preamble = random.integers(0, 1000, 500)
    stems = [np.concatenate([preamble, random.integers(0, 1000, 80)]) for _ in range(30)]
    inputs, _ = distinct_rows(stems)
    _, cost = play(inputs, [len(r) - 1 for r in inputs], 512)
    assert cost <= 500 + 30 * 80


def test_endings_share_their_stem_without_a_cache() -> None:
    random = np.random.default_rng(0)
    stem = random.integers(0, 1000, 300)
    inputs, _ = distinct_rows(
        [np.concatenate([stem, random.integers(0, 1000, 8)]) for _ in range(4)]
    )
    steps = list(PrefixPasses(inputs, [299] * 4, 512).steps())
    assert [type(step) for step in steps] == [Tree]
    assert len(lay_out(inputs, steps[0]).tokens) == 300 + 4 * 8


def test_unrelated_rows_of_like_length_run_side_by_side() -> None:
    random = np.random.default_rng(0)
    inputs, _ = distinct_rows([random.integers(0, 1000, 50 + n) for n in range(10)])
    steps = list(PrefixPasses(inputs, [0] * 10, 256).steps())
    assert all(isinstance(step, SideBySide) for step in steps)
    for step in steps:
        assert len(step.members) * max(len(inputs[m]) for m in step.members) <= 256
