"""PEFT files: variants written as PEFT's own ``adapter_config.json``, experiments included."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import InvalidFile, StorageError
from harness.spec.methods import TYPES, Needs

Sections = dict[str, dict[str, Any]]
"""Of a variant's file, and their fields."""

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

# What PEFT reads off the base where it is not given; another base than the author's has others.
OF_THE_BASE = ("token_dim", "num_layers", "num_attention_heads")

# Fields of an experiment of PEFT's method_comparison, and the variant's for them.
SETTINGS = {
    "max_seq_length": ("training", "sequence_length"),
    "grad_norm_clip": ("training", "max_grad_norm"),
    "use_gc": ("training", "gradient_checkpointing"),
}
# Fields with few values, and what a variant says for each; int4 is bitsandbytes' own default.
CHOICES: dict[str, dict[Any, Sections]] = {
    "dtype": {
        **{name: {"precision": {"compute": name}} for name in ("float32", "float16", "bfloat16")},
        "int8": {"quantization": {"type": "int8"}},
        "int4": {"quantization": {"type": "fp4"}, "precision": {"compute": "float32"}},
    },
    "optimizer_type": {
        theirs: {"training": {"optimizer": ours}}
        for theirs, ours in (
            ("AdamW", "adamw"), ("lora+", "loraplus"), ("lora-fa", "lorafa"), ("lora_fa", "lorafa")
        )
    },
    "lr_scheduler": {
        None: {"training": {"schedule": "constant"}},
        "linear": {"training": {"schedule": "linear"}},
        "cosine": {"training": {"schedule": "cosine"}, "left": {"warmup": "a tenth of the steps"}},
    },
    "use_amp": {False: {}},
}  # fmt: skip
RATES = {"lr": "learning_rate", "weight_decay": "weight_decay"}
# What the suite decides for all variants alike, and what is scored or computed otherwise here.
SUITES = ("model_id", "max_steps", "batch_size", "seed")
OTHERWISE = (
    "eval_steps",
    "batch_size_eval",
    "max_generation_length",
    "generation_kwargs",
    "query_template",
    "compile",
    "attn_implementation",
)
DEFAULTS = "default_training_params.json"  # of all experiments, two folders above each


def peft_file(name: str) -> Path | None:
    """The ``adapter_config.json`` that ``name`` is, or that lies in the folder it is.

    A folder is meant only where there is a slash, as in ``./mine``: registered names have none.
    """
    path = Path(name)
    if path.name == CONFIG:
        return path
    with suppress(OSError, ValueError):  # no name that a system takes
        if "/" in name and (path / CONFIG).is_file():
            return path / CONFIG
    return None


def read_peft_variant(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and contents of the variant that PEFT's files describe.

    The name is the folder's. Fields that are null or empty are PEFT's defaults; the base model
    that the file names is left to the suite. ``training_params.json`` beside it is read too, and
    the defaults of all experiments where it lies among PEFT's. What these say and the suite
    decides is the variant's ``left``.

    Raises:
        StorageError: a file cannot be read.
        InvalidFile: it is no JSON object, names no type, or says something that has no place in
            a variant.
    """
    config = _read(path)
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise InvalidFile("no peft_type", where=path, expected="PEFT's own adapter_config.json")
    ours = (*DECIDED, *(OF_THE_BASE if TYPES.get(kind, Needs()).virtual_tokens else ()))
    fields = {
        name: value
        for name, value in config.items()
        if name not in ours
        and value not in (None, {}, [])
        and (name, value) != ("fan_in_fan_out", False)  # what every type does, named or not
    }
    written: dict[str, Any] = {
        "description": f"{kind} as written in {path.parent.name}/{CONFIG}",
        "adapter": {"type": kind, **(LORA if kind == "LORA" else {}), **fields},
    }
    beside = path.with_name(TRAINING)
    sources = [file for file in (*_shared(path), beside) if file.is_file()]
    given = {name: value for source in sources for name, value in _read(source).items()}
    if sources:
        written |= _settings(given, fields, sources[-1])
    return path.resolve().parent.name, written


def _shared(path: Path) -> list[Path]:
    """Where the defaults of an experiment lie that is kept as PEFT keeps its own."""
    above = path.resolve().parents
    return [above[3] / DEFAULTS] if len(above) > 3 and above[2].name == "experiments" else []


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


def _settings(given: dict[str, Any], adapter: dict[str, Any], where: Path) -> Sections:
    """The variant's sections for an experiment's training parameters."""
    found: Sections = {}
    for name, value in given.items():
        meant = _meaning(name, given, adapter)
        if meant is None:
            raise _homeless(name, value, where)
        for section, values in meant.items():
            found.setdefault(section, {}).update(values)
    return found


def _meaning(name: str, given: dict[str, Any], adapter: dict[str, Any]) -> Sections | None:
    """What one parameter is in a variant; None: it has no place there."""
    value = given[name]
    if name in SETTINGS:
        section, key = SETTINGS[name]
        return {section: {key: value}}
    if name in CHOICES:
        return CHOICES[name].get(value) if isinstance(value, str | bool | None) else None
    if name == "autocast_adapter_dtype" and isinstance(value, bool):
        dtype = str(given.get("dtype"))
        kept = "float32" if value or dtype not in ("float16", "bfloat16") else dtype
        return {"precision": {"trainable": kept}}
    if name == "optimizer_kwargs" and _is_known(value, adapter):
        return {"training": {RATES[key]: rate for key, rate in value.items() if key in RATES}}
    if name in (*SUITES, *OTHERWISE):
        return {} if value is None else {"left": {name: value}}
    return None


def _is_known(value: object, adapter: dict[str, Any]) -> bool:
    """Whether an optimizer's arguments are rates, or repeat what the adapter says (LoRA-FA's)."""
    return isinstance(value, dict) and all(
        key in RATES or (key in ("r", "lora_alpha") and adapter.get(key) == number)
        for key, number in value.items()
    )


def _homeless(name: str, value: object, where: Path) -> InvalidFile:
    known = sorted(
        (*SETTINGS, *CHOICES, *SUITES, *OTHERWISE, "autocast_adapter_dtype", "optimizer_kwargs")
    )
    what = f"{name} = {value!r:.60} has no place in a variant"
    return InvalidFile(what, where=where, expected=", ".join(known), hint="take it out")
