"""Reproduce: the exact command of every row."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from harness.report.blocks import Block, Code, Details, Section, code, prose
from harness.report.evidence import Evidence
from harness.spec.plan import Plan, RunRequest

UNRECORDED = "  # other settings were not recorded: see the plan"


def reproduce_section(evidence: Evidence) -> Section | None:
    """The exact command of every row."""
    if not evidence.rows:
        return None
    lines = []
    for row in evidence.ranked:
        lines += [f"# {row.label}", *commands(record.plan for record in row.records), ""]
    note = prose(
        "The same commit, environment and seed give the same scores, up to rounding where kernels "
        "are not deterministic; times and memory vary. Each command below repeats "
        "one row with its seeds, as it was typed. On the same kind of device the same settings "
        "are replaced again; a micro-batch that ran out of memory is reduced again with --on-oom "
        "shrink."
    )
    commits = Counter(
        record.environment.commit
        for row in evidence.rows
        for record in row.records
        if record.environment and record.environment.commit
    )
    at = prose("Commit ", code(commits.most_common(1)[0][0][:12]), ".") if commits else None
    blocks: list[Block] = [note, Details("All commands", (Code("\n".join(lines).strip(), "sh"),))]
    return Section("reproduce", "How to reproduce each row", tuple([at, *blocks] if at else blocks))


def commands(plans: Iterable[Plan]) -> list[str]:
    """The command lines that make the plans of one row again, one for each way of asking."""
    asked: dict[RunRequest | None, list[Plan]] = {}
    for plan in plans:
        asked.setdefault(plan.request, []).append(plan)
    return [command(same[0], sorted({plan.seed for plan in same})) for same in asked.values()]


def command(plan: Plan, seeds: Sequence[int]) -> str:
    """The command line that makes a plan again with some seeds."""
    request = plan.request
    # A derived name starts with the registered one; records older than the request have no more.
    known = request or RunRequest(
        variant=plan.variant.partition("+")[0], suite=plan.suite.partition("+")[0]
    )
    parts = ["python", "-m", "harness", "run", "--suite", known.suite, "--variant", known.variant]
    for setting in known.settings:
        parts += ["--set", setting]
    for task in known.tasks:
        parts += ["--task", task]
    if known.name:
        parts += ["--name", known.name]
    parts += ["--seeds", seed_range(seeds), "--device", plan.device.kind]
    return shlex.join(parts) + ("" if request else UNRECORDED)


def seed_range(seeds: Sequence[int]) -> str:
    """Seeds as the command line takes them: 0..4, or 1,3."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return ",".join(str(seed) for seed in seeds)
