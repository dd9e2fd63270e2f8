"""Plan: Variant × Suite × seed × device, fully resolved, nothing left to default."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from harness.errors import CorpusError, StorageError, UserError
from harness.spec.device import Device
from harness.spec.methods import needs_of, virtual_tokens
from harness.spec.model import FolderSource, Model
from harness.spec.parallel import parallel_refusal
from harness.spec.schema import (
    Frozen,
    Versioned,
    data_fingerprint,
    default_of,
    file_sha256,
    leave_out,
    sampled_sha256,
)
from harness.spec.schemes import check_usable
from harness.spec.suite import Budget, CorpusSpec, Order, ScoreSpec, Seed, Suite
from harness.spec.variant import (
    Adapter,
    Dtype,
    Method,
    Name,
    Precision,
    Quantization,
    Training,
    Variant,
)


class Substitution(Frozen):
    """A setting that cannot be had as asked, what is used instead, and why."""

    key: str
    asked: JsonValue
    used: JsonValue
    reason: str


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
    training: Training
    model: Model
    corpus: CorpusSpec
    corpus_sha256: str | None
    data_sha256: str | None = Field(default=None, description="of the folder with task data")
    model_sha256: str | None = Field(
        default=None, description="of a local model folder; null elsewhere and in older plans"
    )
    budget: Budget
    score: ScoreSpec
    device: Device
    substitutions: tuple[Substitution, ...] = ()
    request: RunRequest | None = Field(
        default=None, description="null where a plan was made from objects, or by an older harness"
    )

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.method != "none" and self.budget.steps != 0

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
        base["compute"], base["stored"] = self.precision.compute, self.stored
        return data_fingerprint(base)

    @property
    def run_name(self) -> str:
        """Folder of the run below ``reports/runs``."""
        return f"{self.suite}/{self.variant}/{self.seed}-{self.fingerprint[:12]}"


# Names, descriptions and places say what a thing is called and where it lies, not what it is; the
# primary score is a matter of reading the runs, not of making them.
UNDECIDING = (
    "variant",
    "suite",
    "substitutions",
    "request",
    "model.name",
    "model.description",
    "model.license",
    "score.data_folder",
    "score.include_path",
    "score.primary",
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
    "score.also",
    "score.split",
    "training.devices",
    "training.parallel",
)


def _deciding(plan: Plan) -> dict[str, Any]:
    data = plan.model_dump(mode="json")
    # What has a digest is known by it, wherever it lies.
    if data["corpus_sha256"]:
        leave_out(data, "corpus.source")
    if data["model_sha256"]:
        leave_out(data, "model.source.path")
    for key in UNDECIDING:
        leave_out(data, key)
    for key in NEWER:
        leave_out(data, key, when=default_of(Plan, key))
    data["score"]["precisions"] = data["score"].pop("forms")  # as older harnesses called them
    for task in data["score"]["tasks"]:
        task["name"] = Path(task["name"]).name if _is_file(task["name"]) else task["name"]
    return data


def _is_file(task: str) -> bool:
    """Whether a task is a file of one's own; a stock name may hold a slash too."""
    return task.endswith((".yaml", ".yml"))


def make_plan(variant: Variant, suite: Suite, model: Model, seed: int, device: Device) -> Plan:
    """Resolve one run. Needs neither torch nor the network.

    Raises:
        CorpusError: the corpus file is missing.
        StorageError: the corpus or the model's folder cannot be read.
        UserError: the request cannot be carried out on this device at all.
    """
    check_usable(variant.quantization, device)
    found: list[Substitution] = []
    precision = _fit_precision(variant, device, found)
    refused = parallel_refusal(variant)
    if refused is not None:
        raise UserError(refused, where=f"[training] of variant {variant.name}")
    training = _fit_training(variant, suite, model, found)
    training = _fit_device(training, device, found)
    order: dict[str, Any] = {"order": suite.order, "order_seed": suite.order_seed}
    if variant.method == "none":
        shared = {"devices": training.devices, "parallel": training.parallel}
        training, budget, order = Training.model_validate(shared), Budget(steps=0), {}
        precision = precision.model_copy(update={"trainable": "float32"})
        found = [item for item in found if not item.key.startswith(("training", "precision.tr"))]
    else:
        budget = suite.budget
    return Plan(
        variant=variant.name,
        suite=suite.name,
        seed=seed,
        **order,
        method=variant.method,
        quantization=variant.quantization,
        precision=precision,
        adapter=variant.adapter,
        training=training,
        model=model,
        corpus=suite.corpus,
        corpus_sha256=_corpus_sha256(suite.corpus),
        data_sha256=_data_sha256(suite.score),
        model_sha256=model_sha256(model),
        budget=budget,
        score=suite.score.taken,
        device=device,
        substitutions=tuple(found),
    )


