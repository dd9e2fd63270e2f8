"""Form: what a result can be deployed as, and how a form is written in files and commands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, JsonValue

from harness.errors import UnknownName, UserError
from harness.spec.schemes import scheme_names

Kind = Literal["training", "16bit", "merged", "merged_dequantized", "again", "gguf"]
"""What a form is made of.

``training``: the model as it was trained, an adapter on its own base. ``16bit``: that adapter on
the unquantized base. ``merged``: the adapter merged into the original weights.
``merged_dequantized``: merged into the weights that training saw, the quantized ones expanded
again. ``again``: merged into the original weights and quantized again by any scheme. ``gguf``:
merged into the original weights and written in a llama.cpp type.
"""

AGAIN = "_again"
ALIASES = {"adapter": "training", "merged_4bit": "nf4_again"}
QUANTS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0")
"""llama.cpp's names of the file types that a GGUF file can be written in."""


LOUD_NATS = 0.01
"""KL divergence per token from the model as trained above which a form is more than rounding.

Merges into 16-bit weights lie below 1e-3.
"""


@dataclass(frozen=True)
class Form:
    """One form, taken apart.

    ``quant`` is the type of a GGUF file. ``scheme`` and ``settings`` say how weights are quantized
    again; the scheme checks them when a plan is made (:func:`harness.forms.again.quantized_as`),
    so that a record can be read where its scheme is not installed. ``typed`` is the text that it
    was read from, which may be an alias.
    """

    kind: Kind
    quant: str | None = None
    scheme: str | None = None
    settings: tuple[tuple[str, JsonValue], ...] = ()
    typed: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """As records have it: ``merged``, ``gguf:Q8_0``, ``hqq_again:bits=3``.

        NF4 with the double quantization of training has kept its first name, ``merged_4bit``.
        """
        if self.scheme is None:
            return self.kind if self.quant is None else f"{self.kind}:{self.quant}"
        if self.scheme == "nf4" and not self.settings:
            return "merged_4bit"
        settings = ",".join(f"{key}={json.dumps(value)}" for key, value in self.settings)
        return f"{self.scheme}{AGAIN}" + (f":{settings}" if settings else "")

    @property
    def asked(self) -> str:
        """As it was typed; records call an adapter ``training`` and ``nf4_again`` otherwise too."""
        return "adapter" if self.kind == "training" else self.typed or self.name

    @property
    def merges(self) -> bool:
        """Whether an adapter has to be merged for it."""
        return self.kind not in ("training", "16bit")


def parse_form(text: str, *, where: object = None) -> Form:
    """Read ``merged``, ``gguf:Q4_K_M``, ``int8_again``, ``hqq_again:bits=3`` or an alias.

    Raises:
        UnknownName: no such form, or no such GGUF type.
        UserError: a type or settings behind a form that has none, or GGUF without a type.
    """
    return replace(_parsed(text, where), typed=text)


def _parsed(text: str, where: object) -> Form:
    head, colon, detail = text.partition(":")
    kind = ALIASES.get(head, head)
    if kind.endswith(AGAIN) and kind != AGAIN:
        return Form("again", None, kind.removesuffix(AGAIN), _settings(text, detail, where))
    if kind not in get_args(Kind) or kind == "again":
        raise UnknownName("form", text, form_names(), where=where)
    if (kind == "gguf") != bool(colon):
        expected = f"gguf:TYPE, one of {', '.join(QUANTS)}" if kind == "gguf" else head
        raise UserError(f"{text!r} is not a form", where=where, expected=expected)
    if colon and detail not in QUANTS:
        raise UnknownName("GGUF type", detail, QUANTS, where=where)
    return Form(kind, detail or None)  # type: ignore[arg-type]


def _settings(text: str, detail: str, where: object) -> tuple[tuple[str, JsonValue], ...]:
    """``bits=3,group_size=64`` in the order of names; values as JSON, else as text."""
    found: dict[str, JsonValue] = {}
    for part in detail.split(",") if detail else ():
        key, equals, value = part.partition("=")
        if not (key and equals and value) or key == "type":
            raise UserError(
                f"{text!r} is not a form",
                where=where,
                expected="settings of the scheme as KEY=VALUE,KEY=VALUE: hqq_again:bits=3",
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return tuple(sorted(found.items()))


def form_names() -> list[str]:
    """Every name that :func:`parse_form` takes, GGUF as a pattern, schemes without settings."""
    kinds = [kind for kind in get_args(Kind) if kind not in ("training", "gguf", "again")]
    again = [f"{name}{AGAIN}" for name in scheme_names() if name != "none"]
    return ["adapter", *kinds, "merged_4bit", *again, "gguf:TYPE"]


def _checked(text: str) -> str:
    try:
        return parse_form(text).name
    except UserError as error:
        expected = f"; expected {error.expected}" if error.expected else ""
        raise ValueError(f"{error.what}{expected}") from None


FormName = Annotated[str, AfterValidator(_checked)]
"""A form in a file; aliases are written out when it is read."""
