"""Run options: how to treat a plan; nothing of it changes what the run finds."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import uuid4

from pydantic import Field

from harness.spec.schema import Frozen


class RunOptions(Frozen):
    """How to treat a plan. Pure data: it travels with the plan to wherever that is run.

    ``force`` runs it although a good record exists, from the beginning, and takes over nothing
    that was found before these options, whose ``name`` marks what is. ``on_oom = "shrink"``
    tries again with half the micro-batch (and twice the accumulation) until a step fits. ``wait``
    says what to do while another process runs the same plan: wait for it, or raise. Code from
    the model's repository runs only if the plan and ``trust_remote_code`` both say so.
    ``shared`` says that other runs use the device at the same time, and ``threads`` how many of
    this machine's CPU threads a run on a GPU may use; null: all. ``gpus`` is what the run sees
    as ``CUDA_VISIBLE_DEVICES``; empty: what this process sees. ``warm`` has a run forked, where
    that is possible, from a process of this machine that has loaded the libraries.
    ``silence_seconds`` is how long devices that share a training wait for one that does not
    answer.
    """

    force: bool = False
    timeout_seconds: float | None = None
    on_oom: Literal["record", "shrink"] = "record"
    wait: bool = True
    trust_remote_code: bool = False
    checkpoint_seconds: float = 20.0
    shared: bool = False
    threads: Annotated[int, Field(ge=1)] | None = None
    warm: bool = False
    gpus: str = ""
    silence_seconds: float = 600.0
    name: str = Field(default_factory=lambda: uuid4().hex)


DEFAULT_OPTIONS = RunOptions()
