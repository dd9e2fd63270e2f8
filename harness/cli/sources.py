"""Sources: the user's own model, data and tasks, as the settings that name them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UserError

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="FOLDER|HUB_ID|TOML",
        help="Model to use instead of the suite's: a folder, organisation/name on the hub, a "
        "registered name or a TOML file.",
    ),
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FILE|FOLDER|HUB_ID",
        help="Data to use instead of the suite's: conversations as chat JSONL or another format, "
        "or organisation/name on the hub.",
    ),
]
IncludePathOption = Annotated[
    str, typer.Option("--include-path", help="Folder with your own lm-eval task files.")
]


def with_sources(
    settings: list[str], model: str = "", data: str = "", include_path: str = ""
) -> list[str]:
    """``settings`` and what ``--model``, ``--data`` and ``--include-path`` say, pinned.

    Raises:
        UserError: no such file, folder or repository, or also given by ``--set``.
        FetchError: the hub cannot be reached.
    """
    given: dict[str, tuple[str, str, Callable[[str], str]]] = {
        "model": (model, "--model", _pinned_model),
        "corpus.source": (data, "--data", _pinned_data),
        "score.include_path": (include_path, "--include-path", str),
    }
    found = []
    for key, (text, option, pin) in given.items():
        if text:
            _refuse_twice(settings, key, option)
            found.append(f"{key}={_quoted(pin(text))}")
    return [*found, *settings]


def _refuse_twice(settings: list[str], key: str, option: str) -> None:
    for setting in settings:
        if setting.partition("=")[0].strip().removeprefix("suite.") == key:
            raise UserError(f"{option} and --set {setting}", expected="one of them")


def _pinned_model(text: str) -> str:
    """A path or a registered name as it is; a hub id with the commit found."""
    from harness.spec.own_model import is_folder, is_hub_id
    from harness.spec.registry import model_names

    if text in model_names() or is_folder(text) or not is_hub_id(text):
        return text
    return "@".join(_commit(text, "model"))


def _pinned_data(text: str) -> str:
    """A path or "sample" as it is; a hub id as ``hub:organisation/name@commit``."""
    from harness.spec.own_model import is_hub_id

    text = text.removeprefix("hub:")
    path = Path(text).expanduser()
    if path.exists() or not is_hub_id(text) or path.suffix or path.parent.is_dir():
        return text
    return "hub:" + "@".join(_commit(text, "dataset"))


def _commit(text: str, kind: str) -> tuple[str, str]:
    """The repository, and the commit that its revision (or the newest) stands for."""
    from harness.spec.own_model import COMMIT, hub_folder, split_hub_id

    repository, revision = split_hub_id(text)
    if revision is not None and COMMIT.fullmatch(revision):
        return repository, revision
    return repository, hub_folder(repository, revision, kind).name


def _quoted(text: str) -> str:
    """``text`` so that ``--set`` reads it as text again, also where it looks like a number."""
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return json.dumps(text)
