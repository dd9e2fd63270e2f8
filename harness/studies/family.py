"""Family: the arms that are compared with one reference and read together, and their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.report.pairing import Aligned
from harness.report.sample import Scale


@dataclass
class Family:
    """Comparisons with one reference that are read together, and how far their seeds are.

    ``ready`` counts the first seeds of each arm that have settled runs, the reference's too; an
    arm that is not trained is ready for any number. ``aligned`` holds the runs that ended well
    and can be compared; ``excluded`` says why runs of an arm are not among these.
    """

    aligned: Aligned | None
    scale: Scale | None
    reference: str
    labels: Sequence[str]
    ready: Mapping[str, int]
    dropped: frozenset[str] = frozenset()
    excluded: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _ended_well(self) -> dict[str, set[int] | None]:
        found: dict[str, set[int] | None] = {}
        if self.aligned is None:
            return found
        runs = zip(self.aligned.labels, self.aligned.seeds, self.aligned.trains, strict=True)
        for label, seed, trains in runs:
            before = found.setdefault(label, set() if trains else None)
            if before is not None:
                before.add(seed)
        return found

    def seeds(self, label: str, count: int) -> set[int] | None:
        """Of the first seeds, those at which an arm ended well; None where it is not trained."""
        found = self._ended_well.get(label, set())
        return None if found is None else {seed for seed in found if seed < count}

    def pairs(self, label: str, count: int) -> int:
        """At how many of the first seeds both an arm and the reference ended well."""
        own, other = self.seeds(label, count), self.seeds(self.reference, count)
        if own is None or other is None:
            return len(own or other or ())
        return len(own & other)


def restrict(aligned: Aligned, seeds: Mapping[str, int]) -> Aligned:
    """The runs of some arms at their first seeds; arms that are not named stay out."""
    kept = [
        run
        for run, (label, seed) in enumerate(zip(aligned.labels, aligned.seeds, strict=True))
        if label in seeds and (not aligned.trains[run] or seed < seeds[label])
    ]
    return aligned.take(kept)
