"""Provenance: what differs between rows, what was substituted, where runs ran, what failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.report.blocks import (
    Block,
    Caveat,
    Cell,
    Code,
    Column,
    Details,
    Section,
    Table,
    code,
    folded,
    prose,
    unknown,
)
from harness.report.cells import ending
from harness.report.evidence import Evidence
from harness.report.rows import Row
from harness.report.settings import BESIDE_SETTINGS, alpha_over_rank, flatten, plain

UNSHOWN = {"schema_version", "variant", "suite", *BESIDE_SETTINGS}
CALLED = {
    "commit": "the harness's commit",
    "sources": "the harness's code",
    "dirty": "uncommitted changes",
    "os": "the operating system",
    "cpu": "the processor",
}
OF_TRAINING = ("adapter", "budget.", "order", "training.")


def provenance_section(evidence: Evidence) -> Section | None:
    """Plan keys that differ between rows, substitutions, resumed runs, environments, failures."""
    if not evidence.rows:
        return None
    blocks = _plan_blocks(evidence)
    blocks += _substitutions(evidence)
    blocks += _resumed(evidence)
    blocks += _environments(evidence)
    blocks += _failures(evidence)
    blocks += _broken(evidence)
    return Section("provenance", "What differs, substitutions, environments", tuple(blocks))


def flat_plan(row: Row) -> dict[str, Any]:
    """The settings of a row by dotted key; an untrained row has none that only training reads."""
    flat = flatten(row.plan.model_dump(mode="json", exclude=UNSHOWN))
    trainers = {record.training.trainer for record in row.finished if record.training}
    if trainers:
        flat["training path that ran"] = "+".join(sorted(trainers))
    scale = alpha_over_rank(row.plan)
    if scale is not None:
        flat["adapter.alpha/r"] = float(f"{scale:.6g}")
    if row.plan.trains:
        return flat
    return {key: value for key, value in flat.items() if not key.startswith(OF_TRAINING)}


def _plan_blocks(evidence: Evidence) -> list[Block]:
    """The table of differing keys, and a line for keys that some rows lack."""
    plans = {row.label: flat_plan(row) for row in evidence.ranked}
    differing, partial = [], []
    for key in sorted(set().union(*plans.values())):
        values = {json.dumps(flat[key]) for flat in plans.values() if flat.get(key) is not None}
        if len(values) > 1:
            differing.append(key)
        elif values and any(flat.get(key) is None for flat in plans.values()):
            partial.append(f"{key} = {plain(json.loads(values.pop()))}")
    several = len(plans) > 1
    blocks: list[Block] = [prose("All rows share one plan.")] if several else []
    if differing:
        columns = tuple(Column(key, number=False) for key in ("variant", *differing))
        rows = tuple(
            (Cell(label, label, style="code"), *(_plan_cell(flat, key) for key in differing))
            for label, flat in plans.items()
        )
        caption = "Every setting that is not the same in all rows; – where a row does not have it."
        blocks = [folded(Table("plans", columns, rows, caption), "Every setting that differs")]
    if partial:
        blocks.append(prose("The same in every row that has them: ", "; ".join(partial), "."))
    return blocks


def _plan_cell(flat: Mapping[str, Any], key: str) -> Cell:
    if key not in flat or flat[key] is None:
        return unknown()
    value = flat[key]
    text = plain(value)
    if key.endswith("sha256"):
        text = text[:12]
    return Cell(text, value if isinstance(value, int | float) else text)


def _substitutions(evidence: Evidence) -> list[Block]:
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for row in evidence.ranked:
        for item in row.plan.substitutions:
            key = (item.key, plain(item.asked), plain(item.used), item.reason)
            grouped.setdefault(key, []).append(row.label)
    if not grouped:
        return [prose("No setting was replaced: every run used the settings that were asked for.")]
    columns = tuple(
        Column(title, number=False) for title in ("setting", "asked", "used", "reason", "rows")
    )
    rows = tuple(
        (
            Cell(key[0], key[0], style="code"),
            *(Cell(part) for part in key[1:]),
            Cell(", ".join(labels)),
        )
        for key, labels in grouped.items()
    )
    caption = "Settings that the device could not honour, what was used instead, and why."
    return [Table("substitutions", columns, rows, caption)]


def _resumed(evidence: Evidence) -> list[Block]:
    rows = tuple(
        (
            Cell(row.label, row.label, style="code"),
            Cell(str(record.plan.seed), record.plan.seed),
            Cell(str(record.resumed), record.resumed),
        )
        for row in evidence.ranked
        for record in row.records
        if record.resumed
    )
    if not rows:
        return []
    columns = (Column("variant", number=False), Column("seed"), Column("earlier attempts"))
    caption = (
        "Resumed runs: each continues earlier attempts that were interrupted. Train time includes "
        "the steps kept from them, run time is that of the last attempt, and the energy of "
        "training that was interrupted is not known."
    )
    return [Table("resumed", columns, rows, caption)]


def _environments(evidence: Evidence) -> list[Block]:
    found: dict[str, list[str]] = {}
    for row in evidence.ranked:
        for record in row.records:
            if record.environment is not None:
                names = found.setdefault(record.environment.model_dump_json(), [])
                if row.label not in names:
                    names.append(row.label)
    flats = [flatten(json.loads(text)) for text in found]
    if not flats:
        return []
    same, differing = _keys(flats)
    blocks: list[Block] = []
    if differing:
        blocks += [
            Caveat("Not all runs were made under the same conditions."),
            _environment_table(list(found.values()), flats, differing),
        ]
    common = "\n".join(f"{key} = {plain(flats[0].get(key))}" for key in same)
    blocks.append(Details("Environment common to all runs", (Code(common),)))
    return blocks


def differing_conditions(evidence: Evidence) -> list[str]:
    """In what the machines, versions and settings under which the runs were made differ."""
    texts = dict.fromkeys(
        record.environment.model_dump_json()
        for row in evidence.rows
        for record in row.records
        if record.environment
    )
    keys = _keys([flatten(json.loads(text)) for text in texts])[1]
    return [CALLED.get(key, key.removeprefix("packages.")) for key in keys]


def _keys(flats: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Keys whose values are equal everywhere, and those whose values differ."""
    keys = dict.fromkeys(key for flat in flats for key in flat)
    same = [key for key in keys if len({json.dumps(flat.get(key)) for flat in flats}) == 1]
    return same, [key for key in keys if key not in same]


