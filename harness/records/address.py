"""Address: how a person names runs, as SUITE/VARIANT or SUITE/VARIANT/SEED."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records.store import RunFolder, RunStore


@dataclass(frozen=True)
class RunAddress:
    """Runs as typed: the name that they are kept under, the variant and, where given, the seed.

    In the seed's place may stand the start of the folder's name, which has the seed and a digest.
    """

    suite: str
    variant: str
    rest: str = ""

    @classmethod
    def read(cls, text: str, store: RunStore) -> RunAddress | None:
        """``text`` as an address of what ``store`` holds, or None where it is none."""
        parts = text.strip("/").split("/")
        if len(parts) not in (2, 3) or parts[0] not in store.suites():
            return None
        return cls(*parts)

    def names(self, folder: RunFolder) -> bool:
        """Whether the run in ``folder``, ``<suite>/<variant>/<seed>-<digest>``, is meant."""
        run = folder.path
        return (run.parents[1].name, run.parent.name) == (self.suite, self.variant) and (
            not self.rest
            or self.rest == run.name.partition("-")[0]
            or ("-" in self.rest and run.name.startswith(self.rest))
        )
