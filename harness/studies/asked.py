"""Asked: what a study asks, in words that are the same on machines that keep files elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from harness.spec.own_model import is_folder, is_hub_id
from harness.spec.peft_files import CONFIG
from harness.spec.plan_digests import is_task_file

PLACES = ("corpus.source", "score.data_folder", "score.include_path")  # settings that name a path
NAMED = ("suite", "variant", "variants", "reference", "claims")  # a name, or the path of a file
TASKS = ("tasks", "tasks.name")


def without_folders(value: object, key: str = "") -> object:
    """A value of the setting ``key`` with every path in it cut down to its last part.

    Only settings that say where something lies hold paths: all others are taken as they are
    typed, and so are ids of the hub.
    """
    if isinstance(value, dict):
        return {one: without_folders(inner, f"{key}.{one}") for one, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(one, key) for one in value]
    return _last_part(value) if isinstance(value, str) and _is_path(value, key) else value


def says_where(setting: str) -> bool:
    """Whether a typed ``KEY=VALUE`` says where data or a model lie."""
    return _is_one_of((*PLACES, "model"), setting.partition("=")[0].strip())


def _is_path(value: str, key: str) -> bool:
    if _is_one_of(PLACES, key):
        return not value.startswith("hub:")
    if _is_one_of(("model",), key):
        return is_folder(value) or not is_hub_id(value)
    if _is_one_of(TASKS, key):
        return is_task_file(value)
    return _is_one_of(NAMED, key) and os.sep in value


def _is_one_of(settings: tuple[str, ...], key: str) -> bool:
    return any(f".{key}".endswith(f".{one}") for one in settings)


def _last_part(value: str) -> str:
    path = Path(value).expanduser()
    if path.name == CONFIG:  # PEFT's own file: a variant is called by its folder
        path = path.parent
    return path.name if path.name not in ("", "..") else path.resolve().name


def with_file_names(value: object) -> object:
    """The same as older harnesses did it, whatever the setting: to find what they laid down."""
    if isinstance(value, dict):
        return {key: with_file_names(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_file_names(one) for one in value]
    if isinstance(value, str) and os.sep in value:
        path = Path(value)
        return path.name if path.suffix or value.startswith(("/", "~", ".")) else value
    return value
