"""Busy: whether other programs keep this machine so busy that its times are not comparable."""

from __future__ import annotations

import os

MUCH = 1.5  # programs that want to compute for each core; a run of one's own that has just ended
# leaves about 1 behind


def said_busy() -> str:
    """A sentence for people where the machine is overloaded; empty where not, or not known.

    The load average counts the programs of the whole machine, so it is held against all cores.
    """
    cores = os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return ""
    if load <= MUCH * cores:
        return ""
    return (
        f"this machine is busy: a load of {load:.1f} on {cores} cores in the last minute; scores "
        "will be right, but times, tokens per second and energy will not be comparable"
    )
