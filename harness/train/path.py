"""Path: the ways to train a plan, by the name that ``training.speed`` calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from harness.errors import RunError, UserError
from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.spec.device import Device
from harness.spec.methods import optimizer_refusal, refusal
from harness.spec.plan import Plan, Substitution
from harness.spec.plugins import Plugins
from harness.spec.request import Request
from harness.spec.request import resolve as read_plans
from harness.spec.variant import AUTO, PLAIN, Training
from harness.train.job import TrainJob
from harness.train.peaks import TrainingPeaks
from harness.train.schedule import MicroBatch

PATHS = Plugins(
    "training path",
    "finetune_harness.paths",
    {
        "plain": "harness.train.sft.path:PLAIN",
        "fast": "harness.train.stream.path:STREAM",
        "recorded": "harness.train.recorded.path:RECORDED",
    },
)
FALLBACKS = {"fast": "recorded"}  # the path that is asked next, else the plain one
CHOSEN = "fast"  # what "auto" stands for where it takes the plan


class TrainingPath(Protocol):
    """One way to train: what it takes, what a step needs, and the training itself.

    Importing its module must be cheap: heavy libraries belong into the methods.
    """

    @property
    def name(self) -> str:
        """What ``training.speed`` calls it; records say that it trained."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules to import before the clock of the training phase starts."""

    # A path that can recompute some layers only says so by ``keeps_some_layers = True``. One that
    # can keep layer inputs on the host says ``offloads = True`` and how much memory they take
    # there: ``host_bytes(plan, largest)``.

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients have memory of their own through the whole training."""

    def refuses(self, plan: Plan) -> str | None:
        """What in ``plan`` this path does not take ("models of type mpt"); None: it takes all.

        Asked when a plan is made, so it is answered from the plan alone: nothing is downloaded.
        """

    def footprint(self, plan: Plan, largest: MicroBatch, trainable: int) -> TrainingPeaks:
        """Bytes of one step over ``largest``, with ``trainable`` trained parameters."""

    def train(self, job: TrainJob, progress: Progress) -> TrainResult:
        """Train ``job.model`` in place; see :func:`train`.

        Where ``job.validate`` is set, :class:`harness.train.validations.Validations` calls it, and
        the result holds what it found.
        """


def path_names() -> list[str]:
    """Names of all paths, those of installed packages included, sorted."""
    return PATHS.names()


def load_path(name: str, where: object = None) -> TrainingPath:
    """The path of that name.

    Raises:
        UnknownName: there is none.
        UserError: the package that brings it cannot be imported.
    """
    found: TrainingPath = PATHS.load(name, where)
    return found


def path_of(plan: Plan) -> TrainingPath:
    """The path that trains ``plan``; raises as :func:`load_path` does."""
    return load_path(plan.training.speed, f"training.speed of variant {plan.variant}")


def choose_path(plan: Plan) -> Plan:
    """``plan`` on a path that takes it: itself, or with a substitution that says why not.

    Raises:
        UnknownName: no path is called what ``training.speed`` says.
        UserError: no run can train the adapter, or the package that brings the path cannot be
            imported.
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    if plan.interpolation > 1 or plan.training.attention != "full":
        from harness.train.attention import check_long_context

        check_long_context(plan)
    if plan.adapter is not None:
        refused = refusal(plan.adapter, plan.quantization, plan.device.kind)
        if refused is not None:
            raise UserError(refused, where=f"[adapter] of variant {plan.variant}")
    if plan.sharded:
        _check_layers(plan)
    if not plan.trains:
        return _on(plan, PLAIN) if plan.training.speed == AUTO else plan
    refused = optimizer_refusal(plan.training.optimizer, plan.adapter)
    if refused is not None:
        raise UserError(
            f"optimizer {plan.training.optimizer} cannot train variant {plan.variant}: {refused}",
            where="training.optimizer",
        )
    used, reasons = _path_that_takes(plan)
    if plan.training.speed == AUTO and not reasons:
        plan = _on(plan, used)
    asked = plan.training
    found = [
        *_moved(asked, used, reasons),
        *_not_offloaded(asked, used),
        *_all_or_none(asked, used),
    ]
    if not found:
        return plan
    changes = {item.key.removeprefix("training."): item.used for item in found}
    return plan.model_copy(
        update={
            "training": asked.model_copy(update=changes),
            "substitutions": (*plan.substitutions, *found),
        }
    )


