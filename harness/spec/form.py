"""Form: what a result can be deployed as, and how a form is written in files and commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from harness.errors import UnknownName, UserError

Kind = Literal["training", "16bit", "merged", "merged_dequantized", "merged_4bit", "gguf"]
"""What a form is made of.

``training``: the model as it was trained, an adapter on its own base. ``16bit``: that adapter on
the unquantized base. ``merged``: the adapter merged into the original weights.
``merged_dequantized``: merged into the weights that training saw, the quantized ones expanded
again. ``merged_4bit``: merged into the original weights and quantized to NF4 again. ``gguf``:
merged into the original weights and written in a llama.cpp type.
"""

ALIASES = {"adapter": "training", "nf4_again": "merged_4bit"}
QUANTS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0")
"""llama.cpp's names of the file types that a GGUF file can be written in."""


LOUD_NATS = 0.01
"""KL divergence per token from the model as trained above which a form is more than rounding.

Merges into 16-bit weights lie below 1e-3.
"""


@dataclass(frozen=True)
class Form:
    """One form, taken apart."""

    kind: Kind
    quant: str | None = None

    @property
    def name(self) -> str:
        """As records have it: ``merged``, ``gguf:Q8_0``."""
        return self.kind if self.quant is None else f"{self.kind}:{self.quant}"

    @property
    def merges(self) -> bool:
        """Whether an adapter has to be merged for it."""
        return self.kind not in ("training", "16bit")


def parse_form(text: str, *, where: object = None) -> Form:
    """Read ``merged``, ``gguf:Q4_K_M`` or an alias (``adapter``, ``nf4_again``).

    Raises:
        UnknownName: no such form, or no such GGUF type.
        UserError: a type behind a form that has none, or GGUF without one.
    """
    head, colon, quant = text.partition(":")
    kind = ALIASES.get(head, head)
    if kind not in get_args(Kind):
        raise UnknownName("form", text, form_names(), where=where)
    if (kind == "gguf") != bool(colon):
        expected = f"gguf:TYPE, one of {', '.join(QUANTS)}" if kind == "gguf" else head
        raise UserError(f"{text!r} is not a form", where=where, expected=expected)
    if colon and quant not in QUANTS:
        raise UnknownName("GGUF type", quant, QUANTS, where=where)
    return Form(kind, quant or None)  # type: ignore[arg-type]


def form_names() -> list[str]:
    """Every name that :func:`parse_form` takes, GGUF as a pattern."""
    kinds = [kind for kind in get_args(Kind) if kind not in ("training", "gguf")]
    return ["adapter", *kinds, "nf4_again", "gguf:TYPE"]


def _checked(text: str) -> str:
    try:
        return parse_form(text).name
    except UserError as error:
        expected = f"; expected {error.expected}" if error.expected else ""
        raise ValueError(f"{error.what}{expected}") from None


FormName = Annotated[str, AfterValidator(_checked)]
"""A form in a file; aliases are written out when it is read."""
