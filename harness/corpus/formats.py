"""Formats: the names of the layouts of conversation data, and how a file's is recognised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from itertools import chain, islice

from harness.corpus.files import Record
from harness.corpus.trees import Format
from harness.errors import CorpusError, UnknownName, UserError

SNIFFED_RECORDS = 20

# An installed package adds a format by an entry point of this group:
#     [project.entry-points."finetune_harness.formats"]
#     my_format = "my_package.my_module:MY_FORMAT"
GROUP = "finetune_harness.formats"

# The registration of the harness's own formats, in the notation of entry points. The first whose
# layout fits is taken; those of installed packages come before them.
BUILT_IN = {
    "trees": "harness.corpus.oasst:TREES",
    "messages": "harness.corpus.oasst:MESSAGES",
    "preferences": "harness.corpus.prompts:PREFERENCES",
    "guanaco": "harness.corpus.chat:GUANACO",
    "chat": "harness.corpus.chat:CHAT",
    "ranked": "harness.corpus.prompts:RANKED",
    "pairs": "harness.corpus.prompts:PAIRS",
}


def format_names() -> list[str]:
    """Names of all formats in the order of recognition, those of installed packages first."""
    outside = [name for name in sorted(_outside()) if name not in BUILT_IN]
    return [*outside, *BUILT_IN]


def load_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UnknownName: there is none.
        UserError: the package that brings it cannot be imported.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: Format = getattr(import_module(module), attribute)
        return built_in
    outside = _outside()
    if name not in outside:
        raise UnknownName("corpus format", name, ["auto", *format_names()], where="corpus.format")
    try:
        found: Format = outside[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the package that brings corpus format {name} cannot be imported: {error}",
            where=f"entry point {name} = {outside[name].value} of group {GROUP}",
            hint="mend or remove that package",
        ) from error
    return found


def _outside() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def recognise(records: Iterator[Record], name: str) -> tuple[str, Iterator[Record]]:
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
