"""SLURM reason: who ended a job, as SLURM says it."""

from __future__ import annotations

import re
import subprocess

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
# What submitit raises in a job that SLURM has told that its time is nearly over.
OUT_OF_TIME = "timed-out and not checkpointable"


def reason_of_job(job_id: str, said: str) -> str | None:
    """Why SLURM ended a job, in words. ``said`` is the error that the job itself has left.

    Returns:
        Empty where SLURM did not end it or nobody remembers it; None while it has yet to end.
    """
    if OUT_OF_TIME in said:
        return f"SLURM job {job_id} {ENDED['TIMEOUT']}"
    shown = _shown(job_id)
    state = _field("JobState", shown)
    if state in UNDER_WAY:
        return None
    if _field("PreemptTime", shown) not in ("", "None"):
        state = "PREEMPTED"  # SLURM's own is COMPLETED where the job has ended in its grace time
    return f"SLURM job {job_id} {ENDED[state]}" if state in ENDED else ""


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
