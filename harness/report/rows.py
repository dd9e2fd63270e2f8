"""Rows: the runs of one variant in one setting, seeds together, and what they cost."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from harness import numbers
from harness.records.record import PhaseCost, RunRecord
from harness.records.store import StoredRun
from harness.report.figures.canvas import Mark
from harness.report.settings import bits_of, differing, flatten, method_of, plain, settings, without
from harness.spec.plan import Plan

COLOURS = 8
SHAPES = ("lora", "full", "dora", "untrained", "rslora")
MEMORY_KINDS = {
    "peak_device_bytes": "whole device, NVML",
    "peak_reserved_bytes": "CUDA reserved",
    "peak_allocated_bytes": "CUDA allocated",
    "peak_resident_bytes": "resident memory of the process",
}
# Of a device, in the order in which they tell two apart; the name says what follows from it.
DEVICE_KEYS = tuple(
    f"device.{key}" for key in ("name", "threads", "bfloat16", "memory_bytes", "float8", "kind")
)
TRAINING_PHASES = ("load", "prepare", "train", "validate")
# A peak of these says little of what a larger model would need: file pages count in it.
PASSING = ("load", "prepare")
DONE = {"load": "loading", "prepare": "preparing", "train": "training", "score": "scoring"}


@dataclass(frozen=True)
class Row:
    """One variant in one setting. ``runs`` are ordered by seed and never empty."""

    label: str
    variant: str
    runs: tuple[StoredRun, ...]
    mark: Mark

    @property
    def plan(self) -> Plan:
        """The plan of the first run; the others differ by seed only."""
        return self.runs[0].record.plan

    @cached_property
    def records(self) -> tuple[RunRecord, ...]:
        """All records."""
        return tuple(run.record for run in self.runs)

    @cached_property
    def finished(self) -> tuple[RunRecord, ...]:
        """Records of runs that ended well."""
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def is_reference_base(self) -> bool:
        """The untrained, unquantized model."""
        return not self.plan.trains and self.plan.quantization.type == "none"

    @property
    def measured(self) -> tuple[RunRecord, ...]:
        """Finished runs whose costs are their own, not shares of several that trained together."""
        return tuple(record for record in self.finished if record.together == 1)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the finished runs."""
        return tuple(record.plan.seed for record in self.finished)

    @property
    def failures(self) -> tuple[RunRecord, ...]:
        """Records of runs that did not end well."""
        return tuple(record for record in self.records if record.status != "ok")

    def median(
        self,
        read: Callable[[RunRecord], float | None],
        records: tuple[RunRecord, ...] | None = None,
    ) -> float | None:
        """Median of what is known, over finished runs unless ``records`` says otherwise."""
        chosen = self.finished if records is None else records
        found = [value for value in map(read, chosen) if value is not None]
        return statistics.median(found) if found else None

    @property
    def trainable(self) -> int | None:
        """Trainable parameters."""
        value = self.median(lambda record: record.census.trainable if record.census else None)
        return None if value is None else int(value)

    @property
    def weight_bytes(self) -> int | None:
        """Stored bytes of all weights."""
        value = self.median(lambda record: record.census.weight_bytes if record.census else None)
        return None if value is None else int(value)

    @property
    def tokens_per_second(self) -> float | None:
        """Median non-padding tokens per second of steady training steps."""
        found = self.speeds()
        return statistics.median(found) if found else None

    @property
    def seconds(self) -> float | None:
        """Wall time of a whole run."""
        return self.median(lambda record: record.seconds, self.measured)

    def times(self, name: str) -> tuple[float, ...]:
        """Seconds of one phase in every run that did its work, shortest first."""
        records = self.measured if self.finished else self.records
        return tuple(
            sorted(cost.seconds for r in records for cost in _worked(r) if cost.name == name)
        )

    def phase_seconds(self, name: str) -> float | None:
        """Median seconds of one phase, over the runs that did its work."""
        found = self.times(name)
        return statistics.median(found) if found else None

    @property
    def training_seconds(self) -> float | None:
        """Median seconds of the whole phase of training; None where nothing is trained."""
        return self.phase_seconds("train") if self.plan.trains else None

    def step_times(self) -> tuple[float, ...]:
        """Seconds of all steps of every run, shortest first: without compiling and set-up."""
        points = [record.training.losses for record in self.measured if record.training]
        return tuple(sorted(sum(point.seconds for point in found) for found in points if found))

    @property
    def step_seconds(self) -> float | None:
        """Median seconds of all training steps of a run."""
        found = self.step_times()
        return statistics.median(found) if found else None

    def speeds(self) -> tuple[float, ...]:
        """Tokens per second of steady steps, by run."""
        found = (record.training.throughput.median for record in self.measured if record.training)
        return tuple(value for value in found if value is not None)

    def reused(self, name: str) -> int:
        """How many runs took the result of a phase over from another run."""
        records = self.finished or self.records
        return sum(cost.reused is True for r in records for cost in r.phases if cost.name == name)

    def energies(self) -> tuple[float, ...]:
        """Energy of the training phase (of all phases for an untrained reference), by run."""
        found = (_energy(record) for record in self.measured)
        return tuple(value for value in found if value is not None)

    def energy_joules(self) -> float | None:
        """Median of the energies of all runs."""
        found = self.energies()
        return statistics.median(found) if found else None

    def peaks(self, kind: str, phases: Iterable[str] | None = None) -> tuple[int, ...]:
        """The highest peak of every run over the phases that must fit to train, lowest first.

        With ``phases`` it is the peak of those, and failed runs count where none has finished.
        Empty where a phase was taken over from another run by every one.
        """
        wanted = self._fitting_phases() if phases is None else tuple(phases)
        records = self.measured if phases is None or self.finished else self.records
        done = {cost.name for record in records for cost in _worked(record)}
        if any(self.reused(name) for name in set(wanted) - done):
            return ()
        found = (_peak(record, kind, wanted) for record in records)
        return tuple(sorted(value for value in found if value is not None))

    def peak_bytes(self, kind: str, phases: Iterable[str] | None = None) -> int | None:
        """Median of the peaks of all runs, so that a row with more seeds gets no higher one."""
        found = self.peaks(kind, phases)
        return round(statistics.median(found)) if found else None

    def peak_phase(self, kind: str) -> str | None:
        """The phase that sets the peak in most runs; None where no peak is known."""
        peak = self.peak_bytes(kind)
        if peak is None:
            return None
        by_phase = {name: self.peak_bytes(kind, (name,)) or 0 for name in self._fitting_phases()}
        return max(by_phase, key=lambda name: by_phase[name])

    def needed_said(self, kind: str) -> str:
        """The peak in words; where training does not set it, what does and what training needs."""
        text, phase = numbers.size(self.peak_bytes(kind)), self.peak_phase(kind)
        if phase is None:
            return "an unknown amount of memory"
        if phase not in PASSING:
            return text
        later = "train" if self.plan.trains else "score"
        alone = self.peak_bytes(kind, (later,))
        rest = "" if alone is None else f"; {DONE[later]} alone peaks at {numbers.size(alone)}"
        return f"{text} ({DONE[phase]} sets it{rest})"

    @property
    def predicted_bytes(self) -> int | None:
        """Peak memory by the planner, which does not vary between repetitions."""
        value = self.median(lambda r: r.prediction.peak_bytes if r.prediction else None)
        return None if value is None else int(value)

    def _fitting_phases(self) -> tuple[str, ...]:
        return TRAINING_PHASES if self.plan.trains else ("load", "score_base", "score")


