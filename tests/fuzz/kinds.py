"""Kinds: what is tried, and the damage that is done to it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from tests.cli.terminal import harness

Try = Callable[[random.Random, Path], None]
KINDS: dict[str, tuple[float, Try]] = {}
"""What is tried, and its share of all inputs. Other rooms add theirs with :func:`kind`."""


def kind(share: float) -> Callable[[Try], Try]:
    """Register a function that makes one input in an empty folder and asserts what must hold."""

    def register(try_one: Try) -> Try:
        KINDS[try_one.__name__] = (share, try_one)
        return try_one

    return register


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes cut out, doubled or put in, digits exchanged, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(changed) + 1)
        length = chance.choice((1, 2, 8, 60))
        way = chance.randrange(7)
        if way == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << chance.randrange(8)
        elif way == 1:
            del changed[place : place + length]
        elif way == 2:
            changed[place:place] = changed[place : place + length]
        elif way == 3:
            changed[place:place] = chance.choice(PIECES)
        elif way == 4 and chance.random() < 0.3:
            del changed[place:]
        elif digits := [match.start() for match in DIGIT.finditer(changed)]:
            changed[chance.choice(digits)] = chance.choice(b"0123456789")  # still well formed
    return bytes(changed)


DIGIT = re.compile(rb"\d")
PIECES = (
    b"\x00", b"\x1b[2J", b"\xff", b"\xc2\x9b", "\u202e".encode(), b"((", b"[" * 3000, b"{}", b"-1",
    b"0", b"1e999", b"nan", b"-inf", b"9" * 400, b'""', b"null", b"true", b"\n[x]\n", b"\n", b"=",
    b"../..", b"none", b"user:token@", b'"""', b"a.b.c.d.e.f.g.h.i", b"1979-05-27", b"\\u0000",
)  # fmt: skip


def command(*arguments: str, codes: tuple[int, ...] = (0, 2)) -> str:
    """Run the command line; it must end with one of ``codes``, say why, and steer no terminal."""
    done = harness(*arguments)
    text = done.stdout + done.stderr
    assert done.code in codes, f"exit code {done.code}: {text[:600]}"
    assert done.code == 0 or done.stderr.strip(), "a failure that says nothing"
    steering = re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert steering is None, f"{steering[0]!r} reaches the terminal"
    return done.stdout
