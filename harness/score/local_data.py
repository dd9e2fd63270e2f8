"""Local data: tasks read their data sets from a folder that mirrors the hub."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.score.stock import leaves

SPLITS = ("training_split", "validation_split", "test_split")


def read_from(index: dict[str, Any], name: str, data_folder: Path, scratch: Path) -> None:
    """Point every task of ``name`` whose data set is in the folder at it.

    A file that includes the stock one and overrides the path is merged by lm-eval itself, for
    groups too. A training or validation split that the copy lacks is overridden with null.
    """
    if not data_folder.is_dir():
        raise UserError(
            "no such data folder",
            where=data_folder,
            expected="a folder that mirrors data sets as <org>/<name>",
        )
    for number, leaf in enumerate(sorted(set(leaves(index, name)) & set(index))):
        entry = index[leaf]
        config = entry.cfg or {}
        path = config.get("dataset_path")
        if entry.yaml_path is None or not isinstance(path, str):
            continue
        local = data_folder / path
        if "/" not in path or not local.is_dir():
            continue
        override = scratch / f"{number}.yaml"
        values = {
            "include": str(entry.yaml_path),
            "dataset_path": str(local.resolve()),
            **_absent_splits(config, local),
        }
        override.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
        index[leaf] = dataclasses.replace(entry, yaml_path=override)


def _absent_splits(config: dict[str, Any], local: Path) -> dict[str, None]:
    import datasets

    asked = {key: config[key] for key in SPLITS if isinstance(config.get(key), str)}
    try:
        there = set(_split_names(local, config.get("dataset_name")))
    except (ValueError, OSError, datasets.exceptions.DatasetNotFoundError):
        return {}  # loading the task will say what is missing
    scored = asked.get("test_split") or asked.get("validation_split")
    if scored is not None and scored.split("[")[0] not in there:
        return {}
    return {key: None for key, split in asked.items() if split.split("[")[0] not in there}


def _split_names(local: Path, config: str | None) -> list[str]:
    import datasets

    names: list[str] = datasets.get_dataset_split_names(str(local), config)
    return names
