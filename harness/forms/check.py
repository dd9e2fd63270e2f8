"""Check: whether a form can be made of a plan's result, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.forms.again import check_again
from harness.forms.merging import check_mergeable
from harness.spec.form import Form
from harness.spec.plan import Plan


def check_form(plan: Plan, form: Form) -> None:
    """Refuse a form that the adapter's method, the model's family or a missing library rules out.

    Raises:
        UserError: with the reason and what to do.
    """
    if not form.merges or not plan.trains:
        return
    if plan.adapter is not None and "model_type" in plan.model.config:
        check_mergeable(plan.adapter, plan.model, form.asked)
    if form.scheme is not None:
        check_again(form, plan)
    if form.quant is not None:
        from harness.forms.gguf.families import family_of
        from harness.forms.gguf.types import check_library

        check_library(form.quant)
        model_type = plan.model.config.get("model_type")
        if isinstance(model_type, str):
            family_of(model_type).check_scaling(_rope_scaling(plan.model.config))


def _rope_scaling(config: Mapping[str, Any]) -> str:
    """The kind of rotary scaling in a ``config.json``, as transformers has written it over time."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return str(found.get("rope_type") or found.get("type") or "default")
