"""Micro-step: what the loop asks of a path: batches, their sizes, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from harness.corpus.sequences import TrainingRow


class Size(Protocol):
    """Room for a batch; equal sizes have tensors of equal shapes."""

    @property
    def tokens(self) -> int:
        """Tokens that the device computes."""

    def covering(self, other: Any) -> Any:
        """Room for either."""

    def filled_from(self, smallest: int) -> Any:
        """The size that holds a batch of ``smallest`` tokens and what it is filled up with."""


class Batch(Protocol):
    """The tensors of one forward pass."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""


class MicroStep(Protocol):
    """Loss and gradients of one micro-batch.

    Attributes:
        name: the path, as a record names it.
        pads: rows are padded to the longest of a micro-batch.
        unrecordable: errors that say that the step cannot be recorded as a CUDA graph.
    """

    name: ClassVar[str]
    pads: ClassVar[bool]
    unrecordable: ClassVar[tuple[type[Exception], ...]]

    def size_of(self, rows: Sequence[TrainingRow]) -> Any:
        """What ``rows`` take, a :class:`Size`."""

    def batch(self, rows: Sequence[TrainingRow], size: Any = None, pad_id: int = 0) -> Any:
        """The :class:`Batch` of ``rows``, filled up to ``size``, on the host."""

    def join_gradients(self) -> Tensor:
        """Keep all gradients in one tensor from now on, and return it: zero, one dimension."""

    def reserve(self, tokens: int) -> None:
        """Make whatever room on the host micro-batches of at most ``tokens`` tokens need."""

    def refresh(self) -> None:
        """Take the parameters' present values. Called after every optimizer step."""

    def stream(self, batch: Any) -> Any:
        """What is computed from a batch beforehand."""

    def refill(self, stream: Any, batch: Any) -> None:
        """Compute it again, in place."""

    def accumulate(
        self,
        batch: Any,
        stream: Any,
        scale: Tensor,
        complete_from: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Add ``scale`` times the gradient of the summed loss; return that sum (nats, float32).

        ``complete_from`` may be told on the way from which place on nothing more will be added to
        joined gradients; all devices do so alike.
        """
