"""Own model: a transformers folder, or a repository of the Hugging Face hub, as a Model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harness.errors import FetchError, InvalidFile, UserError
from harness.spec.model import FolderSource, HubSource, Model
from harness.spec.schema import parse
from harness.spec.storage import check_depth, meant

HUB_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")
CONFIG = "config.json"
# Where a tokenizer keeps its chat template; small files that say what a model is.
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
DESCRIBING = (CONFIG, "tokenizer_config.json", *TEMPLATE_FILES)
# Of config.json, what says nothing about the shape of the model.
NO_SHAPE = frozenset({"architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"})
# Conversations need some template; this one needs no special tokens.
TEMPLATE = "chatml"


def is_folder(name: str) -> bool:
    """Whether a model is named by its folder."""
    try:
        return bool(name) and not name.endswith(".toml") and Path(name).expanduser().is_dir()
    except OSError:  # too long for a path
        return False


def is_hub_id(name: str) -> bool:
    """Whether ``name`` is written like ``organisation/name`` or ``organisation/name@revision``."""
    return not name.endswith(".toml") and HUB_ID.fullmatch(name) is not None


def model_of_folder(name: str) -> Model:
    """The model in a local folder in the transformers layout: ``config.json`` is its shape.

    Raises:
        InvalidFile: no such model: no configuration, no safetensors, or already quantized.
    """
    folder = Path(name).expanduser()
    if not any(folder.glob("*.safetensors")) and (folder / CONFIG).is_file():
        raise InvalidFile(
            "no weights in this model folder",
            where=folder,
            expected="*.safetensors (weights in pickle format are refused)",
        )
    source = FolderSource(kind="folder", path=name)
    return _described(folder, source, folder.resolve().name, f"the model folder {folder.name}")


def model_of_hub(name: str) -> Model:
    """The model of ``organisation/name@commit``; reads its small files through the hub's cache.

    Raises:
        UserError: the revision is not a commit.
        FetchError: the hub cannot be reached, and its local cache has not got the files.
    """
    repository, revision = split_hub_id(name)
    if revision is None or not COMMIT.fullmatch(revision):
        raise UserError(
            "a model of the hub is pinned to a commit",
            where=f"model = {name}",
            expected=f"{repository}@ and 40 hexadecimal digits",
            hint=f"--model {repository} finds the newest commit",
        )
    folder = hub_folder(repository, revision, "model")
    source = HubSource(kind="hub", repository=repository, revision=revision)
    return _described(folder, source, repository.partition("/")[2], f"{repository} of the hub")


def split_hub_id(name: str) -> tuple[str, str | None]:
    """Repository and revision of a hub id."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def hub_folder(repository: str, revision: str | None, kind: str) -> Path:
    """The small files of a ``model`` or ``dataset`` in the hub's cache, fetched where needed.

    The folder is named by the commit that ``revision`` (or the newest) stands for.

    Raises:
        UserError: the hub has no such repository or revision.
        FetchError: the hub cannot be reached, and its local cache has not got the files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    patterns = list(DESCRIBING) if kind == "model" else ["README.md"]
    asked = repository + (f"@{revision}" if revision else "")
    try:
        return Path(
            snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=patterns
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"the hub has no {kind} {asked}, and there is no such file or folder here",
            where=type(error).__name__,
            expected="a path, or organisation/name as in the address of the hub's page",
            hint=meant(Path(repository)) or "private and gated repositories need HF_TOKEN",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FetchError(
            f"cannot find {asked} on the Hugging Face hub, and there is no such file or folder",
            where=type(error).__name__,
            expected="a network that reaches the hub, or the repository in the hub's local cache",
            hint=meant(Path(repository)) or "download it elsewhere and give its folder",
        ) from error


def _described(folder: Path, source: FolderSource | HubSource, name: str, what: str) -> Model:
    path = folder / CONFIG
    fields = _read_config(folder)
    if "quantization_config" in fields:
        raise InvalidFile(
            "these weights are quantized already",
            where=f"{path}, quantization_config",
            expected="16-bit or 32-bit weights: the variants quantize them",
        )
    shape = {
        key: value
        for key, value in fields.items()
        if key not in NO_SHAPE and not key.startswith("_")
    }
    data = {
        "name": _name_of(name),
        "description": what,
        "license": "not stated",
        "source": source.model_dump(mode="json"),
        "config": shape,
        "chat_template": None if _has_template(folder) else TEMPLATE,
    }
    return parse(Model, data, where=path)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise InvalidFile(
            "this folder holds an adapter, not a model" if adapter else "not a model folder",
            where=folder,
            expected="config.json, a tokenizer and *.safetensors, as save_pretrained writes them",
            hint="merge the adapter into its base model first" if adapter else None,
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidFile(f"not a JSON file: {error}", where=path) from None
    if not isinstance(fields, dict) or not isinstance(fields.get("model_type"), str):
        raise InvalidFile("no model_type", where=path, expected="a transformers configuration")
    check_depth(fields, path)
    return fields


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in TEMPLATE_FILES):
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def _name_of(text: str) -> str:
    """A name from a folder's: it becomes part of paths, so nothing but letters that are safe."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip("._+-").rstrip("-")
    return name[:100] or "model"
