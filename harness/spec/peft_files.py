"""PEFT files: variants written as PEFT's own ``adapter_config.json``, experiments included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import InvalidFile, StorageError

CONFIG, TRAINING = "adapter_config.json", "training_params.json"

# What the harness, and not a variant, decides about an adapter.
DECIDED = frozenset(
    (
        "task_type",
        "peft_type",
        "inference_mode",
        "base_model_name_or_path",
        "revision",
        "auto_mapping",
        "peft_version",
    )
)

# PEFT's defaults, where a variant of the harness has others; null leaves the choice to PEFT.
LORA: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": None,
}

# Fields of an experiment of PEFT's method_comparison, and the variant's for them.
SETTINGS = {
    "max_seq_length": ("training", "sequence_length"),
    "grad_norm_clip": ("training", "max_grad_norm"),
    "dtype": ("precision", "compute"),
}
OPTIMIZERS = {"AdamW": "adamw", "lora+": "loraplus", "lora-fa": "lorafa", "lora_fa": "lorafa"}
RATES = {"lr": "learning_rate", "weight_decay": "weight_decay"}
SCHEDULES = {None: "constant", "cosine": "cosine", "linear": "linear"}
SUITES = {
    "model_id": "model",
    "max_steps": "budget.steps",
    "batch_size": "budget.batch_size",
    "seed": "seeds",
}


def peft_file(name: str) -> Path | None:
    """The ``adapter_config.json`` that ``name`` is, or that lies in the folder it is."""
    path = Path(name)
    if path.name == CONFIG:
        return path
    try:
        return path / CONFIG if (path / CONFIG).is_file() else None
    except OSError:  # too long for a path
        return None


def read_peft_variant(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and contents of the variant that PEFT's files describe.

    The name is the folder's. Fields that are null or empty are PEFT's defaults; the base model
    that the file names is left to the suite. ``training_params.json`` beside it is read too.

    Raises:
        StorageError: a file cannot be read.
        InvalidFile: it is no JSON object, names no type, or says something that has no place in
            a variant.
    """
    config = _read(path)
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise InvalidFile("no peft_type", where=path, expected="PEFT's own adapter_config.json")
    fields = {
        name: value
        for name, value in config.items()
        if name not in DECIDED and value not in (None, {}, [])
    }
    written: dict[str, Any] = {
        "description": f"{kind} as written in {path.parent.name}/{CONFIG}",
        "adapter": {"type": kind, **(LORA if kind == "LORA" else {}), **fields},
    }
    beside = path.with_name(TRAINING)
    if beside.is_file():
        written |= _settings(_read(beside), beside)
    return path.resolve().parent.name, written


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"not a JSON file: {error}", where=path) from None
    if not isinstance(found, dict):
        raise InvalidFile("not a JSON object", where=path, expected="fields and their values")
    return found


def _settings(given: dict[str, Any], where: Path) -> dict[str, Any]:
    """The variant's sections for an experiment's training parameters."""
    found: dict[str, dict[str, Any]] = {"training": {}, "precision": {}}
    for name, value in given.items():
        if name in SETTINGS:
            section, key = SETTINGS[name]
            found[section][key] = value
        elif (
            name == "optimizer_kwargs" and isinstance(value, dict) and value.keys() <= RATES.keys()
        ):
            found["training"] |= {RATES[key]: number for key, number in value.items()}
        elif name == "optimizer_type" and value in OPTIMIZERS:
            found["training"]["optimizer"] = OPTIMIZERS[value]
        elif name == "lr_scheduler" and value in SCHEDULES:
            found["training"]["schedule"] = SCHEDULES[value]
        else:
            raise _homeless(name, value, where)
    return {section: values for section, values in found.items() if values}


def _homeless(name: str, value: object, where: Path) -> InvalidFile:
    known = sorted((*SETTINGS, "optimizer_kwargs", "optimizer_type", "lr_scheduler"))
    if name in SUITES:
        what, hint = f"{name} belongs to the suite", f"take it out, and set {SUITES[name]}"
    else:
        what, hint = f"{name} = {value!r:.60} has no place in a variant", "take it out"
    return InvalidFile(what, where=where, expected=", ".join(known), hint=hint)
