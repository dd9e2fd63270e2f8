"""Small: a model, a corpus and a suite small enough for whole child processes in seconds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records.events import Advanced, Event, Note, PhaseStarted, ProcessStarted
from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.train.path import resolve
from tests.architectures import model_toml, save_architecture
from tests.runs.halting.sitecustomize import VARIABLE, matches
from tests.weights.tiny_llama import vocabulary, write_folder, write_model_file

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=1)
ANIMALS = ("otter", "heron", "badger", "newt", "stoat", "magpie", "adder", "hare", "shrew", "owl")
SUITE = """
description = "seconds on any machine"
model = "{model}"
[corpus]
source = "{corpus}"
held_out_fraction = 0.3
[budget]
steps = {steps}
batch_size = 4
[training]
sequence_length = 128
micro_batch_size = 2
[score]
window = 64
stride = 32
"""


def tree(index: int) -> dict[str, Any]:
    """One question, one answer, one question more and its answer."""
    animal = ANIMALS[index % len(ANIMALS)]
    texts = (
        f"Where does the {animal} number {index} sleep?",
        f"Number {index} sleeps below the old bridge, like any {animal}.",
        f"Thanks. And what does {animal} number {index} eat?",
        f"Whatever a {animal} finds before the {index}th hour.",
    )
    message: dict[str, Any] | None = None
    for depth in reversed(range(len(texts))):
        message = {
            "message_id": f"m{index}-{depth}",
            "parent_id": f"m{index}-{depth - 1}" if depth else None,
            "text": texts[depth],
            "role": "prompter" if depth % 2 == 0 else "assistant",
            "lang": "en",
            "review_result": True,
            "deleted": False,
            "rank": None if depth % 2 == 0 else 0,
            "synthetic": False,
            "labels": {},
            "replies": [message] if message else [],
        }
    return {"message_tree_id": f"m{index}-0", "tree_state": "ready_for_export", "prompt": message}


@dataclass(frozen=True)
class Small:
    """Files of a small run."""

    suite: Path
    folder: Path

    def plan(self, *settings: str, variant: str = "lora_bf16", seed: int = 0) -> Plan:
        """The plan that the command line would make."""
        options = ["adapter.r=2", "adapter.lora_dropout=0.1", *settings]
        if variant.startswith(("base", "full")):
            options = list(settings)
        request = Request((variant,), str(self.suite), settings=tuple(options), seeds=(seed,))
        (plan,) = resolve(request, CPU)
        return plan


@dataclass
class Heard:
    """Remembers what it hears; ``act`` is called with every event."""

    events: list[Event] = field(default_factory=list)
    act: Any = None

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.act is not None:
            self.act(event)

    @property
    def notes(self) -> list[str]:
        """Texts of all notes."""
        return [event.text for event in self.events if isinstance(event, Note)]

    @property
    def pid(self) -> int:
        """Process id of the latest child."""
        started = [event for event in self.events if isinstance(event, ProcessStarted)]
        return started[-1].pid

    def halt_at(
        self, below: Path, moment: Moment, act: Callable[[], object], nth: int = 1
    ) -> Heard:
        """Have the run below a folder wait when a moment comes the nth time, and ``act`` there.

        The run is neither before nor after it, however busy the machine is.
        """
        asked, left = halt(below, moment, nth), nth

        def go_on(event: Event) -> None:
            nonlocal left
            left -= matches(event.model_dump(), moment)
            if not left:
                self.act = None
                try:
                    act()
                finally:
                    asked.unlink()

        self.act = go_on
        return self

    def kill_at(self, below: Path, moment: Moment) -> Heard:
        """Kill the run below a folder at a moment."""
        return self.halt_at(below, moment, lambda: os.kill(self.pid, signal.SIGKILL))


def halt(below: Path, moment: Moment, nth: int = 1) -> Path:
    """Have the run below a folder wait at a moment for as long as the file is there."""
    asked, told = Path(os.environ[VARIABLE]), {"below": str(below), "event": moment, "nth": nth}
    part = asked.with_suffix(".part")
    part.write_text(json.dumps(told), encoding="utf-8")
    return part.replace(asked)


Moment = dict[str, Any]
"""Fields of the event at which a run is halted; of its numbers, the name of one that is told."""
FIRST_NOTE: Moment = {"kind": "note"}


def start_of(phase: str) -> Moment:
    """When a phase begins."""
    return {"kind": "phase_start", "phase": phase}


STEP_DONE: Moment = {"kind": "progress", "numbers": "loss"}


def step_done(number: int) -> Moment:
    """When so many optimizer steps are done."""
    return STEP_DONE | {"done": number}


def paths_named(name: str, below: Path) -> list[Path]:
    """Files of that name, where runs make folders and remove them at the same time."""
    # Path.rglob fails on a folder that is gone before it looks into it.
    return [Path(at) / name for at, _, files in os.walk(below) if name in files]


def starts(event: Event, phase: str) -> bool:
    """Whether the event is the start of ``phase``."""
    return isinstance(event, PhaseStarted) and event.phase == phase


def trains(event: Event) -> bool:
    """Whether the event reports an optimizer step."""
    return isinstance(event, Advanced) and "loss" in event.numbers


def make_small(folder: Path, steps: int = 24, architecture: str | None = None) -> Small:
    """A model of 64 hidden units, two dozen hand-made trees and a suite of a few steps.

    The model is a llama, or one of :data:`tests.architectures.ARCHITECTURES`.
    """
    weights = write_folder(folder / "weights")
    if architecture is None:
        model = write_model_file(folder / "small.toml", weights, chat_template='"chatml"')
    else:
        size = len(vocabulary())
        save_architecture(architecture, weights, vocab_size=size)
        model = model_toml(architecture, folder / "small.toml", weights, vocab_size=size)
    corpus = folder / "trees.jsonl"
    corpus.write_text("".join(json.dumps(tree(index)) + "\n" for index in range(24)))
    suite = folder / "small_suite.toml"
    suite.write_text(SUITE.format(model=model, corpus=corpus, steps=steps))
    return Small(suite, folder)
