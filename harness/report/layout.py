"""Layout: labels that fit and do not overlap."""

from __future__ import annotations

from collections.abc import Sequence

LABEL_LENGTH = 32


def shorten(labels: Sequence[str], length: int = LABEL_LENGTH) -> dict[str, str]:
    """Labels that fit: the middle is left out of long ones, which stay distinct."""
    short: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        text, tail = _middle_out(label, length, length // 2), length // 2
        while text in short.values() and tail > 4:
            tail -= 3
            text = _middle_out(label, length, tail)
        number = 2
        while text in short.values():
            text = f"{_middle_out(label, length - 4, length // 2)} #{number}"
            number += 1
        short[label] = text
    return short


def _middle_out(label: str, length: int, tail: int) -> str:
    if len(label) <= length:
        return label
    return f"{label[: length - tail - 1]}…{label[-tail:]}"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, at least ``gap`` apart and within bounds where they fit.

    Clusters of touching labels are merged and centred on the mean of what they want (pool
    adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    if len(order) * gap > high - low and len(order) > 1:
        gap = (high - low) / (len(order) - 1)
    blocks: list[tuple[float, list[int]]] = []
    for index in order:
        centre, members = wanted[index], [index]
        while True:
            centre = _clamp(centre, len(members), gap, (low, high))
            if not blocks or _end(blocks[-1], gap) + gap <= _start((centre, members), gap) + 1e-12:
                break
            _, before = blocks.pop()
            members = before + members
            centre = sum(wanted[member] for member in members) / len(members)
        blocks.append((centre, members))
    placed = [0.0] * len(wanted)
    for block in blocks:
        for offset, index in enumerate(block[1]):
            placed[index] = _start(block, gap) + offset * gap
    return placed


def _start(block: tuple[float, list[int]], gap: float) -> float:
    return block[0] - gap * (len(block[1]) - 1) / 2


def _end(block: tuple[float, list[int]], gap: float) -> float:
    return block[0] + gap * (len(block[1]) - 1) / 2


def _clamp(centre: float, count: int, gap: float, bounds: tuple[float, float]) -> float:
    half = gap * (count - 1) / 2
    return min(max(centre, bounds[0] + half), bounds[1] - half)
