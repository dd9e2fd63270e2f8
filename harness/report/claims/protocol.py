"""Protocol: what a suite decides for the training of every variant, and which runs had the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.origins import assumed_names, base_weights, settled_by_name
from harness.report.settings import flatten, plain
from harness.spec.overrides import PROTOCOL_SECTIONS, parse_settings
from harness.spec.plan import Plan

SHOWN = 3  # keys of a difference


@dataclass(frozen=True)
class Protocol:
    """What a suite decided for a run, as text: for its training, and for its number formats.

    Equal texts are equal protocols. What a variant names itself, in its file or by --set, is its
    own and in none of them.
    """

    training: str
    precision: str


def protocols_of(plans: Sequence[Plan]) -> list[Protocol]:
    """The protocol of each plan, in order.

    Plans of older harnesses do not hold what their suite's file said. Such a plan is taken to have
    had what the others of a suite of that name had, with the same changes as typed, if those agree.
    """
    whole = _settled(plans, PROTOCOL_SECTIONS)
    formats = _settled(plans, ("precision",))
    return [
        Protocol(f"{training} {_order(plan)}", precision)
        for plan, training, precision in zip(plans, whole, formats, strict=True)
    ]


def _settled(plans: Sequence[Plan], sections: Sequence[str]) -> list[str]:
    """Some sections of each plan's protocol; of one that is not known, its suite's name."""
    names = [_named(plan, sections) for plan in plans]
    found = settled_by_name(names, [_known(plan, sections) for plan in plans])
    return [text or name for text, name in zip(found, names, strict=True)]


def _named(plan: Plan, sections: Sequence[str]) -> str:
    """The suite's file and what was typed to change these sections of it."""
    request = plan.request
    if request is None:
        return plan.suite
    _, typed = parse_settings(request.settings)
    changes = {section: typed[section] for section in sections if section in typed}
    name = request.suite.replace("\\", "/").rpartition("/")[2].removesuffix(".toml")
    return json.dumps([name, changes], sort_keys=True)


def _known(plan: Plan, sections: Sequence[str]) -> str | None:
    if plan.protocol is None:
        return None
    return plan.protocol.model_dump_json(include=set(sections))


def _order(plan: Plan) -> str:
    """What else a suite decides of a training: its order, and which weights are kept."""
    validation = plan.validation
    stops = validation.keep != "last" or validation.patience is not None
    return json.dumps([plan.order, plan.order_seed, validation.model_dump() if stops else None])


def assumed_suites(plans: Sequence[Plan]) -> list[str]:
    """Suites of which some plans hold what they decided and others do not."""
    names = [_named(plan, PROTOCOL_SECTIONS) for plan in plans]
    guessed = assumed_names(names, [_known(plan, PROTOCOL_SECTIONS) for plan in plans])
    suites: dict[str, str] = {}
    for name, plan in zip(names, plans, strict=True):
        suites.setdefault(name, plan.request.suite if plan.request else plan.suite)
    return sorted(suites[name] for name in guessed)


def how_apart(own: Plan, other: Plan) -> str:
    """Why runs on one model, corpus, budget and device stand on grounds of their own, in words."""
    weights = base_weights([own, other])
    if weights[0] != weights[1]:
        return "on other weights under the same name"
    pairs = [_decided(plan) for plan in (own, other)]
    keys = [key for key in pairs[0] if pairs[0][key] != pairs[1].get(key)]
    if own.protocol is None or other.protocol is None or not keys:
        return f"under suite {other.suite}, of which it is not known whether it trains alike"
    shown = [f"{key} = {plain(pairs[1].get(key))}, not {plain(pairs[0][key])}" for key in keys]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return f"by a suite with {'; '.join(shown[:SHOWN])}{more}"


def _decided(plan: Plan) -> dict[str, Any]:
    protocol = {} if plan.protocol is None else plan.protocol.model_dump(mode="json")
    validation = plan.validation.model_dump(mode="json")
    rest = {"order": plan.order, "order_seed": plan.order_seed, "validation": validation}
    return flatten(protocol | rest)
