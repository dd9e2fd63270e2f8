"""Strict frozen types, and what is wrong with data that do not fit them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from harness.errors import InvalidFile

ANY = object()  # whatever the value is
SECRET = re.compile(r"[^\s/'\"@:]+:[^\s/'\"@]+@")  # a user and a token in front of a host


class Frozen(BaseModel):
    """Base of every type of the project: immutable, strict, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


Migration = Callable[[dict[str, Any]], dict[str, Any]]


class Versioned(Frozen):
    """A document that outlives the program that wrote it.

    ``SCHEMA_VERSION`` rises with every change that old readers would misread. ``MIGRATIONS`` then
    gets a function under the number of the older version, which makes a document of the next
    version from its plain data; reading a file applies them one after the other.
    """

    SCHEMA_VERSION: ClassVar[int] = 1
    MIGRATIONS: ClassVar[Mapping[int, Migration]] = {}
    schema_version: int


F = TypeVar("F", bound=Frozen)


def parse(kind: type[F], data: Mapping[str, Any], *, where: object) -> F:
    """Validate ``data`` as ``kind``.

    Validation goes through JSON, so that TOML lists are accepted for tuples while every other
    rule stays strict.

    Raises:
        InvalidFile: naming ``where``, each offending key, what was found and what was expected.
    """
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidFile(f"not plain data: {error}", where=where) from None
    return _validate(kind, text, where)


def _validate(kind: type[F], text: str, where: object) -> F:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise not_valid(kind, error, where) from None


def not_valid(kind: type[BaseModel], error: ValidationError, where: object) -> InvalidFile:
    """The error that names every key of a document that does not fit its type."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    what = f"not a valid {words}"
    return InvalidFile(what, where=where, expected=_explain(error, kind))


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line per offending key."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "(whole document)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_alternatives(kind, item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing")
        else:
            reason = item["msg"].removeprefix("Value error, ")
            found = SECRET.sub("…@", repr(item["input"]))
            lines.append(f"{key}: {reason}, found {found:.80}")
    return "\n            ".join(lines)


def _alternatives(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Keys that could have been meant at ``place`` in a document of ``kind``."""
    *path, key = place
    for part in path:
        if isinstance(part, int):
            continue
        field = kind.model_fields.get(part)
        inner = None if field is None else model_in(field.annotation)
        if inner is None:
            return ""
        kind = inner
    close = difflib.get_close_matches(str(key), kind.model_fields, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known are {', '.join(sorted(kind.model_fields))}"


def model_in(annotation: object) -> type[BaseModel] | None:
    """The one type of ours inside ``Adapter | None``, ``tuple[Task, ...]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = {inner for part in get_args(annotation) if (inner := model_in(part)) is not None}
    return found.pop() if len(found) == 1 else None


def leave_out(data: Any, key: str, when: object = ANY) -> None:
    """Delete the dotted ``key`` from plain data, in every item of a list on the way.

    With ``when``, only where it has that value.
    """
    first, _, rest = key.partition(".")
    if isinstance(data, list):
        for item in data:
            leave_out(item, key, when)
    elif isinstance(data, dict) and first in data:
        if rest:
            leave_out(data[first], rest, when)
        elif when is ANY or data[first] == when:
            del data[first]


def default_of(kind: type[BaseModel], key: str) -> Any:
    """The default of the dotted ``key`` in a document of ``kind``, as plain data."""
    first, _, rest = key.partition(".")
    field = kind.model_fields[first]
    if rest:
        inner = model_in(field.annotation)
        if inner is None:
            msg = f"{first} holds no section"
            raise KeyError(msg)
        return default_of(inner, rest)
    return to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))


def with_nulls(kind: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with null for every ``"none"`` that stands where ``kind`` allows null.

    Where ``kind`` has a list, ``"none"`` is the empty one. Elsewhere it is a value like any other:
    ``quantization.type`` may be ``"none"``.
    """
    found = dict(data)
    for key, value in data.items():
        field = kind.model_fields.get(key)
        inner = None if field is None else model_in(field.annotation)
        if field is not None and value == "none" and type(None) in get_args(field.annotation):
            found[key] = None
        elif field is not None and value == "none" and get_origin(field.annotation) is tuple:
            found[key] = []
        elif inner is not None and isinstance(value, Mapping):
            found[key] = with_nulls(inner, value)
    return found
