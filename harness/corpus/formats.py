"""Formats: the names of the layouts of conversation data, and how a file's is recognised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from harness.corpus.files import DataRecord
from harness.corpus.trees import Format
from harness.errors import CorpusError, UnknownName
from harness.spec.plugins import Plugins

SNIFFED_RECORDS = 20

# The first whose layout fits is taken; those of installed packages come before the harness's own.
FORMATS = Plugins(
    "corpus format",
    "finetune_harness.formats",
    {
        "trees": "harness.corpus.oasst:TREES",
        "messages": "harness.corpus.oasst:MESSAGES",
        "preferences": "harness.corpus.prompts:PREFERENCES",
        "guanaco": "harness.corpus.chat:GUANACO",
        "chat": "harness.corpus.chat:CHAT",
        "ranked": "harness.corpus.prompts:RANKED",
        "pairs": "harness.corpus.prompts:PAIRS",
    },
)


def format_names() -> list[str]:
    """Names of all formats in the order of recognition, those of installed packages first."""
    return [*FORMATS.outside(), *FORMATS.built_in]


def load_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UnknownName: there is none.
        UserError: the package that brings it cannot be imported.
    """
    if name in format_names():
        found: Format = FORMATS.load(name)
        return found
    raise UnknownName("corpus format", name, ["auto", *format_names()], where="corpus.format")


def recognise(records: Iterator[DataRecord], name: str) -> tuple[str, Iterator[DataRecord]]:
    """The format's name, and the records again from the first.

    "auto" takes the first format that fits one of the first records.

    Raises:
        CorpusError: no format fits.
    """
    if name != "auto":
        return name, records
    sample = list(islice(records, SNIFFED_RECORDS))
    formats = {candidate: load_format(candidate) for candidate in format_names()}
    for candidate, layout in formats.items():
        if any(isinstance(r.data, Mapping) and layout.matches(r.data) for r in sample):
            return candidate, chain(sample, records)
    if not sample:
        return "chat", records
    found = sample[0].data
    keys = ", ".join(map(str, list(found)[:12])) if isinstance(found, Mapping) else "no keys"
    raise CorpusError(
        f"not a known conversation format; the record has {keys}",
        where=sample[0].place,
        expected="\n            ".join(f"{k}: {v.description}" for k, v in formats.items()),
        hint="convert the file to one of these",
    )