def _worked(record: RunRecord) -> list[PhaseCost]:
    """Phases whose cost is that of their work."""
    return [cost for cost in record.phases if not cost.reused]


def _peak(record: RunRecord, kind: str, phases: Sequence[str]) -> int | None:
    """The highest peak of one run over some phases; a phase that it took over does not count."""
    costs = [getattr(cost, kind) for cost in _worked(record) if cost.name in phases]
    known = [value for value in costs if value is not None]
    return max(known) if known else None


def _energy(record: RunRecord) -> float | None:
    """Joules of what counts of a run; None where a phase of it was not measured or not worked."""
    wanted: Callable[[PhaseCost], bool] = (
        (lambda cost: cost.name == "train") if record.plan.trains else (lambda _: True)
    )
    costs = [cost for cost in record.phases if wanted(cost)]
    known = [cost.energy_joules for cost in costs if cost.energy_joules is not None]
    whole = len(known) == len(costs) and not any(cost.reused for cost in costs)
    return sum(known) if known and whole else None


def memory_kind(rows: Sequence[Row]) -> str:
    """The memory measure that most rows have: the whole device on a GPU, resident on a CPU."""
    for kind in MEMORY_KINDS:
        known = [row for row in rows if row.finished and row.peak_bytes(kind, ["load"]) is not None]
        finished = [row for row in rows if row.finished]
        if finished and len(known) * 2 > len(finished):
            return kind
    return "peak_resident_bytes"


