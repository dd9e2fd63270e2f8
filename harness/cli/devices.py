"""Devices: the options that say how many devices, and which, share a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UserError
from harness.spec.device import VISIBLE

if TYPE_CHECKING:
    from harness.spec.plan import Plan

DevicesOption = Annotated[
    int,
    typer.Option(
        "--devices",
        min=0,
        metavar="N",
        help="Divide every batch, and the scoring, over this many devices of the machine.",
        show_default="1",
    ),
]
GpusOption = Annotated[
    str,
    typer.Option(
        "--gpus",
        metavar="LIST",
        help="The same over these GPUs: 0,1, or all. With --jobs, each run gets GPUs of its own.",
    ),
]


def with_devices(settings: list[str], devices: int = 0, gpus: str = "") -> list[str]:
    """``settings`` and what ``--devices`` and ``--gpus`` say; other GPUs are hidden from here on.

    Raises:
        UserError: the two do not fit together, or the number is also given by ``--set``.
    """
    names = gpu_names(gpus)
    if names and devices not in (0, len(names)):
        raise UserError(f"--devices {devices} with --gpus {gpus}", expected="one of them")
    if names:
        os.environ[VISIBLE] = ",".join(names)
    count = devices or len(names)
    if not count:
        return settings
    for setting in settings:
        if setting.partition("=")[0].strip().removeprefix("suite.") == "training.devices":
            option = "--gpus" if names else "--devices"
            raise UserError(f"{option} and --set {setting}", expected="one of them")
    return settings if count == 1 else [*settings, f"training.devices={count}"]


def gpu_names(gpus: str) -> list[str]:
    """The GPUs of ``--gpus``, by the names that CUDA takes; "all" are those of this machine.

    Raises:
        UserError: no names of different GPUs, or there is none.
    """
    if gpus.strip() == "all":
        from harness.spec.device import nth_visible, visible_gpus

        places = range(len(visible_gpus()))
        names = [name for place in places if (name := nth_visible(os.environ.get(VISIBLE), place))]
        if not names:
            raise UserError(
                "no NVIDIA GPU can be used here",
                where="--gpus all",
                hint="python -m harness doctor says what this machine has",
            )
        return names
    names = [name.strip() for name in gpus.split(",") if name.strip()]
    if gpus and (not names or len(set(names)) < len(names)):
        raise UserError(f"--gpus {gpus!r}", expected="different GPUs, such as 0,1, or all")
    return names


def check_devices(plans: Sequence[Plan]) -> None:
    """Refuse plans that need more GPUs than this machine shows, or GPUs that are not alike.

    Raises:
        UserError: what there is, and what is needed.
    """
    needed = max((plan.training.devices for plan in plans), default=1)
    if needed == 1 or plans[0].device.kind != "cuda":
        return
    from harness.spec.device import visible_gpus

    found = visible_gpus()
    if len(found) < needed:
        raise UserError(
            f"{needed} devices were asked for, but only {len(found)} can be used here",
            where=f"training.devices, {VISIBLE}={os.environ.get(VISIBLE, '(not set)')}",
            expected=f"{needed} NVIDIA GPUs",
            hint="run python -m harness doctor to see what this machine has",
        )
    if len(set(found[:needed])) > 1:
        raise UserError(
            f"the GPUs are of different kinds: {', '.join(found[:needed])}",
            expected="GPUs of one kind, since every step waits for the slowest one",
            hint="--gpus chooses which ones",
        )
