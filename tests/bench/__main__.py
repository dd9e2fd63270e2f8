"""Bench: what got slower since the numbers that are committed, each beside a peer's.

Run with ``nox -s bench``. A machine's own speed is in both sides of a ratio, so ratios of today are
compared with those of another day and another machine. ``--write`` puts today's in their place.
Exits with 1 where one got worse by more than ``--worse``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = Path(__file__).parent / "numbers.json"


def main() -> int:
    """Measure, compare, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--turns", type=int, default=5, help="medians of so many")
    options.add_argument("--worse", type=float, default=0.2, help="share that counts as slower")
    options.add_argument("--only", nargs="*", help="rows, by the start of their names")
    options.add_argument("--write", action="store_true", help="commit to today's ratios")
    chosen = options.parse_args()
    from tests.bench.rows import ROWS

    before: dict[str, float] = json.loads(NUMBERS.read_text("utf-8")) if NUMBERS.is_file() else {}
    found: dict[str, float] = {}
    for name, sides in ROWS.items():
        if not chosen.only or name.startswith(tuple(chosen.only)):
            found[name] = measured(name, *sides(), turns=chosen.turns)
    if chosen.write:
        NUMBERS.write_text(json.dumps({**before, **found}, indent=1) + "\n", encoding="utf-8")
    slower = worse(before, found, chosen.worse)
    for name in slower:
        print(f"slower: {name}: {found[name]:.2f} times the peer, before {before[name]:.2f}")
    if not slower:
        print("nothing got slower")
    return 1 if slower else 0


def measured(name: str, ours: Callable[[], Any], peer: Callable[[], Any], *, turns: int) -> float:
    """How many times as fast as the peer we are: medians of turns, the first left out."""
    times = [(_seconds(ours), _seconds(peer)) for _ in range(turns + 1)]
    own, other = (statistics.median(column) for column in zip(*times[1:], strict=True))
    print(f"{name:44}{own:9.3f} s{other:9.3f} s{other / own:8.2f} times", flush=True)
    return round(other / own, 3)


def worse(before: dict[str, float], found: dict[str, float], share: float) -> list[str]:
    """Rows whose ratio fell by more than ``share`` of what it was."""
    return [
        name
        for name, ratio in found.items()
        if name in before and ratio < before[name] * (1 - share)
    ]


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
