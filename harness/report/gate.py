"""Gate: ``--fail-if`` expressions, and a comparison as JSON or JUnit XML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from harness import numbers
from harness.errors import UnknownName, UserError
from harness.report.cells import REASONS
from harness.report.compare import Change, ComparedRow, Comparison

EXPRESSION = re.compile(
    r"\s*(?P<name>[^<>]+?)\s*(?P<sign>[<>])\s*"
    r"(?P<bound>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>%|pp)?\s*"
)
EXAMPLES = "for example 'perplexity > +1%', 'throughput < -5%' or 'acc < -0.02'"
FORBIDDEN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Gate:
    """A bound on a change: of a score, or of memory, weights, throughput, time or energy.

    ``unit`` is "%" for a change relative to A, "pp" for percentage points, "" for the unit of the
    quantity itself.
    """

    text: str
    name: str
    sign: Literal["<", ">"]
    bound: float
    unit: Literal["%", "pp", ""]


@dataclass(frozen=True)
class GateResult:
    """What a gate says about one pair."""

    gate: str
    pair: str
    status: Literal["passed", "failed", "unknown"]
    reason: str


def parse_gate(text: str) -> Gate:
    """Read one ``--fail-if`` expression: NAME, < or >, and a bound.

    Raises:
        UserError: it is not of that form.
    """
    found = EXPRESSION.fullmatch(text)
    if found is None:
        raise UserError(
            f"--fail-if {text!r} is not NAME < BOUND or NAME > BOUND", expected=EXAMPLES
        )
    sign: Literal["<", ">"] = "<" if found["sign"] == "<" else ">"
    unit: Literal["%", "pp", ""] = "%" if found["unit"] == "%" else "pp" if found["unit"] else ""
    return Gate(text.strip(), found["name"], sign, float(found["bound"]), unit)


def judge(comparison: Comparison, gates: Iterable[Gate]) -> tuple[GateResult, ...]:
    """Every gate on every pair.

    A gate fails when the whole 95 % interval is past its bound. With one training on a side that
    interval is over items alone; without any the estimate decides; the reason says so. What
    cannot be judged (a failed run, a missing score) is "unknown", which a caller should treat as
    a failure: a gate that cannot see must not open.

    Raises:
        UnknownName: no pair has a quantity of that name.
    """
    outcomes = []
    for gate in gates:
        _check_name(comparison, gate)
        outcomes += [_judge_one(pair, gate) for pair in comparison.pairs]
    return tuple(outcomes)


def _check_name(comparison: Comparison, gate: Gate) -> None:
    names = {c.name for pair in comparison.pairs for c in pair.changes}
    names |= {name for pair in comparison.pairs for name in _unjudged(pair)}
    known = any(_fits(name, gate.name) for name in names)
    if not known and not all(pair.failed for pair in comparison.pairs):
        raise UnknownName("quantity", gate.name, names, where=f"--fail-if {gate.text}")


def _unjudged(pair: ComparedRow) -> dict[str, str]:
    """What has no comparison, with the reason."""
    return pair.missing | {one.name: one.reason for one in pair.unlike}


def _fits(name: str, wanted: str) -> bool:
    """The full name, or its last word where that is meant ("acc" for "task acc")."""
    return wanted in (name, name.rpartition(" ")[2])


def _judge_one(pair: ComparedRow, gate: Gate) -> GateResult:
    if pair.failed is not None:
        return GateResult(gate.text, pair.label, "unknown", pair.failed)
    fitting = [change for change in pair.changes if _fits(change.name, gate.name)]
    if not fitting:
        reason = next((why for name, why in _unjudged(pair).items() if _fits(name, gate.name)), "")
        return GateResult(gate.text, pair.label, "unknown", reason or "not measured on both sides")
    judged = [_past(change, gate) for change in fitting]
    failed = [reason for past, reason in judged if past]
    if failed:
        return GateResult(gate.text, pair.label, "failed", "; ".join(failed))
    return GateResult(gate.text, pair.label, "passed", "; ".join(reason for _, reason in judged))


def _past(change: Change, gate: Gate) -> tuple[bool, str]:
    bound = _bound(change, gate)
    low, high = (change.low, change.high)
    note = ""
    if change.items_low is not None and change.items_high is not None:
        low, high, note = change.items_low, change.items_high, "; over items, one training each"
    near = low if gate.sign == ">" else high
    decisive = change.estimate if near is None else near
    past = decisive > bound if gate.sign == ">" else decisive < bound
    text = f"{change.name} {show_change(change, change.estimate)}"
    if low is None or high is None:
        return past, f"{text} (no interval: {no_interval(change)})"
    return past, f"{text} [{show_change(change, low)}, {show_change(change, high)}{note}]"


def no_interval(change: Change) -> str:
    """Why a change has no interval."""
    return REASONS[change.obstacle] if change.obstacle else "one run on a side"


def sentence(result: GateResult) -> str:
    """What a gate found, for a reader who has not seen the expression."""
    gate = parse_gate(result.gate)
    unit = {"%": " %", "pp": " points", "": ""}[gate.unit]
    rises = gate.sign == ">"
    if gate.bound == 0 or (gate.bound > 0) is rises:
        limit = f"by more than {abs(gate.bound):g}{unit}" if gate.bound else "at all"
        verb = ("rose" if rises else "fell", "rise" if rises else "fall")
        found, not_found = f"{verb[0]} {limit}", f"did not {verb[1]} {limit}"
    else:
        found, not_found = f"is past {gate.text}", f"is not past {gate.text}"
    subject = f"{gate.name} of {result.pair}"
    if result.status == "unknown":
        return f"CANNOT TELL whether {subject} {found}: {result.reason}"
    if result.status == "failed":
        return f"FAILED: {subject} {found}: {result.reason}"
    return f"OK: {subject} {not_found}: {result.reason}"


def _bound(change: Change, gate: Gate) -> float:
    """The gate's bound in the terms of the change's estimate."""
    if gate.unit == "%":
        return gate.bound / 100 * (1.0 if change.relative else abs(change.before))
    absolute = gate.bound / 100 if gate.unit == "pp" else gate.bound
    return absolute / abs(change.before) if change.relative else absolute


def show_change(change: Change, value: float) -> str:
    """A change in its own terms."""
    if change.relative:
        return numbers.percent(value, signed=True)
    if change.share:
        return numbers.number(value * 100, signed=True, digits=3) + " points"
    return numbers.number(value, signed=True, digits=3)


def comparison_json(comparison: Comparison, outcomes: Sequence[GateResult]) -> str:
    """Everything compared, as one JSON document."""
    document = {
        "before": comparison.before.name,
        "after": comparison.after.name,
        "margin": comparison.margin,
        "unmatched": list(comparison.unmatched),
        "broken": [
            run.folder.path.name
            for side in (comparison.before, comparison.after)
            for run in side.broken
        ],
        "pairs": [asdict(pair) for pair in comparison.pairs],
        "gates": [asdict(outcome) for outcome in outcomes],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def comparison_junit(comparison: Comparison, outcomes: Sequence[GateResult]) -> str:
    """Gates as JUnit XML test cases: a failed gate is a failure, an unknown one an error."""
    status = [outcome.status for outcome in outcomes]
    suite = ET.Element(
        "testsuite",
        name=_xml_text(f"harness compare {comparison.before.name} {comparison.after.name}"),
        tests=str(len(outcomes)),
        failures=str(status.count("failed")),
        errors=str(status.count("unknown")),
        skipped="0",
    )
    for outcome in outcomes:
        case = ET.SubElement(
            suite, "testcase", classname=_xml_text(outcome.pair), name=_xml_text(outcome.gate)
        )
        if outcome.status == "passed":
            ET.SubElement(case, "system-out").text = _xml_text(outcome.reason)
        else:
            tag = "failure" if outcome.status == "failed" else "error"
            ET.SubElement(case, tag, message=_xml_text(outcome.reason))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _xml_text(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return FORBIDDEN_XML.sub("\ufffd", text)
