"""Plan: Variant × Suite × seed × device, fully resolved, nothing left to default."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from harness.spec.device import Device
from harness.spec.digests import data_fingerprint
from harness.spec.model import Model
from harness.spec.plan_digests import is_task_file
from harness.spec.schema import Frozen, Versioned, default_of, leave_out
from harness.spec.suite import Budget, CorpusSpec, Order, ScoreSpec, Seed, Validation
from harness.spec.variant import (
    INTERPOLATION,
    Adapter,
    Dtype,
    Method,
    Name,
    Positive,
    Precision,
    Quantization,
    SuiteProtocol,
    Training,
)


class Substitution(Frozen):
    """A setting that cannot be honoured, what is used instead, and why."""

    key: str
    asked: JsonValue
    used: JsonValue
    reason: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.key} = {self.asked} is replaced by {self.used}: {self.reason}"


class RunRequest(Frozen):
    """What a user asked for, as typed. The seed stands in the plan."""

    variant: str
    suite: str
    settings: tuple[str, ...] = Field(default=(), description="--set KEY=VALUE")
    tasks: tuple[str, ...] = Field(default=(), description="--task")
    name: str = Field(default="", description="--name")


class Plan(Versioned):
    """Everything that decides what a run does. Pure data; the same plan gives the same result."""

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    variant: Name
    suite: Name
    seed: Seed = Field(description="of initialisation and dropout, and of order unless that is set")
    order_seed: Seed | None = Field(
        default=None, description="of the order of the training rows; null: the seed"
    )
    order: Order = Field(
        default="rows", description="what the order is drawn over; older harnesses: rows"
    )
    method: Method
    quantization: Quantization
    precision: Precision
    adapter: Adapter | None
    interpolation: Positive = INTERPOLATION
    training: Training
    model: Model
    corpus: CorpusSpec
    corpus_sha256: str | None
    data_sha256: str | None = Field(default=None, description="of the folder with task data")
    model_sha256: str | None = Field(
        default=None, description="of a local model folder; null elsewhere and in older plans"
    )
    budget: Budget
    validation: Validation = Validation()
    score: ScoreSpec
    device: Device
    protocol: SuiteProtocol | None = Field(
        default=None,
        description="what the suite gives to every variant that does not name it itself; null in "
        "older plans",
    )
    substitutions: tuple[Substitution, ...] = ()
    request: RunRequest | None = Field(
        default=None, description="null where a plan was made from objects, or by an older harness"
    )

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.method != "none" and self.budget.steps != 0

    @property
    def sharded(self) -> bool:
        """Whether the base's weights are spread over the devices."""
        return self.training.parallel == "sharded"

    @property
    def spreads_training(self) -> bool:
        """Whether they are trained too, so that gradients and optimizer state are spread."""
        return self.sharded and self.method == "full"

    @property
    def stored(self) -> Dtype:
        """Dtype of unquantized base weights: fully fine-tuned ones are trainable weights."""
        return self.precision.trainable if self.method == "full" else self.precision.compute

    @property
    def threads(self) -> int | None:
        """Torch threads of each process: several on a CPU share its cores."""
        threads = self.device.threads
        return None if threads is None else max(1, threads // self.training.devices)

    @property
    def device_rows(self) -> int:
        """Rows of an optimizer step that each device gets."""
        return self.budget.batch_size // self.training.devices

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the result: names, descriptions and the request do not."""
        return data_fingerprint(_deciding(self))

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the untrained model's scores."""
        deciding = _deciding(self)
        kept = ("quantization", "model", "corpus", "corpus_sha256", "data_sha256", "score")
        base = {key: deciding[key] for key in (*kept, "device")}
        if self.model_sha256:
            base["model_sha256"] = self.model_sha256
        if self.threads is not None:
            base["device"] = {**base["device"], "threads": self.threads}
        if self.interpolation > 1:
            base["interpolation"] = self.interpolation
        if self.precision.products != "compute":
            base["products"] = self.precision.products
        base["compute"], base["stored"] = self.precision.compute, self.stored
        return data_fingerprint(base)

    @property
    def run_name(self) -> str:
        """Folder of the run below ``reports/runs``."""
        return self.run_name_with(self.fingerprint)

    def run_name_with(self, fingerprint: str) -> str:
        """The same where the fingerprint is known already, which takes a while to reckon."""
        return f"{self.suite}/{self.variant}/{self.seed}-{fingerprint[:12]}"


# Names, descriptions and places say what a thing is called and where it lies, not what it is; the
# primary score is a matter of reading the runs, not of making them. What of the suite's protocol
# holds for a run stands among its own settings.
UNDECIDING = (
    "variant",
    "suite",
    "substitutions",
    "request",
    "protocol",
    "model.name",
    "model.description",
    "model.license",
    "score.data_folder",
    "score.include_path",
    "score.primary",
    "device.float8",
)

# Settings that came after the first records. Each is left out while it is at its default, which is
# what older harnesses did without it, so that their fingerprints stay what they were.
NEWER = (
    "order",
    "order_seed",
    "model_sha256",
    "corpus.validation_fraction",
    "corpus.validation_limit",
    "corpus.chat_date",
    "validation",
    "score.also",
    "score.split",
    "interpolation",
    "precision.products",
    "training.loss_on",
    "training.attention",
    "training.attention_groups",
    "training.kept_layers",
    "training.memory_gib",
    "training.devices",
    "training.parallel",
)


@cache
def _newer() -> tuple[tuple[str, Any], ...]:
    return tuple((key, default_of(Plan, key)) for key in NEWER)


def _deciding(plan: Plan) -> dict[str, Any]:
    data = plan.model_dump(mode="json")
    # What has a digest is known by it, wherever it lies.
    if data["corpus_sha256"]:
        leave_out(data, "corpus.source")
    if data["model_sha256"]:
        leave_out(data, "model.source.path")
    for key in UNDECIDING:
        leave_out(data, key)
    for key, default in _newer():
        leave_out(data, key, when=default)
    data["score"]["precisions"] = data["score"].pop("forms")  # as older harnesses called them
    for task in data["score"]["tasks"]:
        task["name"] = Path(task["name"]).name if is_task_file(task["name"]) else task["name"]
    return data
