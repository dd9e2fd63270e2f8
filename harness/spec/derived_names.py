"""Derived names: a variant, suite or study that was changed has a name that says how."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST_NAME = 150
SHORT_DIGEST = 6  # digits: a person has dozens of protocols, not millions


def derived_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name of a variant or study with ``overrides`` laid over its file."""
    return with_changes(_stem(name), changes_of(overrides)) if overrides else _stem(name)


def suite_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name of a suite with ``overrides``: a short digest stands for what was changed.

    A path counts by its last part, so that the same data elsewhere have the same name.
    """
    stem, changes = _stem(name), _without_seeds(overrides)
    if not changes:
        return stem
    text = json.dumps(_by_last_part(changes), sort_keys=True, default=str)
    return f"{stem}@{hashlib.sha256(text.encode()).hexdigest()[:SHORT_DIGEST]}"


def long_suite_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name that older harnesses gave a suite with ``overrides``, to find its runs."""
    changes = changes_of(_without_seeds(overrides))
    return with_changes(_stem(name), changes) if changes else _stem(name)


def _without_seeds(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Other seeds are not another protocol."""
    return {key: value for key, value in overrides.items() if key != "seeds"}


def _by_last_part(value: Any) -> Any:
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, Mapping):
        return {key: _by_last_part(inner) for key, inner in value.items()}
    return [_by_last_part(inner) for inner in value] if isinstance(value, list) else value


def _stem(name: str) -> str:
    return Path(name).stem if name.endswith(".toml") else name


def with_changes(name: str, changes: list[str]) -> str:
    """``name`` and what was changed; past the length of a folder's name, a digest of it."""
    derived = "+".join([name, *changes])
    if len(derived) <= LONGEST_NAME:
        return derived
    digest = hashlib.sha256(derived.encode()).hexdigest()[:12]
    return f"{derived[: LONGEST_NAME - 13]}+{digest}"


def changes_of(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every change of a nested table as ``key=value``, in the order of the keys."""
    lines = []
    for key, value in sorted(table.items()):
        if isinstance(value, Mapping):
            lines += changes_of(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}={_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    """A value in the characters of a folder's name; numbers keep their sign and exponent."""
    text = _shown(value)
    if isinstance(value, int | float):
        return text.replace("e+", "e")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def _shown(value: Any) -> str:
    """A value inside a derived name: a path by its last part, a task by its name."""
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return "-".join(str(item.get("name", "")) for item in value)
    return json.dumps(value, default=str)
