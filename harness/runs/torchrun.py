"""Torchrun: starts the processes of a plan that several devices share, and ends as they do."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.records.store import RunFolder
from harness.runs.devices import DeviceEnding
from harness.runs.ending import Ending, ending_of_process, oom_counters, oom_kills
from harness.runs.parent import end_with_parent
from harness.runs.process import GRACE_SECONDS
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json

MODULE = "harness.runs.child"
INTERRUPTED = 130
# What NCCL prints before it ends a process that has waited for another device in vain.
NCCL_WAITED = "Watchdog caught collective operation timeout"

# Settings that torch 2.11 does not have all; processes then get torchrun's own half a minute, as
# they always do where it ends them because another one has failed.
NEWER = {"signals_to_handle": "SIGTERM", "shutdown_timeout": GRACE_SECONDS}
NO_ANSWER = "another device's process does not answer: NCCL has waited for it in vain"


def launch(path: Path) -> int:
    """Have torchrun start a process for each device of the plan in ``path``; wait for them all.

    When one ends badly, torchrun ends the others. A process that was killed leaves no word of
    its own, so its ending is written down here.

    Returns the exit code: 0 where all ended well.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    folder = RunFolder(path)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=read_json(folder.plan, Plan).training.devices,
        run_id=f"run-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",  # the machine's name need not be known to any server
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        **_known(LaunchConfig, NEWER),
    )
    signal.signal(signal.SIGINT, _pass_on)
    counters = oom_counters(os.getpid())
    kills = oom_kills(counters)
    try:
        elastic_launch(config, sys.executable)("-m", MODULE, str(path))
    except ChildFailedError as error:
        more = oom_kills(counters)
        killed = None if kills is None or more is None else more - kills
        return _write_endings(folder, error.failures, killed)
    return 0


def _known(kind: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings that this version of a dataclass has."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in settings.items() if name in names}


def _pass_on(*_: object) -> None:
    """Ctrl-C is for the processes of the devices, which are in sessions of their own."""
    import psutil

    children = psutil.Process().children()
    for child in children:
        with suppress(psutil.Error):
            child.send_signal(signal.SIGINT)
    if not children:
        raise KeyboardInterrupt


def _write_endings(folder: RunFolder, failures: dict[int, Any], oom: int | None) -> int:
    """Write down what killed processes could not; returns an exit code.

    Those that torchrun itself killed, since they did not end when another had, are left out: that
    takes ``GRACE_SECONDS`` or more.
    """
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    begun = min(failure.timestamp for failure in failures.values())
    for rank, code in codes.items():
        late = failures[rank].timestamp - begun > GRACE_SECONDS / 2
        if code < 0 and not late and not folder.ending_of(rank).exists():
            ending = ending_of_process(code, None, oom)
            if code == -signal.SIGABRT and NCCL_WAITED in folder.log.read_text(errors="replace"):
                ending = Ending("failed", "LostDevice", NO_ANSWER)
            write_json(folder.ending_of(rank), DeviceEnding.of(rank, ending, time.time()))
    # torchrun itself interrupts the others when one has failed
    return INTERRUPTED if set(codes.values()) == {INTERRUPTED} else 1


def main(arguments: list[str]) -> int:
    """``python -m harness.runs.torchrun FOLDER``."""
    end_with_parent()
    return launch(Path(arguments[0]))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
