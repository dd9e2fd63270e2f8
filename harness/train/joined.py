"""Joined: the gradients of several devices, added up while the backward pass still goes on."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness.parallel.ranks import Ranks

PIECES = 4  # of all gradients: what has become complete is sent on in such portions


class JoinedGradients:
    """All gradients of one device in one tensor, those of the first layers at its start.

    Backward passes complete it from its end on. Every device begins the same sums in the same
    order, so all of them have to say alike how far they have come, or none does.
    """

    def __init__(self, flat: Tensor, ranks: Ranks) -> None:
        """Take the tensor that gradients are written to, of one dimension."""
        self._flat = flat
        self._ranks = ranks
        self._left = len(flat)
        self._begun: list[Callable[[], None]] = []

    def complete_from(self, start: int) -> None:
        """Nothing will be added to gradients from place ``start`` on, in this step.

        Raises:
            LostDevice: another device does not take part.
        """
        if self._left - start >= -(-len(self._flat) // PIECES):
            self._begin(start)

    def finish(self, *also: Tensor) -> None:
        """Have all gradients, and ``also``, be their sums over all devices.

        Raises:
            LostDevice: another device does not take part, or does not answer in time.
        """
        if self._left > 0:
            self._begin(0)
        self._ranks.add_up(also)
        for wait in self._begun:
            wait()
        self._begun, self._left = [], len(self._flat)

    def _begin(self, start: int) -> None:
        self._begun.append(self._ranks.begin_adding(self._flat[start : self._left]))
        self._left = start
