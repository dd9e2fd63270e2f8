"""Ranks: the processes of a plan, one for each device, and how they talk to each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import LostDevice

if TYPE_CHECKING:
    from torch import Tensor

# Until a device is heard that prepares something, such as a download: as long as it takes. One
# that has ended is noticed at once all the same.
PATIENCE = timedelta(days=7)
# What torchrun tells a process. Taken out once it is known: libraries would act on it.
TOLD = (
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "WORLD_SIZE",
)
# All processes are on one machine, whose name need not be known to any server.
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
# Where NCCL has waited in vain, torch gives all processes four times 15 seconds to write down what
# each was doing before it ends them. Nobody here reads that.
NO_NOTES = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "0", "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "250"}

BACKENDS = ("gloo", "NCCL")  # in the words of an error that one of them has raised


class Ranks(Protocol):
    """The processes that carry out a plan together. Every one of them makes the same calls.

    Each call raises :class:`harness.errors.LostDevice` where another process has ended or, while
    tensors are added up, does not answer in time.
    """

    @property
    def index(self) -> int:
        """Which one this is; 0 leads: it writes the record."""

    @property
    def count(self) -> int:
        """How many there are."""

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, bit for bit the same in each."""

    def begin_adding(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace ``tensor`` by its sum; it is that once what is returned was called."""

    def gather(self, thing: Any) -> list[Any]:
        """What every process gave, in their order; plain data."""

    def hand_out(self, thing: Any) -> Any:
        """What the first process gave; plain data."""


class Alone:
    """One process on one device."""

    index = 0
    count = 1

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""

    def begin_adding(self, tensor: Tensor) -> Callable[[], None]:  # noqa: ARG002 - it is the sum
        """Nothing to add."""
        return lambda: None

    def gather(self, thing: Any) -> list[Any]:
        """What this process gave."""
        return [thing]

    def hand_out(self, thing: Any) -> Any:
        """What this process gave."""
        return thing


ALONE = Alone()


def told_index(count: int) -> int:
    """Which of ``count`` processes this is, as torchrun says.

    A single one is the first, whatever the environment says: the harness itself may have been
    started by torchrun, or by a cluster that tells the like. Libraries shall not hear of it.
    """
    if count > 1:
        return int(os.environ.get("RANK", "0"))
    for name in TOLD:
        os.environ.pop(name, None)
    return 0


class Joined:
    """Processes that torchrun has started, joined by gloo, and by NCCL where they have GPUs."""

    def __init__(self, *, cuda: bool, silence_seconds: float) -> None:
        """Join the others; all must do so. ``silence_seconds``: how long tensors are waited for.

        Raises:
            LostDevice: another process does not join.
        """
        import torch.distributed as dist

        for name, value in (LOOPBACK | NO_NOTES).items():
            os.environ.setdefault(name, value)
        self._dist: Any = dist
        silence = timedelta(seconds=silence_seconds)
        with _lost("joining the other devices"):
            dist.init_process_group("nccl" if cuda else "gloo", timeout=silence)
            self._words = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.index: int = dist.get_rank()
        self.count: int = dist.get_world_size()
        for name in TOLD:
            os.environ.pop(name, None)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """See :class:`Ranks`."""
        with _lost("adding up gradients"):
            for tensor in tensors:
                self._dist.all_reduce(tensor)

    def begin_adding(self, tensor: Tensor) -> Callable[[], None]:
        """See :class:`Ranks`; work that is queued on a GPU afterwards goes on meanwhile."""
        with _lost("adding up gradients"):
            work = self._dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with _lost("adding up gradients"):
                work.wait()

        return wait

    def gather(self, thing: Any) -> list[Any]:
        """See :class:`Ranks`."""
        found: list[Any] = [None] * self.count
        with _lost("comparing notes"):
            self._dist.all_gather_object(found, thing, group=self._words)
        return found

    def hand_out(self, thing: Any) -> Any:
        """See :class:`Ranks`."""
        found = [thing]
        with _lost("waiting for the first device"):
            self._dist.broadcast_object_list(found, src=0, group=self._words)
        return found[0]


@contextmanager
def _lost(what: str) -> Iterator[None]:
    """Turn what torch raises for a missing process into the one condition."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise LostDevice(
            f"another device's process has ended or does not answer: {reason}", where=what
        ) from error


@contextmanager
def noticing_lost() -> Iterator[None]:
    """Turn what torch's own collectives raise for a missing process into the one condition.

    Sharded layers wait for other devices in every forward and backward pass. Any other error
    goes on as it is.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if type(error).__name__.startswith("Dist") or any(word in said for word in BACKENDS):
            with _lost("in a sharded layer"):
                raise
        raise


@contextmanager
def first(ranks: Ranks) -> Iterator[None]:
    """Let the first process go first and the others after it: they find what it has kept."""
    if ranks.index > 0:
        ranks.hand_out(None)
    yield
    if ranks.index == 0:
        ranks.hand_out(None)
