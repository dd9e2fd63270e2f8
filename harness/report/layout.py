"""Layout: labels that fit and do not overlap."""

from __future__ import annotations

from collections.abc import Sequence

LABEL_LENGTH = 38
SHORT_KEYS = {
    "batch_size": "batch",
    "gradient_checkpointing": "checkpointing",
    "learning_rate": "lr",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "micro_batch_size": "micro",
    "sequence_length": "seq",
    "target_modules": "modules",
}


def shorten(labels: Sequence[str], length: int = LABEL_LENGTH) -> dict[str, str]:
    """Labels that fit and stay distinct.

    Settings of derived names lose their section (``+adapter.r=8`` becomes ``+r=8``); what is still
    too long loses its middle.
    """
    names = {label: _compact(label) for label in labels}
    if len(set(names.values())) < len(names):
        names = {label: label for label in labels}
    return dict(zip(names, _fit(list(names.values()), length), strict=True))


def _compact(label: str) -> str:
    name, *settings = label.split("+")
    short = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        last = key.rpartition(".")[2]
        short.append(SHORT_KEYS.get(last, last) + equals + value)
    return "+".join([name, *short])


def _fit(labels: Sequence[str], length: int) -> list[str]:
    short: dict[str, str] = {}
    for label in labels:
        text, tail = _middle_out(label, length, length // 2), length // 2
        while text in short.values() and tail > 4:
            tail -= 3
            text = _middle_out(label, length, tail)
        number = 2
        while text in short.values():
            text = f"{_middle_out(label, length - 4, length // 2)} #{number}"
            number += 1
        short[label] = text
    return list(short.values())


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
