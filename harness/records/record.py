"""RunRecord: what happened in one run. Written by the child, read by the store and the report."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from harness.records.corpus_result import CorpusResult
from harness.records.validation import Count, ValidationResult
from harness.spec.form import FormName
from harness.spec.plan import Plan
from harness.spec.schema import Frozen, Versioned

Status = Literal["ok", "oom", "diverged", "failed", "interrupted"]
PhaseName = Literal["fetch", "prepare", "load", "score_base", "train", "validate", "score", "save"]
PHASES: tuple[PhaseName, ...] = (
    "fetch",
    "prepare",
    "load",
    "score_base",
    "train",
    "score",
    "save",
)
COSTED: tuple[PhaseName, ...] = (*PHASES[:5], "validate", *PHASES[5:])
"""The phases of a run, and what interrupts its training, in the order in which they are shown."""


class DeviceCost(Frozen):
    """What a phase cost on one of several devices that share a run. Unknown is null, never 0."""

    peak_resident_bytes: Count | None = None
    peak_allocated_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None
    peak_device_bytes: Count | None = None
    energy_joules: float | None = None


PEAKS = tuple(name for name in DeviceCost.model_fields if name.startswith("peak_"))


class PhaseCost(Frozen):
    """What one phase cost, by the Meter. Unknown is null, never 0.

    Of several devices, peaks are those of the one with the highest, and energy is that of all.
    """

    name: PhaseName
    seconds: float
    peak_resident_bytes: Count | None = Field(
        default=None, description="peak resident memory of the process during the phase"
    )
    peak_allocated_bytes: Count | None = Field(default=None, description="CUDA allocator")
    peak_reserved_bytes: Count | None = Field(default=None, description="CUDA allocator")
    peak_device_bytes: Count | None = Field(default=None, description="whole device, NVML")
    energy_joules: float | None = None
    energy_source: str | None = Field(default=None, description='"nvml" or "rapl"')
    reused: bool | None = Field(
        default=None,
        description="took over what another run had found; the cost is that of copying",
    )
    devices: tuple[DeviceCost, ...] = Field(
        default=(), description="each device's own; empty where one device has the run"
    )


class Tokens(Frozen):
    """Tokens the training steps saw, and the ones they did not."""

    assistant: Count = Field(description="carry loss")
    non_padding: Count
    padded: Count = Field(description="with padding: what the device computed")
    truncated: Count = Field(
        description="left out by the sequence length, of all training rows of the corpus, also of "
        "those that the budget did not reach"
    )


class LossPoint(Frozen):
    """One optimizer step: mean loss per assistant token before the step, and its cost."""

    step: Count
    loss: float
    learning_rate: float
    grad_norm: float | None = None
    seconds: float
    non_padding_tokens: Count


class Throughput(Frozen):
    """Non-padding tokens per second over steady steps."""

    warmup_steps: Count = Field(description="first steps left out")
    median: float | None
    p10: float | None
    p90: float | None
    flops_per_second: float | None = None
    peak_share: float | None = Field(
        default=None, description="of the device's bf16 peak, where that is known"
    )


class TrainResult(Frozen):
    """What training did."""

    steps: Count
    tokens: Tokens
    losses: tuple[LossPoint, ...]
    throughput: Throughput
    compile_seconds: float | None = None
    trainer: str = Field(description="which path ran: plain, fast or recorded")
    kept_layers: Count | None = Field(
        default=None,
        description="with recomputation of some layers: those that kept what they computed",
    )
    validation: ValidationResult | None = None


class CensusRow(Frozen):
    """Parameters of one kind: counted by logical shape, weighed by stored bytes."""

    dtype: str = Field(description="as stored: float32, bfloat16, uint8, …")
    quantization: str = Field(description="none, or its label: nf4, nf4+dq, int8")
    trainable: bool
    elements: Count = Field(description="logical elements; a packed 4-bit byte counts two")
    bytes: Count = Field(description="stored bytes, quantization state included")


class Census(Frozen):
    """The loaded model read off its modules."""

    rows: tuple[CensusRow, ...]
    compute_dtype: str | None = Field(
        default=None, description="of quantized products, read off the quantized modules"
    )

    @property
    def trainable(self) -> int:
        """Trainable parameters."""
        return sum(row.elements for row in self.rows if row.trainable)

    @property
    def total(self) -> int:
        """All parameters by logical shape."""
        return sum(row.elements for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        """Stored bytes of all weights, quantization state included."""
        return sum(row.bytes for row in self.rows)


class Score(Frozen):
    """One metric of one task, in one precision, at one stage.

    The value is ``transform(sum(numerator) / sum(denominator))`` over the rows of the parquet
    file ``items`` (relative to the run folder; columns ``item``, ``cluster``, ``numerator``,
    ``denominator`` and any extras). A mean has denominator 1; perplexity has summed negative
    log-likelihood over tokens and transform "exp". Statistics need nothing else.
    """

    task: str
    metric: str
    stage: Literal["before", "after"] = Field(description="of training; both alike when untrained")
    precision: FormName = Field(default="training", description="the form that was scored")
    value: float
    standard_error: Annotated[float, Field(ge=0)] | None
    n: Count = Field(description="items")
    unit: str
    direction: Literal["lower", "higher"] = Field(description="which way is better")
    transform: Literal["identity", "exp"] = "identity"
    items: str | None = Field(
        default=None,
        pattern=r"^items/[^/\\]+\.parquet$",
        description="the parquet file, which never lies outside the run's folder",
    )
    items_sha256: str | None = Field(
        default=None, description="of that file, taken when it was written; null in older records"
    )
    headline: bool = Field(default=False, description="shown in the ranking table")
    details: dict[str, JsonValue] = Field(
        default_factory=dict, description="few-shot, limit, version, data folder, baselines, …"
    )

    @model_validator(mode="after")
    def _exponential_is_positive(self) -> Score:
        if self.transform == "exp" and not self.value > 0:
            msg = f"{self.metric} of {self.task} is exp of a number, and cannot be {self.value}"
            raise ValueError(msg)
        return self


class Generation(Frozen):
    """One answer to one held-out prompt, of the suite's corpus or of the bundled sample."""

    prompt: str
    reference: str | None
    answer: str
    stage: Literal["before", "after"]
    tokens: Count
    ended: bool = Field(description="with an end-of-turn token before the limit")


