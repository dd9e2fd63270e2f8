"""Ending: the ways a run can end, told from an error in the child or from the child's death."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.errors import DivergedError, HarnessError
from harness.records.record import Status

CGROUPS = Path("/sys/fs/cgroup")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say when they raise a plain RuntimeError for want of memory.
HOST_MEMORY = ("DefaultCPUAllocator", "Cannot allocate memory", "std::bad_alloc")
CUDA_MEMORY = (
    "OutOfMemoryError",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "_STATUS_ALLOC_FAILED",
    "Cuda failure 'out of memory'",  # NCCL: this and what follows
    "Cuda failure 2 'out of memory'",
    "Failed to CUDA calloc",
    "Failed to CUDA malloc",
)

FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True)
class Ending:
    """How a run ended: its status, a finer kind, and a message for a person.

    ``machine_taken``: its cluster took the machine away, or lost it, which is no fault of the run.
    """

    status: Status
    kind: str
    message: str
    machine_taken: bool = False


Means = Literal["interrupted", "timed_out"]
STOPPED: dict[Means, Ending] = {
    "interrupted": Ending("interrupted", "interrupted", "interrupted by the user"),
    "timed_out": Ending("failed", "timed_out", "stopped at the time limit"),
}
CANCELLED = Ending("interrupted", "cancelled", "cancelled by somebody else than this command")
OUT_OF_TIME = Ending("interrupted", "out_of_time", "its cluster's time limit was reached")
# Kinds of a run that was told to end: it wrote its record, which does not know why.
TOLD_TO_END = (*(ending.kind for ending in STOPPED.values()), CANCELLED.kind, OUT_OF_TIME.kind)
ABANDONED = Ending("interrupted", "abandoned", "the process that supervised the run has ended")


def interrupted(reason: str) -> Ending:
    """The ending of a run that was asked to end; ``reason`` is empty where a person asked."""
    ending = STOPPED["interrupted"]
    return replace(ending, message=reason) if reason else ending


def ending_of_error(error: BaseException) -> Ending:
    """The ending that an error in the child stands for."""
    if isinstance(error, KeyboardInterrupt):
        return interrupted(str(error))
    if isinstance(error, DivergedError):
        return Ending("diverged", "diverged", str(error))
    memory = _memory_ending(error)
    if memory is not None:
        return memory
    if isinstance(error, HarnessError):
        return Ending("failed", type(error).__name__, str(error))
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return Ending("failed", "disk_full", f"the disk is full: {error}")
    return Ending("failed", "crash", f"{type(error).__name__}: {error}")


def _memory_ending(error: BaseException) -> Ending | None:
    """The ending if ``error``, or one that led to it, is a lack of memory."""
    seen: BaseException | None = error
    while seen is not None:
        told = _told(str(seen))
        # torch.OutOfMemoryError by name, since torch may not be imported
        if type(seen).__name__ == CUDA_MEMORY[0] or _says(seen, CUDA_MEMORY):
            return Ending("oom", "cuda_oom", told)
        exhausted = isinstance(seen, OSError) and seen.errno == errno.ENOMEM
        if isinstance(seen, MemoryError) or exhausted or _says(seen, HOST_MEMORY):
            return Ending("oom", "host_oom", f"the machine's memory is exhausted: {told}")
        seen = seen.__cause__ or seen.__context__
    return None


def _told(text: str) -> str:
    """The line of ``text`` that speaks of memory: the first one, unless a library buries it."""
    lines = text.splitlines() or ["no details"]
    words = (*CUDA_MEMORY, *HOST_MEMORY)
    return next((line for line in lines if any(word in line for word in words)), lines[0])


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def ending_of_process(
    returncode: int, means: Means | None = None, oom_kills: int | None = None, said: str = ""
) -> Ending:
    """The ending of a child that left no record, from what its parent saw.

    ``means`` says how it was made to end, ``oom_kills`` how often the kernel killed for memory
    meanwhile (null where it is silent), ``said`` is the end of what the child printed: a process
    without memory may fail to write its record too, and only its last words tell.
    """
    if means is not None:
        return STOPPED[means]
    if returncode == -signal.SIGKILL:
        return _ending_of_kill(oom_kills)
    for kind, words in (("cuda_oom", CUDA_MEMORY), ("host_oom", ("MemoryError", *HOST_MEMORY))):
        found = [line for line in said.splitlines() if any(word in line for word in words)]
        if found:
            return Ending("oom", kind, found[-1].strip())
    if returncode < 0:
        kind = "crash" if -returncode in FAULTS else "killed"
        return Ending("failed", kind, f"ended by {signal_name(-returncode)}")
    return Ending("failed", "crash", f"the process ended with exit code {returncode} and no record")


def signal_name(number: int) -> str:
    """Its name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ending_of_kill(oom_kills: int | None) -> Ending:
    if oom_kills is None:
        message = "killed (SIGKILL) by another process or, for memory, by the kernel"
        return Ending("failed", "killed", message)
    if oom_kills > 0:
        message = "killed by the kernel: the machine's memory, or the share given to this process"
        return Ending("oom", "host_oom", f"{message}, is exhausted")
    return Ending("failed", "killed", "killed by another process (SIGKILL)")


def oom_counters(pid: int) -> tuple[Path, ...]:
    """Files that count the kernel's kills for memory, those of the process's own group first."""
    found = []
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        inside = group.lstrip("/")
        if controllers == "":
            found.append(CGROUPS / inside / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(CGROUPS / "memory" / inside / "memory.oom_control")
    return (*found, Path("/proc/vmstat"))


def oom_kills(counters: tuple[Path, ...]) -> int | None:
    """How often the kernel has killed for memory so far; null where no counter can be read.

    The first counter that can be read is taken: that of a control group knows nothing of
    kills elsewhere on the machine.
    """
    return next((count for path in counters if (count := _count(path)) is not None), None)


def _count(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None


def without_secrets(text: str) -> str:
    """``text`` without the home folder's name and the values of variables that name secrets."""
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    for name, value in os.environ.items():
        secret = any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "_KEY"))
        if secret and len(value) >= 8:
            text = text.replace(value, "***")
    return text
