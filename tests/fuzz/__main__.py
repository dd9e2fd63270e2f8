"""Fuzz: thousands of damaged inputs; none may end in a traceback, a wrong exit code or a number.

Usage: python -m tests.fuzz [--seed N] [--count N] [--only KIND] [--first N]

Every input has a seed of its own, which is printed where something goes wrong:
``--seed S --only KIND --first N --count 1`` makes that input again.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from harness.errors import HarnessError
from tests.fuzz import given, kept, typed
from tests.fuzz.kinds import KINDS

ROOMS = (given, kept, typed)  # each registers its kinds


def try_one(name: str, seed: str) -> str | None:
    """What went wrong with one input, or None."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            KINDS[name][1](chance, Path(folder))
        except HarnessError as error:
            return f"an error that nobody handled: {error!r}"
        except Exception:  # noqa: BLE001 - the point of it all
            return traceback.format_exc(limit=-8)
        finally:
            os.chdir(before)
    return None


def main(arguments: list[str]) -> int:
    """Try all kinds; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=sorted(KINDS))
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}", flush=True)
    wrong = tried = 0
    for name, (share, _) in sorted(KINDS.items()):
        if asked.only not in (None, name):
            continue
        count = asked.count if asked.only else round(asked.count * share)
        started = time.perf_counter()
        for number in range(asked.first, asked.first + count):
            problem = try_one(name, f"{asked.seed}-{name}-{number}")
            if problem is not None:
                wrong += 1
                print(f"--seed {asked.seed} --only {name} --first {number} --count 1\n{problem}")
        tried += count
        print(f"{name}: {count} inputs in {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{tried} inputs, {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
