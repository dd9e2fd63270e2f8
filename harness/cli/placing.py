"""Placing: the options that say where plans run, and how many at the same time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import warn
from harness.cli.devices import gpu_names
from harness.errors import UserError
from harness.spec.device import VISIBLE

if TYPE_CHECKING:
    from harness.records.store import RunStore
    from harness.runs.executor import Executor
    from harness.runs.options import RunOptions
    from harness.spec.plan import Plan

JobsOption = Annotated[
    int,
    typer.Option(
        "--jobs",
        min=0,
        metavar="N",
        help="Runs at the same time on this machine, as far as their memory fits.",
        show_default="1, or one for each GPU of --gpus",
    ),
]
SpreadOption = Annotated[
    str,
    typer.Option("--gpus", metavar="LIST", help="Spread runs over these GPUs: 0,1, or all."),
]
TogetherOption = Annotated[
    int,
    typer.Option(
        "--together",
        min=1,
        metavar="N",
        help="Train up to N runs as one on the same base, where only learning rate, seed, rank "
        "or scale of their adapters differ: costs are then shares.",
    ),
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", help="Where to run: local, ray or slurm.")
]
AddressOption = Annotated[
    str, typer.Option("--address", help="Address of the Ray cluster; auto: this machine's.")
]
StoreOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Share runs with other machines through a store that fsspec reaches: s3://bucket/name.",
    ),
]
PartitionOption = Annotated[str, typer.Option("--partition", help="SLURM partition.")]


@dataclass(frozen=True)
class Placing:
    """Where plans run: an executor by name, and what each kind of it takes.

    ``gpus`` are those over which runs are spread, as ``--gpus`` names them.
    """

    executor: str = "local"
    jobs: int = 0
    gpus: str = ""
    address: str = ""
    partition: str = ""

    def make(self, store: RunStore, options: RunOptions) -> Executor:
        """The executor; other GPUs than those named are hidden from here on.

        Raises:
            UserError: it cannot be used here, or an option does not go with it.
        """
        from harness.runs.executor import make_executor

        self._refuse_strangers()
        if self.executor == "ray":
            return make_executor("ray", store, options, self.address)
        if self.executor == "slurm":
            return make_executor("slurm", store, options, self.partition)
        if self.executor != "local":
            return make_executor(self.executor, store, options)
        gpus = gpu_names(self.gpus)
        if gpus:
            os.environ[VISIBLE] = ",".join(gpus)
            _check_gpus(gpus)
        options = options.model_copy(update={"warm": True})
        return make_executor("local", store, options, self.jobs or max(len(gpus), 1), gpus)

    def _refuse_strangers(self) -> None:
        given = {
            "--jobs": ("local", self.jobs),
            "--gpus": ("local", self.gpus),
            "--address": ("ray", self.address),
            "--partition": ("slurm", self.partition),
        }
        for option, (executor, value) in given.items():
            if value and self.executor != executor:
                raise UserError(
                    f"{option} with --executor {self.executor}",
                    expected=f"--executor {executor}, or no {option}",
                )


def _check_gpus(names: list[str]) -> None:
    """Refuse GPUs that there are not, or of several kinds: costs could not be compared."""
    from harness.spec.device import visible_gpus

    found = visible_gpus()
    if len(found) < len(names):
        raise UserError(
            f"{len(names)} GPUs are named, and {len(found)} of them can be used here",
            where=f"--gpus {','.join(names)}",
            hint="python -m harness doctor says what this machine has",
        )
    if len(set(found)) > 1:
        raise UserError(
            f"the GPUs are not alike: {', '.join(found)}",
            where=f"--gpus {','.join(names)}",
            expected="GPUs of one kind, so that what runs cost can be compared",
        )


def warn_of_load() -> None:
    """Say beforehand where other programs keep this machine busy."""
    from harness.measure.busy import said_busy

    if told := said_busy():
        warn(told)


def said_alone(plans: Sequence[Plan], together: int) -> str:
    """That runs which were to train as one each train alone, and what would let them."""
    from harness.train.together.group import groups

    if together == 1 or len(plans) < 2:
        return ""
    if any(len(group) > 1 for group in groups(plans, together)):
        return ""
    return (
        f"--together {together}: no two of these runs can train as one, so each trains alone; it "
        "needs suite.training.speed=fast, and LoRA on one base where only learning rate, seed, "
        "rank or scale differ"
    )
