"""Reproduce: the exact command of every row."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from harness.errors import HarnessError
from harness.plan import Plan
from harness.registry import load_model, load_suite, load_variant
from harness.report.blocks import Block, Code, Section, code, prose
from harness.report.evidence import Evidence
from harness.report.rows import flatten

UNTRAINED_PARTS = ("quantization", "precision", "corpus", "score")
TRAINED_PARTS = (*UNTRAINED_PARTS, "adapter", "training", "budget")


def reproduce_section(evidence: Evidence) -> Section | None:
    """The exact command of every row."""
    if not evidence.rows:
        return None
    lines = []
    for row in evidence.ranked:
        seeds = sorted({record.plan.seed for record in row.records})
        lines += [f"# {row.label}", command(row.plan, seeds), ""]
    note = prose(
        "Same commit, environment and seed give the same record. Settings that were substituted "
        "are written as asked; the harness substitutes them again on the same kind of device."
    )
    commits = Counter(
        record.environment.commit
        for row in evidence.rows
        for record in row.records
        if record.environment and record.environment.commit
    )
    at = prose("Commit ", code(commits.most_common(1)[0][0][:12]), ".") if commits else None
    blocks: list[Block] = [note, Code("\n".join(lines).strip(), "sh")]
    return Section("reproduce", "How to reproduce each row", tuple([at, *blocks] if at else blocks))


def command(plan: Plan, seeds: Sequence[int]) -> str:
    """The command line that makes a plan again, seeds included."""
    suite, variant = (name.partition("+")[0] for name in (plan.suite, plan.variant))
    parts = ["python", "-m", "harness", "run", "--suite", suite]
    parts += ["--variant", variant]
    settings = _settings(plan, suite, variant)
    for key, value in (settings or {}).items():
        parts += ["--set", f"{key}={value}"]
    if list(seeds) != [0]:
        parts += ["--seeds", seed_range(seeds)]
    parts += ["--device", plan.device.kind]
    remark = "" if settings is not None else "  # from TOML files of your own: name their paths"
    return shlex.join(parts) + remark


def seed_range(seeds: Sequence[int]) -> str:
    """Seeds as the command line takes them: 0..4, or 1,3."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return ",".join(str(seed) for seed in seeds)


def _settings(plan: Plan, suite_name: str, name: str) -> dict[str, str] | None:
    """What must be set beside the registered variant and suite; None if one is not registered."""
    try:
        suite = load_suite(suite_name)
        variant = load_variant(name, suite)
        model = load_model(suite.model).name
    except HarnessError:
        return None
    asked = plan.model_dump(mode="json")
    written = suite.model_dump(mode="json") | variant.model_dump(mode="json")
    settings: dict[str, str] = {}
    if plan.model.name != model:
        settings["model"] = plan.model.name
    for item in plan.substitutions:
        _put(asked, item.key, item.asked)
    if not plan.trains:
        asked["precision"]["trainable"] = written["precision"]["trainable"]
    for part in TRAINED_PARTS if plan.trains else UNTRAINED_PARTS:
        there, here = flatten(written.get(part) or {}), flatten(asked.get(part) or {})
        for key, value in here.items():
            if there.get(key) != value:
                settings[f"{part}.{key}"] = toml_value(value)
    return settings


def _put(data: dict[str, Any], key: str, value: JsonValue) -> None:
    *sections, last = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
    data[last] = value


def toml_value(value: object) -> str:
    """A value as --set reads it: TOML, with plain words left bare."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./:@-][\w./:@-]*", value):
        return value
    if isinstance(value, list):
        return "[" + ", ".join(_in_list(item) for item in value) + "]"
    return _in_list(value)


def _in_list(value: object) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{k} = {_in_list(v)}" for k, v in value.items() if v is not None)
        return "{" + pairs + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_in_list(item) for item in value) + "]"
    return json.dumps(value)
