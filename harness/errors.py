"""Everything that can go wrong in a way the harness understands.

::

    HarnessError                 catch this one to catch them all; exit code 1
    ├── UserError                the user can mend it by typing or editing; exit code 2
    │   ├── UnknownName          no variant, suite, model, task or key of that name
    │   ├── InvalidFile          a TOML or JSON file, or a --set value, that does not fit its type
    │   └── CorpusError          a data file that is cut, empty, malformed or holds nothing usable
    │       └── TooFew           too few conversations for what is asked of them
    ├── FetchError               a download failed or its bytes are not the expected ones
    ├── StorageError             a folder or file that cannot be read or written
    │   └── RunInUse             another process is running this plan
    ├── BudgetUsedUp             a study's hours are over while runs are under way
    ├── Unpredicted              what a run will need cannot be known before it
    └── RunError                 a run that started and could not be finished
        ├── LeakageError         a held-out message also occurs in training
        ├── CensusError          the loaded model is not the one that was planned
        ├── DivergedError        a loss or score that is not a finite number
        └── LostDevice           another device's process has ended or does not answer

An error says what is wrong, where, what was expected and what to do next. Only ``cli`` prints it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SHOWN_NAMES = 70
"""A message spells out at most so many names: there are 14,000 tasks."""
LISTED = ("variant", "suite", "model", "task")
"""Kinds whose names ``harness list`` shows."""


class HarnessError(Exception):
    """Root of the tree. ``str()`` gives the full message, one line per part."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        """Keep the parts: ``what`` went wrong, ``where``, what was ``expected``, what to do."""
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else str(expected)
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process as it is: its class, its parts and what else it knows."""
        return _arrived, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where:    {self.where}")
        if self.expected:
            parts.append(f"  expected: {self.expected}")
        if self.hint:
            parts.append(f"  try:      {self.hint}")
        return "\n".join(parts)


def _arrived(
    kind: type[HarnessError], args: tuple[object, ...], parts: dict[str, object]
) -> HarnessError:
    """An error of another process, without asking for the arguments that made it there."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(parts)
    return error


class UserError(HarnessError):
    """Something typed or written by the user does not fit."""

    exit_code = 2


def _close_to(name: str, names: Sequence[str]) -> list[str]:
    """The likeliest of ``names``: those of which the typed one is a part, then those alike."""
    around = [one for one in names if name in one.split("_")] if name else []
    alike = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return list(dict.fromkeys([*sorted(around, key=len)[:2], *alike]))[:3]


class UnknownName(UserError):  # noqa: N818 - the tree names conditions, not "...Error" throughout
    """A name that is not in its list; the message offers close matches and the valid names."""

    def __init__(self, kind: str, name: str, valid: Iterable[str], *, where: object = None) -> None:
        """Describe an unknown ``name`` of ``kind`` ("variant", "suite", …) among ``valid`` ones."""
        names = sorted(set(valid))
        close = _close_to(name, names)
        hint = f"did you mean {' or '.join(close)}?" if close else None
        expected = f"one of {', '.join(names)}"
        if len(names) > SHOWN_NAMES:
            expected = f"one of {len(names):,} names"
            expected += f"; 'harness list {kind}s' shows them" if kind in LISTED else ""
        super().__init__(f"unknown {kind} {name!r}", where=where, expected=expected, hint=hint)
        self.name = name


class InvalidFile(UserError):  # noqa: N818
    """A file or --set value whose content does not fit its type."""


class CorpusError(UserError):
    """Conversation data that cannot be used as it is."""


class TooFew(CorpusError):  # noqa: N818 - the tree names conditions
    """Too few conversations on one side for what is asked of them."""


class FetchError(HarnessError):
    """A download that failed, or bytes that are not the ones expected."""


class StorageError(HarnessError):
    """A folder or file of the harness that cannot be read or written."""


class RunInUse(StorageError):  # noqa: N818 - the tree names conditions
    """Another process is running this plan."""


class BudgetUsedUp(HarnessError):  # noqa: N818 - the tree names conditions
    """The hours of a study are over: runs under way end, and go on where there are more."""


class Unpredicted(HarnessError):  # noqa: N818
    """A number of a plan that only the run itself can tell; the run can be made all the same."""


class RunError(HarnessError):
    """A run that started and could not be finished."""


class LeakageError(RunError):
    """A held-out message text also occurs in the training conversations."""


class CensusError(RunError):
    """The loaded model differs from the plan (quantization, dtype, parameter count)."""


class DivergedError(RunError):
    """A loss or a score that is not a finite number."""


class LostDevice(RunError):  # noqa: N818 - the tree names conditions
    """The process of another device has ended, or does not answer."""


def user_mistakes() -> set[str]:
    """Names of the errors that are the user's to mend, as a record's problem names them."""
    return {kind.__name__ for kind in _with_subclasses(UserError)}


def machine_troubles() -> set[str]:
    """Names of the errors that a network or a disk causes: they say nothing about a variant."""
    return {FetchError.__name__, StorageError.__name__}


def _with_subclasses(kind: type[HarnessError]) -> set[type[HarnessError]]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))