def _on(plan: Plan, name: str) -> Plan:
    return plan.model_copy(update={"training": plan.training.model_copy(update={"speed": name})})


def _check_layers(plan: Plan) -> None:
    """Refuse models whose layers cannot be told apart, before anything is loaded.

    Raises:
        UserError: they cannot.
    """
    from harness.weights.by_layer import decoder_layers
    from harness.weights.shape import meta_model

    try:
        decoder_layers(meta_model(plan.model))
    except RunError as reason:
        raise UserError(reason.what, where="training.parallel", hint=reason.hint) from None


def _moved(asked: Training, used: str, reasons: Sequence[str]) -> Iterator[Substitution]:
    """Another path than the one asked for, and why."""
    if reasons:
        yield Substitution(
            key="training.speed", asked=asked.speed, used=used, reason="; ".join(reasons)
        )


def _not_offloaded(asked: Training, used: str) -> Iterator[Substitution]:
    """Layer inputs stay on the device on a path that cannot move them."""
    if asked.activation_offload and not getattr(load_path(used), "offloads", False):
        reason = f"the {used} path keeps the inputs of layers on the device"
        yield Substitution(key="training.activation_offload", asked=True, used=False, reason=reason)


def _all_or_none(asked: Training, used: str) -> Iterator[Substitution]:
    """Recomputation on a path that cannot leave out some layers."""
    if getattr(load_path(used), "keeps_some_layers", False):
        return
    reason = f"the {used} path recomputes all layers or none"
    if asked.gradient_checkpointing == "auto":
        key = "training.gradient_checkpointing"
        yield Substitution(key=key, asked="auto", used=True, reason=reason)
    if asked.kept_layers:
        key = "training.kept_layers"
        yield Substitution(key=key, asked=asked.kept_layers, used=0, reason=reason)


def _path_that_takes(plan: Plan) -> tuple[str, list[str]]:
    """The first path that takes ``plan``, and why those asked before do not."""
    name, reasons = plan.training.speed, list[str]()
    if name == AUTO:
        return _chosen(plan)
    where = f"training.speed of variant {plan.variant}"
    while (reason := load_path(name, where).refuses(plan)) is not None:
        reasons.append(_refusal(name, reason))
        name = FALLBACKS.get(name, PLAIN)
    return name, reasons


def _chosen(plan: Plan) -> tuple[str, list[str]]:
    """What "auto" stands for on a processor; in float32 both paths take as long.

    What is wrong with an adapter or a model is left to the checks, which name the file.
    """
    if plan.precision.compute != "bfloat16":
        return PLAIN, []
    try:
        reason = load_path(CHOSEN).refuses(plan)
    except UserError:
        return PLAIN, []
    except Exception as error:  # noqa: BLE001 - models of other people's code, built on shapes
        reason = f"this model, which cannot be built on shapes ({type(error).__name__})"
    return (CHOSEN, []) if reason is None else (PLAIN, [_refusal(CHOSEN, reason)])


def _refusal(name: str, reason: str) -> str:
    return f"the {name} path does not take {reason}"


def resolve(request: Request, device: Device) -> list[Plan]:
    """Plans of all requested variants and seeds on ``device``, each on a path that takes it.

    Raises:
        UserError: as :func:`harness.spec.request.resolve` and :func:`choose_path`.
    """
    return [choose_path(plan) for plan in read_plans(request, device)]


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Train ``job.model`` in place on the path of its plan.

    The loss of a step is the mean over the assistant tokens of its whole batch, however the batch
    is divided into micro-batches.

    Raises:
        DivergedError: a loss that is not a finite number.
        RunError: nothing to train, or the path does not take the plan after all.
    """
    from harness.train.attention import trained_attention
    from harness.train.optimizer import silence_base_dropout

    silence_base_dropout(job.model)
    with trained_attention(job.model, job.plan) as own:
        if job.validate is not None:
            job = replace(job, validate=own(job.validate))
        result = path_of(job.plan).train(job, progress)
    if job.validate is not None and result.validation is None:
        raise RunError(
            f"the {job.plan.training.speed} path does not take validation losses",
            where=f"validation.every = {job.plan.validation.every}",
            hint="--set validation.every=0, or another training.speed",
        )
    return result
