"""Overrides: what a user types over a file, with --set KEY=VALUE and --seeds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import date, time
from functools import lru_cache
from typing import Any

from harness.errors import InvalidFile, UnknownName, UserError
from harness.spec.storage import check_depth
from harness.spec.suite import SEED_LIMIT

MOST_SEEDS = 1000
LONGEST_SEED = 20
MOST_SECTIONS = 8  # of a key: no setting lies deeper
VARIANT_SECTIONS = ("method", "quantization", "precision", "adapter", "training")
SUITE_SECTIONS = (
    "model",
    "corpus",
    "budget",
    "validation",
    "score",
    "seeds",
    "order",
    "order_seed",
)
PROTOCOL_SECTIONS = ("training", "precision")  # the suite's, for every variant alike


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with ``over`` laid on it, key by key, nested tables too."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def parse_settings(settings: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split ``--set key=value`` options into overrides for the variant and for the suite.

    A value is read as TOML (``32``, ``true``, ``[0, 1]``) and otherwise taken as a string.
    TOML has no null: ``none`` clears an optional setting, as in ``budget.steps=none`` (see
    :func:`harness.spec.schema.with_nulls`).
    ``training.…`` and ``precision.…`` make another variant, to be compared with the plain one;
    ``suite.training.…`` and ``suite.precision.…`` change the protocol of all variants.
    """
    variant: dict[str, Any] = {}
    suite: dict[str, Any] = {}
    for setting in settings:
        sections, value = _split_setting(setting)
        target = suite if changes_suite(setting) else variant
        if sections[0] == "suite":
            del sections[0]
        _lay(target, sections, value, setting)
    return variant, suite


def parse_setting(setting: str) -> dict[str, Any]:
    """One ``key=value`` as a nested table, whatever it is for."""
    table: dict[str, Any] = {}
    _lay(table, *_split_setting(setting), setting)
    return table


def _split_setting(setting: str) -> tuple[list[str], Any]:
    key, equals, text = setting.partition("=")
    sections = [part.strip() for part in key.split(".")]
    if not equals or not all(sections) or len(sections) > MOST_SECTIONS:
        raise UserError(f"--set {setting!r} is not KEY=VALUE", expected="for example adapter.r=32")
    return sections, typed_value(text)


def _lay(target: dict[str, Any], sections: list[str], value: Any, setting: str) -> None:
    """Put a value at its place in a nested table."""
    for section in sections[:-1]:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise InvalidFile(f"{section} is a value, not a section", where=f"--set {setting}")
    target[sections[-1]] = value


def changes_suite(setting: str) -> bool:
    """Whether ``--set`` of this changes the suite, not the variant.

    Raises:
        UnknownName: neither has such a section.
    """
    sections = [part.strip() for part in setting.partition("=")[0].split(".")]
    first, where = sections[0], f"--set {setting}"
    if first != "suite":
        known = (*VARIANT_SECTIONS, *SUITE_SECTIONS)
        if first not in known:
            raise UnknownName("section", first, (*known, "suite"), where=where)
        return first in SUITE_SECTIONS
    own = (*SUITE_SECTIONS, *PROTOCOL_SECTIONS)
    second = sections[1] if len(sections) > 1 else ""
    if second not in own:
        raise UnknownName("section of a suite", second, own, where=where)
    return True


def typed_value(text: str) -> Any:
    """What is typed after ``KEY=``: TOML, and otherwise a string."""
    value = _parsed(text)
    return deepcopy(value) if isinstance(value, list | dict) else value


@lru_cache(maxsize=4096)  # a study asks for the same settings of thousands of plans
def _parsed(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError:
        raise InvalidFile("nested too deeply", where=f"--set …={text:.40}…") from None
    check_depth(value, f"--set …={text:.40}…")
    # No setting is a date; what looks like one is text.
    return text if isinstance(value, date | time) else value


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read ``0``, ``0,1,2`` or ``0..4`` (both ends included); empty text gives no seeds.

    Raises:
        UserError: it is none of these, names too many, or one that is too large.
    """
    seeds: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dots, last = part.partition("..")
        last = last if dots else first
        whole = first.isdecimal() and last.isdecimal()
        # Python refuses to read thousands of digits as a number.
        if whole and (len(last) > LONGEST_SEED or int(last) >= SEED_LIMIT):
            raise UserError(f"--seeds {text!r:.60}", expected=f"seeds below {SEED_LIMIT}")
        if not whole or len(first) > LONGEST_SEED or int(last) - int(first) >= MOST_SEEDS:
            raise UserError(f"--seeds {text!r}", expected="0 or 0,1,2 or 0..4")
        seeds += range(int(first), int(last) + 1)
    if text and not seeds:
        raise UserError(f"--seeds {text!r} names no seed", expected="0 or 0,1,2 or 0..4")
    return tuple(dict.fromkeys(seeds))
