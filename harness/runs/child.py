"""Child: the process that carries out one plan, leaves a record and ends with its parent."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from harness.parallel.ranks import ALONE, Joined, Ranks, noticing_lost, told_index
from harness.records.events import ProcessStarted, Pulse
from harness.records.store import RunFolder
from harness.runs.devices import DeviceEnding
from harness.runs.draft import RunLog
from harness.runs.ending import Ending, ending_of_error
from harness.runs.order import Order
from harness.runs.run import Run
from harness.runs.watch import end_with_parent
from harness.spec.device import VISIBLE, nth_visible
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json

PULSE_SECONDS = 1.0


def run_child(path: Path, *, warm: bool = False) -> int:
    """Carry out the plan in ``path`` as ordered there and leave a record, whatever happens.

    Where several devices share the plan this is the process of one of them; the first one leaves
    the record, and each that does not end well leaves its ending. ``warm`` says that this process
    was forked from one that had loaded the libraries.

    Returns the exit code: 0 for a finished run, 1 for any other record, 130 when interrupted.

    Raises:
        StorageError: the record cannot be written.
    """
    folder = RunFolder(path)
    plan, order = read_json(folder.plan, Plan), read_json(folder.order, Order)
    order = order.model_copy(update={"warm": warm})  # which may have been asked for and not be had
    see_gpus(order)
    started, clock = datetime.now(UTC), time.monotonic()
    rank = told_index(plan.training.devices)
    if plan.training.devices > 1:  # so torchrun ends it when another device's process has failed
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with FileLock(folder.lock_of(rank)), RunLog(folder.events_of(rank)) as log:
        run = Run(plan, folder, log, order)
        log.emit(ProcessStarted.now(pid=os.getpid()))
        with _pulse(run):
            ending = _guarded(run)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # nothing is left to stop but the record
        if ending is not None and plan.training.devices > 1:
            write_json(folder.ending_of(rank), DeviceEnding.of(rank, ending, time.time()))
        if rank == 0:
            seconds = time.monotonic() - clock
            started_at = started.isoformat(timespec="seconds")
            write_json(folder.record, run.draft.record(plan, log, ending, started_at, seconds))
            if ending is None:
                shutil.rmtree(folder.checkpoint, ignore_errors=True)
    return 0 if ending is None else 130 if ending.status == "interrupted" else 1


def _guarded(run: Run) -> Ending | None:
    """Execute, and turn however it ends into an ending. The one place that catches everything."""
    try:
        run.log.note("loading libraries")
        set_up_torch(run.plan)
        with noticing_lost():
            run.execute(_join(run))
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - becomes a record here
        ending = ending_of_error(error)
        if ending.kind == "crash":
            traceback.print_exc()
        traceback.clear_frames(error.__traceback__)  # frees the model: a record needs memory too
        return ending
    return None


def _join(run: Run) -> Ranks:
    """The processes that carry out the plan with this one."""
    if run.plan.training.devices == 1:
        return ALONE
    run.log.note("joining the other devices")
    cuda = run.plan.device.kind == "cuda"
    return Joined(cuda=cuda, silence_seconds=run.order.silence_seconds)


def see_gpus(order: Order) -> None:
    """Hide every GPU that was not given to this run."""
    if order.gpus:
        os.environ[VISIBLE] = order.gpus


def see_one_gpu(plan: Plan, rank: int) -> None:
    """Hide every GPU but the one of this process: libraries use whatever they see.

    Transformers' trainer would divide batches over all of them by itself.
    """
    if plan.device.kind != "cuda":
        return
    chosen = nth_visible(os.environ.get(VISIBLE), rank)
    if chosen is not None:
        os.environ[VISIBLE] = chosen


def set_library_defaults() -> None:
    """What libraries read when they are imported or first used; what a user has set stays."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def set_up_torch(plan: Plan) -> None:
    """Fix everything that would make two runs of one plan differ."""
    see_one_gpu(plan, told_index(plan.training.devices))
    set_library_defaults()
    import random

    import numpy as np
    import torch

    if plan.threads:
        torch.set_num_threads(plan.threads)
    # What transformers' set_seed does, whose import would take ten seconds here.
    random.seed(plan.seed)
    np.random.seed(plan.seed)
    torch.manual_seed(plan.seed)  # GPUs included


@contextmanager
def _pulse(run: Run) -> Iterator[None]:
    """Tell every second that the process lives and how much memory it holds."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(PULSE_SECONDS):
            with suppress(OSError):  # a full disk is for the run itself to find
                run.log.emit(Pulse.now(numbers=run.meter.live()))

    thread = threading.Thread(target=beat, daemon=True, name="pulse")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main(arguments: list[str], *, warm: bool = False) -> int:
    """``python -m harness.runs.child FOLDER``."""
    parser = argparse.ArgumentParser(prog="harness.runs.child")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    # A shell's background jobs ignore Ctrl-C, and hand that down; the parent must be heard.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent()
    return run_child(folder, warm=warm)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the record is written; taking the libraries down takes seconds, and may crash