class Problem(Frozen):
    """How a run that did not end well ended."""

    kind: str = Field(description="cuda_oom, host_oom, diverged, crash, killed, interrupted, …")
    phase: PhaseName | None
    step: int | None = Field(description="the optimizer step under way, from 1")
    message: str
    log_tail: str = ""


class Environment(Frozen):
    """Where the run ran. Holds no secrets, user names or paths."""

    python: str
    packages: dict[str, str]
    os: str
    cpu: str
    cores: int
    threads: int | None = None
    memory_bytes: int | None = None
    gpu: str | None = None
    gpu_memory_bytes: int | None = None
    gpu_driver: str | None = None
    cuda: str | None = None
    gpu_clock_mhz: int | None = Field(default=None, description="highest SM clock")
    gpu_memory_clock_mhz: int | None = Field(default=None, description="highest memory clock")
    gpu_power_limit_watts: float | None = None
    commit: str | None = None
    dirty: bool | None = None
    sources: str | None = Field(
        default=None, description="SHA-256 of the harness's own files that make results"
    )
    deterministic: bool | None = None
    settings: dict[str, str] = Field(
        default_factory=dict, description="environment variables that change results or costs"
    )


class MemoryPrediction(Frozen):
    """Predicted peak bytes by phase, from the planner.

    To be compared with ``peak_allocated_bytes`` on a GPU and ``peak_resident_bytes`` on a CPU.
    """

    by_phase: dict[str, int]
    peak_bytes: Count
    parts: dict[str, int] = Field(
        default_factory=dict, description="what the peak of a training step is made of"
    )
    host_bytes: Count | None = Field(
        default=None, description="page-locked host memory for layer inputs, beside a GPU's own"
    )

    @property
    def phase(self) -> str:
        """The phase that sets the peak."""
        return max(self.by_phase, key=lambda name: self.by_phase[name])


class RunRecord(Versioned):
    """The result of one run: spec (``plan``) apart from outcome (everything else)."""

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    plan: Plan
    fingerprint: str
    status: Status
    started_at: str = Field(description="ISO 8601, UTC")
    seconds: float = Field(
        description="wall time of the whole child process: with the loading of its libraries, and "
        "without its wait where it was started before there was a plan"
    )
    environment: Environment | None
    phases: tuple[PhaseCost, ...] = ()
    census: Census | None = None
    corpus: CorpusResult | None = None
    training: TrainResult | None = None
    scores: tuple[Score, ...] = ()
    generations: tuple[Generation, ...] = ()
    adapter_bytes: int | None = None
    adapter_sha256: dict[str, str] = Field(
        default_factory=dict, description="of each file of the adapter, when it was written"
    )
    prediction: MemoryPrediction | None = None
    problem: Problem | None = None
    resumed: Count = Field(default=0, description="how many earlier attempts this run goes on from")
    shared: bool = Field(
        default=False, description="other runs used the device at the same time: times are longer"
    )
    warm: bool = Field(
        default=False,
        description="forked from a process that had loaded the libraries: they are resident from "
        "the first phase on, also those that the run does not use, and seconds lack their loading",
    )

    together: int = Field(
        default=1,
        description="runs that trained as one on the same base, this one included: seconds, energy "
        "and peaks of what they did as one are each run's equal share",
    )

    @property
    def all_seconds(self) -> float:
        """Seconds of the run with those of the earlier attempts that it goes on from."""
        if not self.resumed:
            return self.seconds
        return max(self.seconds, sum(cost.seconds for cost in self.phases))

    def score(
        self, task: str, metric: str, stage: str = "after", precision: str = "training"
    ) -> Score | None:
        """The score of that name, or None."""
        for score in self.scores:
            if (score.task, score.metric, score.stage, score.precision) == (
                task,
                metric,
                stage,
                precision,
            ):
                return score
        return None
