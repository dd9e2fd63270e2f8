"""Request: what a user asks to run, and the plans that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.spec.device import Device
from harness.spec.model import FolderSource, HubSource, Model
from harness.spec.overrides import changes_suite, merge, parse_settings
from harness.spec.plan import Plan, RunRequest, Substitution
from harness.spec.planning import make_plan
from harness.spec.registry import load_model, load_suite, load_variant, model_names
from harness.spec.schema import parse
from harness.spec.suite import Suite
from harness.spec.variant import Variant


@dataclass(frozen=True)
class Request:
    """What a user asks to run or to plan, as typed; ``name`` is that of the suite as changed."""

    variants: tuple[str, ...]
    suite: str = "quick"
    settings: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    name: str = ""

    def of_run(self, variant: str) -> RunRequest:
        """The part that asks for the runs of one variant."""
        return RunRequest(
            variant=variant,
            suite=self.suite,
            settings=self.settings,
            tasks=self.tasks,
            name=self.name,
        )


def requested_suite(request: Request) -> Suite:
    """The suite with everything that ``request`` changes, and the name that it asks for."""
    overrides = suite_overrides(request)
    suite = load_suite(request.suite, overrides)
    if request.name:
        named = {**suite.model_dump(mode="json"), "name": request.name}
        suite = parse(Suite, named, where=f"--name {request.name}")
    return suite


def suite_overrides(request: Request) -> dict[str, Any]:
    """What ``request`` changes in its suite, as a nested table."""
    _, overrides = parse_settings(request.settings)
    if not request.tasks:
        return overrides
    suite = load_suite(request.suite, overrides)
    tasks = [task.model_dump(mode="json") for task in suite.score.tasks]
    tasks += [{"name": name} for name in request.tasks]
    return merge(overrides, {"score": {"tasks": tasks}})


def suite_changes(request: RunRequest) -> list[str]:
    """What a run changes in its suite's file, as typed."""
    typed = [setting for setting in request.settings if changes_suite(setting)]
    tasks = [f"task {name}" for name in request.tasks]
    return [setting.removeprefix("suite.") for setting in typed] + tasks


def resolve(request: Request, device: Device) -> list[Plan]:
    """Plans of all requested variants and seeds (the suite's, if none are given) on ``device``.

    ``request.tasks`` are scored in addition to the suite's own. A variant that trains nothing has
    one plan, since no score of it depends on a seed.
    """
    variant_overrides, _ = parse_settings(request.settings)
    suite = requested_suite(request)
    model = load_model(suite.model)
    chosen = [load_variant(name, suite, variant_overrides) for name in request.variants]
    made = [
        (name, make_plan(variant, suite, model, seed, device))
        for seed, name, variant in _seeded(request, chosen, request.seeds or suite.seeds)
    ]
    found = tuple(_own_substitutions(suite.model, model))
    return [
        plan.model_copy(
            update={
                "request": request.of_run(name),
                "substitutions": (*found, *plan.substitutions),
            }
        )
        for name, plan in made
    ]


# Whatever seeds others have, so that it is found again when more are run.
UNTRAINED_SEED = 0


def _seeded(
    request: Request, variants: Sequence[Variant], seeds: Sequence[int]
) -> Iterator[tuple[int, str, Variant]]:
    """Every variant with every seed, as it was named; one that trains nothing comes once."""
    for place, seed in enumerate(seeds):
        for name, variant in zip(request.variants, variants, strict=True):
            if variant.method != "none":
                yield seed, name, variant
            elif place == 0:
                yield UNTRAINED_SEED, name, variant


def _own_substitutions(asked: str, model: Model) -> Iterator[Substitution]:
    """What a model that is named by its folder or hub id has not got itself."""
    own = isinstance(model.source, FolderSource | HubSource) and asked not in model_names()
    if own and not asked.endswith(".toml") and model.chat_template is not None:
        yield Substitution(
            key="model.chat_template",
            asked=None,
            used=model.chat_template,
            reason=f"the tokenizer of {model.name} brings no chat template",
        )
