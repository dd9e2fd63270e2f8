"""SLURM reason: who ended a job, as SLURM says it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace

from harness.runs.ending import CANCELLED, OUT_OF_TIME, Ending, interrupted

ANSWER_SECONDS = 10.0
UNDER_WAY = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
ENDED = {
    "CANCELLED": "was cancelled",
    "PREEMPTED": "was preempted",
    "TIMEOUT": "reached its time limit",
    "DEADLINE": "reached its deadline",
    "NODE_FAIL": "lost its machine",
    "OUT_OF_MEMORY": "used more memory than it was given",
}
NO_TIME_LEFT = ("TIMEOUT", "DEADLINE")
MACHINE_TAKEN = ("PREEMPTED", "NODE_FAIL")
# What submitit raises in a job that SLURM has told that its time is nearly over.
SAID_IN_TIME = "timed-out and not checkpointable"
UNTOLD = replace(interrupted(""), message="")  # SLURM did not end it, or nobody remembers it


def end_of_job(job_id: str, said: str, accounted: Callable[[], str]) -> Ending | None:
    """How SLURM ended a job. ``said`` is the error that the job itself has left.

    ``accounted`` is the state that SLURM's accounting has, which is asked where SLURM has
    forgotten the job itself.

    Returns:
        ``UNTOLD`` where nobody knows more; None while it has yet to end.
    """
    if SAID_IN_TIME in said:
        return _ending(job_id, "TIMEOUT")
    shown = _shown(job_id)
    state = _field("JobState", shown) or accounted().partition(" ")[0]  # "CANCELLED by 1000"
    if state in UNDER_WAY:
        return None
    if _field("PreemptTime", shown) not in ("", "None"):
        state = "PREEMPTED"  # SLURM's own is COMPLETED where the job has ended in its grace time
    return _ending(job_id, state) if state in ENDED else UNTOLD


def _ending(job_id: str, state: str) -> Ending:
    message = f"SLURM job {job_id} {ENDED[state]}"
    if state == "OUT_OF_MEMORY":
        return Ending("oom", "host_oom", message)
    if state == "CANCELLED":
        return replace(CANCELLED, message=message)
    if state in NO_TIME_LEFT:
        return replace(OUT_OF_TIME, message=message)
    return replace(interrupted(message), machine_taken=state in MACHINE_TAKEN)


def _shown(job_id: str) -> str:
    try:
        return subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job_id],  # noqa: S607 - as sbatch is found
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _field(name: str, shown: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", shown)
    return "" if found is None else found[1]