def _fit_precision(variant: Variant, device: Device, found: list[Substitution]) -> Precision:
    """Low precision needs hardware for it; a CPU without it is 30 times slower, not faster."""
    used = variant.precision.model_dump()
    for key, asked in list(used.items()):
        if asked == "float16" and device.kind == "cpu":
            reason = "float16 training needs a GPU"
        elif asked == "bfloat16" and not device.bfloat16:
            reason = f"no bfloat16 arithmetic on this {device.kind}"
        else:
            continue
        used[key] = "float32"
        found.append(
            Substitution(key=f"precision.{key}", asked=asked, used="float32", reason=reason)
        )
    return Precision.model_validate(used)


def _fit_training(
    variant: Variant, suite: Suite, model: Model, found: list[Substitution]
) -> Training:
    training = _fit_soft_prompt(variant, found)
    taken = virtual_tokens(variant.adapter)
    limit = model.config.get("max_position_embeddings")
    if isinstance(limit, int) and training.sequence_length > limit - taken:
        if taken >= limit:
            raise UserError(
                f"{taken} virtual tokens leave no room for text",
                where=f"[adapter] of variant {variant.name}",
                expected=f"fewer than the {limit} positions of {model.name}",
            )
        soft = f", {taken} of them for virtual tokens" if taken else ""
        found.append(
            Substitution(
                key="training.sequence_length",
                asked=training.sequence_length,
                used=limit - taken,
                reason=f"{model.name} takes at most {limit} positions{soft}",
            )
        )
        training = training.model_copy(update={"sequence_length": limit - taken})
    rows = _device_rows(suite.budget.batch_size, training)
    micro = training.micro_batch_size
    if micro > rows or rows % micro:
        used = max(size for size in range(1, min(micro, rows) + 1) if rows % size == 0)
        each = "the batch of" if training.devices == 1 else "a device's part of a batch,"
        found.append(
            Substitution(
                key="training.micro_batch_size",
                asked=micro,
                used=used,
                reason=f"must divide {each} {rows}",
            )
        )
        training = training.model_copy(update={"micro_batch_size": used})
    return training


def _device_rows(batch: int, training: Training) -> int:
    """Rows of a batch of ``batch`` rows for each device, all with equally many.

    Raises:
        UserError: they cannot be divided so.
    """
    rows, left = divmod(batch, training.devices)
    if left:
        raise UserError(
            f"a batch of {batch} rows cannot be divided over {training.devices} devices",
            where="budget.batch_size",
            expected=f"a multiple of {training.devices}",
            hint="change suite.budget.batch_size, or the number of devices",
        )
    return rows


def _fit_soft_prompt(variant: Variant, found: list[Substitution]) -> Training:
    """What a soft prompt cannot be trained with is switched off, and said."""
    training = variant.training
    needs = needs_of(variant.adapter)
    kind = variant.adapter.type if variant.adapter is not None else ""
    unable = {
        "packing": (
            needs.virtual_tokens is not None,
            f"{kind} numbers positions anew, so packed conversations would see each other",
        ),
        "gradient_checkpointing": (
            needs.holds_cache,
            f"the prompt of {kind} is a cache, which checkpointed layers do not read",
        ),
    }
    for name, (cannot, reason) in unable.items():
        if cannot and getattr(training, name):
            key = f"training.{name}"
            found.append(Substitution(key=key, asked=True, used=False, reason=reason))
            training = training.model_copy(update={name: False})
    return training


