"""Markdown: text escaped so that no name, message or answer can act as markup."""

from __future__ import annotations

import re

from harness.report.blocks import Cell, Span

SAFE_CODE = re.compile(r"[A-Za-z0-9 ._=+/:,'\[\]()#-]+")
SPECIAL = re.compile(r"[\\`*\[\]<>#|!~$&{}@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
LINKS = re.compile(r"(?i)\b(https?|ftp|mailto|www)([:.])")
BLOCK_START = re.compile(r"^(?:[-+=]|\d+[.)])(?=\s|$)|^[-=]{2,}")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "$": "&#36;", "~": "&#126;"}


def escape(text: str) -> str:
    """Text that renders as itself on one line, inside tables too."""
    text = " ".join(harmless(text).split())
    text = SPECIAL.sub(lambda found: ENTITIES.get(found[0], "\\" + found[0]), text)
    return LINKS.sub(lambda found: f"{found[1]}&#{ord(found[2])};", text)


def paragraph(text: str) -> str:
    """Escaped text at the start of a line, where it could begin a list or a heading."""
    return BLOCK_START.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), escape(text))


def harmless(text: str) -> str:
    """Control and text-direction characters made visible, so that they cannot rearrange a line."""
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]",
        "\ufffd",
        text,
    )


def inline_code(text: str) -> str:
    """A code span where the text allows one, escaped text otherwise."""
    if SAFE_CODE.fullmatch(text) and text.strip() == text:
        return f"`{text}`"
    return escape(text)


def span(part: Span) -> str:
    """A span of running text."""
    if part.style == "code":
        return inline_code(part.text)
    lead = " " if part.text[:1] == " " else ""
    tail = " " if part.text[-1:] == " " and len(part.text) > 1 else ""
    text = escape(part.text)
    return f"{lead}**{text}**{tail}" if part.style == "strong" else f"{lead}{text}{tail}"


def cell(value: Cell) -> str:
    """A table cell; verdicts that matter stand out, and numbers stay on one line."""
    if value.style == "code":
        return inline_code(value.text)
    text = escape(value.text)
    if isinstance(value.sort, int | float):
        text = text.replace(" ", "\u00a0")
    return f"**{text}**" if value.style == "strong" or value.tone in ("bad", "good") else text


def fence(text: str, language: str = "") -> str:
    """A fenced block that its content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    body = "\n".join(harmless(line) for line in text.replace("\r", "\n").split("\n"))
    return f"{ticks}{language}\n{body}\n{ticks}"