def _environment_table(
    names: list[list[str]], flats: list[dict[str, Any]], differing: list[str]
) -> Table:
    columns = (Column("rows", number=False), *(Column(key, number=False) for key in differing))
    rows = tuple(
        (Cell(", ".join(labels)), *(Cell(plain(flat.get(key))) for key in differing))
        for labels, flat in zip(names, flats, strict=True)
    )
    caption = "What differs between machines, versions and settings."
    return Table("environments", columns, rows, caption)


def _failures(evidence: Evidence) -> list[Block]:
    failed = [record for row in evidence.ranked for record in row.failures]
    blocks: list[Block] = []
    for record in failed:
        problem = record.problem
        title = f"{record.plan.variant}, seed {record.plan.seed}: {ending(record)}"
        lines = [problem.message, problem.log_tail] if problem else ["no details"]
        blocks.append(Details(title, (Code("\n".join(line for line in lines if line)),)))
    return [prose("Runs that failed or were interrupted:"), *blocks] if blocks else []


def _broken(evidence: Evidence) -> list[Block]:
    if not evidence.broken:
        return []
    blocks: list[Block] = [prose("Records that could not be read were left out:")]
    for run in evidence.broken:
        place = "/".join(run.folder.path.parts[-3:])
        blocks.append(prose(code(place), ": ", run.error.what, bullet=True))
    return blocks