def make_rows(runs: Iterable[StoredRun]) -> tuple[Row, ...]:
    """Group runs into rows, in name order.

    A variant that was run in several settings (another corpus, budget or device) gets one row per
    setting, whose label names the keys that differ.
    """
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        groups.setdefault((run.record.plan.variant, _setting(run.record.plan)), []).append(run)
    by_variant: dict[str, list[list[StoredRun]]] = {}
    for (variant, _), members in sorted(groups.items()):
        by_variant.setdefault(variant, []).append(sorted(members, key=_order))
    rows: list[Row] = []
    for variant, members_of in by_variant.items():
        for label, members in zip(_labels(variant, members_of), members_of, strict=True):
            mark = Mark(len(rows) % COLOURS, 0)
            rows.append(Row(label, variant, tuple(_last_of_each_seed(members)), mark))
    return tuple(replace(row, mark=_mark(row.plan, row.mark.colour)) for row in rows)


def _mark(plan: Plan, colour: int) -> Mark:
    """The shape says the method, the fill the bits of the weights; the colour is the row's own."""
    method = method_of(plan)
    shape = SHAPES.index(method) if method in SHAPES else len(SHAPES)
    return Mark(colour, shape, fill_of(plan))


def fill_of(plan: Plan) -> Literal["full", "left", "none"]:
    """How full a variant's marker is: by the bits of its weights."""
    bits = bits_of(plan)
    return "full" if bits >= 16 else "left" if bits >= 8 else "none"


def _order(run: StoredRun) -> tuple[int, str, str]:
    record = run.record
    return record.plan.seed, record.started_at, record.fingerprint


def _last_of_each_seed(members: Sequence[StoredRun]) -> list[StoredRun]:
    return list({run.record.plan.seed: run for run in members}.values())


def _setting(plan: Plan) -> str:
    """What two runs of a row have in common: everything but seed, substitutions and request."""
    return json.dumps(settings(plan), sort_keys=True)


def _labels(variant: str, groups: Sequence[Sequence[StoredRun]]) -> list[str]:
    if len(groups) == 1:
        return [variant]
    plans = [members[0].record.plan for members in groups]
    keys = differing(plans)
    keys = [key for key in keys if key != "corpus_sha256"] or keys
    flat = [flatten(settings(plan, "schema_version")) for plan in plans]
    devices = _telling([key for key in DEVICE_KEYS if key in keys], flat)
    others = [key for key in keys if not key.startswith("device.")]
    keys = [*devices, *others[: max(1, 2 - len(devices))]]
    labels = []
    for table in flat:
        on_gpu = table.get("device.kind") == "cuda"  # which has no threads of its own
        known = (key for key in keys if not on_gpu or key != "device.threads")
        shown = ", ".join(f"{key}={plain(table.get(key))}" for key in known)
        labels.append(f"{variant} [{shown}]")
    counts = Counter(labels)
    return [
        label if counts[label] == 1 else f"{label} #{labels[: index + 1].count(label)}"
        for index, label in enumerate(labels)
    ]


def _telling(keys: Sequence[str], tables: Sequence[dict[str, Any]]) -> list[str]:
    """Those of the keys that tell tables apart which the keys before them do not."""
    found: list[str] = []
    told = 1
    for key in keys:
        values = {tuple(json.dumps(table.get(one)) for one in (*found, key)) for table in tables}
        if len(values) > told:
            found.append(key)
            told = len(values)
    return found


def twins(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Ordered pairs of rows whose plans differ in quantization only."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(without(row.plan, "quantization"), []).append(row)
    return [(a, b) for members in groups.values() for a in members for b in members if a is not b]
