"""Wrapping: PEFT's configuration of an adapter, checked, and PEFT's modules around a model's."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
import warnings
from typing import TYPE_CHECKING, Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from harness.errors import InvalidFile, UnknownName
from harness.quantize.scheme import quiet_schemes
from harness.spec.methods import needs_of
from harness.spec.peft_files import DECIDED
from harness.spec.variant import Adapter

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

MANY_STEPS = 1_000_000  # until the number is known: enough for every schedule inside an adapter


def adapter_config(adapter: Adapter, steps: int | None = None) -> PeftConfig:
    """PEFT's own configuration object for ``adapter``.

    A type that asks for the number of optimizer steps is told ``steps``, unless its author has
    set the field.

    Raises:
        UnknownName: PEFT knows no such adapter type, or the type no such field.
        InvalidFile: a value is not of the field's type, or PEFT refuses it.
    """
    quiet_schemes()  # PEFT imports what it can find of their packages
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {str(getattr(kind, "value", kind)): cls for kind, cls in _mapping_items()}
    if adapter.type not in kinds:
        raise UnknownName("adapter type", adapter.type, kinds, where="[adapter] type")
    cls = PEFT_TYPE_TO_CONFIG_MAPPING[adapter.type]
    known = {field.name for field in dataclasses.fields(cls) if field.init} - DECIDED
    for name in adapter.fields:
        if name not in known:
            raise UnknownName(f"{adapter.type} adapter field", name, known, where="[adapter]")
    fields = {**adapter.fields, **_check_types(cls, adapter)}
    _check_patterns(adapter)
    wants_steps = needs_of(adapter).steps
    if wants_steps is not None:
        fields.setdefault(wants_steps, steps or MANY_STEPS)
    try:
        return cls(task_type="CAUSAL_LM", **fields)
    except (TypeError, ValueError) as error:
        raise InvalidFile(
            f"PEFT refuses the {adapter.type} configuration: {error}", where="[adapter]"
        ) from None


def _mapping_items() -> Any:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING.items()


def _check_types(cls: type, adapter: Adapter) -> dict[str, Any]:
    """PEFT's classes state types but do not check them; a wrong one would fail much later.

    Returns the fields that are configurations of their own (EVA's, CorDA's), as PEFT's objects.
    """
    made: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for name, value in adapter.fields.items():
        try:
            checker: TypeAdapter[Any] = TypeAdapter(hints[name])
        except PydanticUserError:  # a type that only PEFT can make
            continue
        try:
            found = checker.validate_json(json.dumps(value), strict=True)
            if dataclasses.is_dataclass(found):
                made[name] = found
        except ValidationError as error:
            if isinstance(value, str) and _has_pattern(hints[name]):
                continue
            reasons = dict.fromkeys(item["msg"] for item in error.errors())
            raise InvalidFile(
                f"{adapter.type} adapter field {name} = {value!r}",
                where=f"[adapter] {name}",
                expected="; or ".join(reasons),
            ) from None
    return made


def _check_patterns(adapter: Adapter) -> None:
    """PEFT matches names of layers with these, and would fail in the middle of it."""
    for name, value in adapter.fields.items():
        if name in ("target_modules", "exclude_modules") and isinstance(value, str):
            patterns = [value]
        elif name.endswith("_pattern") and isinstance(value, dict):
            patterns = list(value)
        else:
            continue
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InvalidFile(
                    f"{adapter.type} adapter field {name} = {pattern!r}",
                    where=f"[adapter] {name}",
                    expected=f"a regular expression, or a list of names: {error}",
                ) from None


def _has_pattern(hint: object) -> bool:
    """Whether a literal stands for many strings, as ``"pissa_niter_[number of iters]"`` does."""
    parts = typing.get_args(hint)
    return any("[" in part if isinstance(part, str) else _has_pattern(part) for part in parts)


def wrap(model: nn.Module, adapter: Adapter, *, steps: int | None = None, **options: bool) -> Any:
    """``model`` with a new adapter in the dtypes that PEFT chose; ``steps`` as above.

    Raises:
        UnknownName, InvalidFile: as :func:`adapter_config`, and when the adapter does not fit the
            model, for example because no layer has the name of a target module.
    """
    from peft import get_peft_model

    config = adapter_config(adapter, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_peft_model(model, config, autocast_adapter_dtype=False, **options)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise InvalidFile(
                f"the {adapter.type} adapter does not fit the model: {error}", where="[adapter]"
            ) from error
