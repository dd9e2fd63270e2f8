"""Numbers: how quantities are written for people, in messages and in reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "–"
MINUS = "−"


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return UNKNOWN
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= factor:
            return f"{significant(value / factor, 3)} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def energy(joules: float | None) -> str:
    """Joules, from 100 kJ on in watt-hours."""
    if joules is None:
        return UNKNOWN
    if joules >= 100_000:
        return f"{significant(joules / 3600, 3)} Wh"
    return f"{significant(joules / 1000, 3)} kJ"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return UNKNOWN if value is None else f"{round(value):,}"


def percent(share: float | None, *, signed: bool = False, digits: int = 2) -> str:
    """A share as per cent."""
    if share is None:
        return UNKNOWN
    text = f"{abs(share) * 100:.{digits}f} %"
    return _signed(text, share) if signed else _minus(text, share)


def number(value: float | None, *, signed: bool = False, digits: int = 4) -> str:
    """A plain number with that many significant digits."""
    if value is None:
        return UNKNOWN
    text = significant(abs(value), digits)
    return _signed(text, value) if signed else _minus(text, value)


def some_of(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    rest = "" if more <= 0 else f" and {count(more)} other{'s' if more > 1 else ''}"
    return ", ".join(names[:most]) + rest


def _signed(text: str, value: float) -> str:
    return ("+" if value > 0 else MINUS if value < 0 else "") + text


def _minus(text: str, value: float) -> str:
    return MINUS + text if value < 0 else text


def significant(value: float, digits: int) -> str:
    """Significant digits without an exponent where that stays readable."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}" if value == 0 else str(value)
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -5 or magnitude > 9:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(digits - 1 - magnitude, 0)}f}"


def to_width(value: float, width: float, digits: int = 2) -> str:
    """A number with as many decimals as its interval of that width deserves."""
    if width <= 0 or not math.isfinite(width):
        return number(value)
    decimals = max(digits - 1 - math.floor(math.log10(width)), 0)
    return _minus(f"{abs(value):,.{decimals}f}", value)


def p_value(value: float) -> str:
    """A p-value, floored at what anyone should read into it."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