def _fit_device(training: Training, device: Device, found: list[Substitution]) -> Training:
    """What only a GPU can do."""
    if training.optimizer in ("adamw_8bit", "paged_adamw_8bit") and device.kind == "cpu":
        raise UserError(
            f"optimizer {training.optimizer} needs a GPU",
            where="training.optimizer",
            hint='use "adamw" on a CPU',
        )
    usable = training.speed == "fast" and training.gradient_checkpointing and device.kind == "cuda"
    if training.activation_offload and not usable:
        found.append(
            Substitution(
                key="training.activation_offload",
                asked=True,
                used=False,
                reason="needs a GPU, gradient checkpointing and speed = fast",
            )
        )
        training = training.model_copy(update={"activation_offload": False})
    return training


SAMPLE = Path(__file__).parents[1] / "corpus" / "sample.trees.jsonl"


def _corpus_sha256(corpus: CorpusSpec) -> str | None:
    """SHA-256 of the corpus file or folder; null for the hub, where the revision is pinned."""
    if corpus.source.startswith("hub:"):
        return None
    path = SAMPLE if corpus.source == "sample" else Path(corpus.source).expanduser()
    if not (path.is_file() or path.is_dir()):
        raise CorpusError(
            "no such corpus",
            where=f"corpus.source = {corpus.source}",
            expected='"sample", a file, a folder, or "hub:OpenAssistant/oasst1@<revision>"',
        )
    return _sha256(path)


def _data_sha256(score: ScoreSpec) -> str | None:
    """SHA-256 of the folder with task data and of one's own task files; null without either."""
    folder = score.data_folder
    if folder is not None and not Path(folder).is_dir():
        raise UserError(
            "no such data folder",
            where=f"score.data_folder = {folder}",
            expected="a folder that mirrors hub data sets as <org>/<name>",
        )
    data = None if folder is None else _sha256(Path(folder))
    own = _task_files(score)
    if not own:
        return data
    return data_fingerprint({"data": data, "tasks": [file_sha256(path) for path in own]})


def _task_files(score: ScoreSpec) -> list[Path]:
    """One's own task files, and what lies beside them: they include and call each other."""
    folders = {Path(task.name).parent for task in score.tasks if _is_file(task.name)}
    if score.include_path is not None:
        folders.add(Path(score.include_path))
    found = {path for folder in folders for kind in TASK_FILES for path in folder.glob(kind)}
    if score.include_path is not None:
        found |= {path for kind in TASK_FILES for path in Path(score.include_path).rglob(kind)}
    return sorted(path for path in found if path.is_file())


TASK_FILES = ("*.yaml", "*.yml", "*.py")
TOKENIZER_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors")
SMALL_BYTES = 16 << 20


def model_files(model: Model) -> tuple[str, ...]:
    """Patterns of the files that a model is loaded from."""
    return (*MODEL_FILES, "*.py") if model.trust_remote_code else MODEL_FILES


def model_sha256(model: Model) -> str | None:
    """Digest of a local model folder; null for other sources, and where there is no folder.

    Every file that a model is loaded from is hashed whole, but for safetensors of 16 MiB and
    more: of those :func:`harness.spec.schema.sampled_sha256` reads a few MiB.
    """
    if not isinstance(model.source, FolderSource):
        return None
    folder = Path(model.source.path).expanduser()
    found = {path for pattern in model_files(model) for path in folder.glob(pattern)}
    files = sorted(path for path in found if path.is_file())
    if not files:
        return None
    return data_fingerprint({path.name: _file_digest(path) for path in files})


def _file_digest(path: Path) -> str:
    large = path.suffix == ".safetensors" and path.stat().st_size >= SMALL_BYTES
    return sampled_sha256(path) if large else file_sha256(path)


def _sha256(path: Path) -> str:
    if path.is_file():
        return file_sha256(path)
    try:
        return _folder_sha256(path)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None


def _folder_sha256(folder: Path) -> str:
    """Digest of the names and contents of all files below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        line = f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n"
        digest.update(line.encode())
    return digest.hexdigest()
