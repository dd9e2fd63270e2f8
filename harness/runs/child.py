"""Child: the process that carries out one plan, leaves a record and ends with its parent."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from filelock import FileLock

from harness.measure.repeated import Repeated
from harness.parallel.ranks import ALONE, Joined, Ranks, noticing_lost, told_index
from harness.records.events import ProcessStarted, Pulse
from harness.records.store import RunFolder
from harness.runs.begun import AFRESH, Begun, told_folders
from harness.runs.devices import DeviceEnding
from harness.runs.draft import RunLog
from harness.runs.ending import Ending, ending_of_error
from harness.runs.libraries import load_torch
from harness.runs.options import RunOptions
from harness.runs.parent import end_with_parent
from harness.runs.run import Run
from harness.runs.stop import interrupt
from harness.runs.together import TogetherRun
from harness.spec.device import VISIBLE, nth_visible
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json

PULSE_SECONDS = 1.0


def run_child(path: Path, *, warm: bool = False, begun: Begun = AFRESH) -> int:
    """Carry out the plan in ``path`` as ordered there and leave a record, whatever happens.

    Where several devices share the plan this is the process of one of them; the first one leaves
    the record, and each that does not end well leaves its ending. ``warm`` says that this process
    was forked from one that had loaded the libraries, and ``begun`` what it did before it was told
    the folder.

    Returns the exit code: 0 for a finished run, 1 for any other record, 130 when interrupted.

    Raises:
        StorageError: the record cannot be written.
    """
    folder = RunFolder(path)
    plan, options = read_json(folder.plan, Plan), read_json(folder.options, RunOptions)
    options = options.model_copy(
        update={"warm": warm}
    )  # which may have been asked for and not be had
    see_gpus(options)
    started, clock = _beginning(begun)
    rank = told_index(plan.training.devices)
    with FileLock(folder.lock_of(rank)), RunLog(folder.events_of(rank)) as log:
        run = Run(plan, folder, log, options)
        log.emit(ProcessStarted.now(pid=os.getpid()))
        with _pulse(run):
            ending = _guarded(partial(_carry_out, run, begun))
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


def run_children(paths: Sequence[Path], begun: Begun = AFRESH) -> int:
    """Carry out the plans in ``paths``, which train together, and leave a record of each.

    What one does by itself, such as being scored, ends only that one. Returns as `run_child`,
    by the worst of them.
    """
    started, clock = _beginning(begun)
    see_gpus(read_json(RunFolder(paths[0]).options, RunOptions))
    codes = []
    with ExitStack() as opened:
        runs = []
        for folder in map(RunFolder, paths):
            opened.enter_context(FileLock(folder.lock))
            log = opened.enter_context(RunLog(folder.events))
            runs.append(
                Run(
                    read_json(folder.plan, Plan), folder, log, read_json(folder.options, RunOptions)
                )
            )
            log.emit(ProcessStarted.now(pid=os.getpid()))
            opened.enter_context(_pulse(runs[-1]))
        group, settled = TogetherRun(runs), clock
        for run, ending in _endings(group, begun):
            now = time.monotonic()
            parted = group.trained_at or now
            seconds = (parted - clock) / len(runs) + now - max(settled, parted)
            settled = now
            started_at = started.isoformat(timespec="seconds")
            record = run.draft.record(run.plan, run.log, ending, started_at, seconds)
            write_json(run.folder.record, record)
            codes.append(0 if ending is None else 130 if ending.status == "interrupted" else 1)
            if ending is None:
                shutil.rmtree(run.folder.checkpoint, ignore_errors=True)
    return max(codes)


def _beginning(begun: Begun) -> tuple[datetime, float]:
    """When the run began, and on the monotonic clock, as if it had not waited for its folder."""
    return datetime.now(UTC) - timedelta(seconds=begun.seconds), time.monotonic() - begun.seconds


def _endings(group: TogetherRun, begun: Begun) -> Iterator[tuple[Run, Ending | None]]:
    """How each of the runs ends, as soon as it has."""
    lead = group.runs[0]

    def train() -> None:
        lead.log.note("loading libraries")
        begun.raise_error()
        set_up_torch(lead.plan, lead.options.threads)
        group.train()

    whole = _guarded(train)
    for run in group.runs:
        ending = whole if whole is not None else _guarded(partial(group.finish, run))
        yield run, ending
        if ending is not None and ending.status == "interrupted":
            whole = ending


def _carry_out(run: Run, begun: Begun) -> None:
    run.log.note("loading libraries")
    begun.raise_error()
    set_up_torch(run.plan, run.options.threads)
    with noticing_lost():
        run.execute(_join(run))


def _guarded(work: Callable[[], None]) -> Ending | None:
    """Do ``work``, and turn how it ends into an ending. The one place that catches everything."""
    try:
        work()
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
    return Joined(cuda=cuda, silence_seconds=run.options.silence_seconds)


def see_gpus(options: RunOptions) -> None:
    """Hide every GPU that was not given to this run."""
    if options.gpus:
        os.environ[VISIBLE] = options.gpus


def see_one_gpu(plan: Plan, rank: int) -> None:
    """Hide every GPU but the one of this process: libraries use whatever they see.

    Transformers' trainer would divide batches over all of them by itself.
    """
    if plan.device.kind != "cuda":
        return
    chosen = nth_visible(os.environ.get(VISIBLE), rank)
    if chosen is not None:
        os.environ[VISIBLE] = chosen


def set_up_torch(plan: Plan, threads: int | None = None) -> None:
    """Fix everything that would make two runs of one plan differ.

    ``threads`` are those a run on a GPU may use of its machine's CPU; on a CPU the plan says it.
    """
    see_one_gpu(plan, told_index(plan.training.devices))
    load_torch()
    import random

    import numpy as np
    import torch

    threads = plan.threads or threads
    if threads:
        torch.set_num_threads(threads)
    # What transformers' set_seed does, whose import would take ten seconds here.
    random.seed(plan.seed)
    np.random.seed(plan.seed)
    torch.manual_seed(plan.seed)  # GPUs included


@contextmanager
def _pulse(run: Run) -> Iterator[None]:
    """Tell every second that the process lives and how much memory it holds.

    The meter's thread ends with it.
    """
    pulse = Repeated(
        lambda: run.log.emit(Pulse.now(numbers=run.meter.live())), PULSE_SECONDS, "pulse"
    )
    try:
        with run.meter:
            yield
    finally:
        pulse.close()


def main(arguments: list[str], *, warm: bool = False) -> int:
    """``python -m harness.runs.child FOLDER …``: several train together.

    Without folders it loads what it will need, and is told them through its standard input.
    """
    parser = argparse.ArgumentParser(prog="harness.runs.child")
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    folders: list[Path] = parser.parse_args(arguments).folders
    # A shell's background jobs ignore Ctrl-C, and hand that down; the parent must be heard.
    signal.signal(signal.SIGINT, interrupt)
    # So clusters ask every process of a job to end, and torchrun those of a run whose other
    # device has failed: neither is a death.
    signal.signal(signal.SIGTERM, interrupt)
    # So SLURM tells every process of a job that its time is nearly over; the parent knows what
    # follows from it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    begun = AFRESH
    if not folders:
        folders, begun = told_folders()
    end_with_parent()
    if len(folders) == 1:
        return run_child(folders[0], warm=warm, begun=begun)
    return run_children(folders, begun)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the record is written; taking the libraries down takes seconds, and may crash
