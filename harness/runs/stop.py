"""Stop: how whoever ordered a run asks it to end, also from another thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness.errors import BudgetUsedUp, HarnessError


class Stop:
    """Asked once, runs end and write their records; asked again, they end at once."""

    def __init__(self) -> None:
        """Ask for nothing yet."""
        self._times = 0
        self.reason = ""
        """Why, in words; empty where a person asked for it."""

    def ask(self, reason: str = "") -> None:
        """Ask for the end, or if that has been done, for the end at once."""
        if not self._times:
            self.reason = reason
        self._times += 1

    @property
    def asked(self) -> bool:
        """Whether runs shall end."""
        return self._times > 0

    @property
    def at_once(self) -> bool:
        """Whether they shall not even write their records."""
        return self._times > 1


@contextmanager
def interrupts(*more: str) -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt like Ctrl-C, so that a record is written.

    So do ``more`` signals. The interrupt says which signal it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP", *more) if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def interrupt(number: int, _: object) -> NoReturn:
    """Handle a signal as an interrupt that says which signal it was."""
    raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")


def reason_of(error: BaseException | None) -> str:
    """Why ``error`` ends the runs that are under way; empty where a person has pressed Ctrl-C."""
    if isinstance(error, KeyboardInterrupt):
        return str(error)
    if isinstance(error, BudgetUsedUp):
        return f"stopped because {error.what}"
    if isinstance(error, HarnessError):
        return f"stopped because the command ended on an error: {error.what}"
    return "stopped because the command that started this run ended"
