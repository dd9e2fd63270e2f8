"""Memory: the peak of every phase of a plan, predicted before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.errors import HarnessError, Unpredicted
from harness.forecast.loading import beside_weights
from harness.forecast.overhead import CONTEXT_BYTES, NCCL_BYTES, overhead, unread_bytes
from harness.forecast.recomputation import keeping, keeps_what_fits, with_kept_layers
from harness.forecast.weights import LastingBytes, standing_bytes
from harness.records.events import SILENCE, Progress
from harness.records.record import MemoryPrediction
from harness.spec.plan import Plan
from harness.train.path import path_of
from harness.train.schedule import MicroBatch
from harness.weights.shape import ParameterCount, count_plan

MOST_ROWS = 512  # in a micro-batch: more is never asked for, and rehearsing it would take minutes


class NotRehearsed(Exception):  # noqa: N818 - a condition, not the user's mistake
    """The model's own code does not run on shapes alone, so that nothing can be predicted."""


def predict(
    plan: Plan, largest: MicroBatch | None = None, progress: Progress = SILENCE
) -> MemoryPrediction | None:
    """Peak bytes of each phase: by torch's allocator on a GPU, resident on a CPU.

    Weights and optimizer state are counted; what a step allocates is found by rehearsing it on
    the meta device with the real modules or counted by its path. Until the corpus is
    known, rows are taken to be ``sequence_length`` long, so one of shorter rows needs less; with
    ``largest``, the prediction is for that corpus. All tokens are taken to be labelled.

    None where a step of the model cannot be rehearsed, or the adapter's shapes depend on the
    weights; ``progress`` then hears the reason.

    Raises:
        InvalidFile: the model's TOML states no shape, or PEFT refuses the adapter.
    """
    try:
        return _predicted(plan, largest)
    except (NotRehearsed, Unpredicted) as reason:
        why = reason.what if isinstance(reason, Unpredicted) else reason
        progress.note(f"memory is not predicted: {why}")
        return None


def _predicted(plan: Plan, largest: MicroBatch | None) -> MemoryPrediction:
    counts = count_plan(plan)
    around = overhead(plan, counts)
    standing = standing_bytes(plan, counts)
    scoring = around.scoring + standing.base + _scoring_bytes(plan, standing, around.heap_share)
    unread = unread_bytes(plan, standing.base)
    by_phase = {"load": standing.base - unread + beside_weights(plan, counts, around)}
    parts: dict[str, int] = {"weights": standing.base, **_gathered(standing)}
    if plan.trains:
        parts = training_parts(plan, counts, largest)
        by_phase |= {"score_base": scoring, "train": sum(parts.values())}
        scoring += around.training - around.scoring  # what training has loaded stays
    by_phase["score"] = scoring + standing.adapter
    if plan.trains and plan.validation.every:
        paused = standing.optimizer + standing.gradients + parts.get("best weights", 0)
        by_phase["validate"] = by_phase["score"] + paused
    return MemoryPrediction(
        by_phase=by_phase,
        peak_bytes=max(by_phase.values()),
        parts=parts,
        host_bytes=_host_bytes(plan, largest),
    )


def _host_bytes(plan: Plan, largest: MicroBatch | None) -> int | None:
    """What the path keeps beside the device, where it keeps anything there."""
    if not plan.trains or not plan.training.activation_offload:
        return None
    count = getattr(path_of(plan), "host_bytes", None)
    return None if count is None else count(plan, largest or MicroBatch.full(plan))


def _gathered(standing: LastingBytes) -> dict[str, int]:
    return {"gathered_layers": standing.gathered} if standing.gathered else {}


def _scoring_bytes(plan: Plan, standing: LastingBytes, heap_share: float) -> int:
    """Most bytes of tensors beside the weights while scores are taken."""
    from harness.forecast.scoring import rehearse_scoring
    from harness.score.body import LOGIT_BYTES
    from harness.score.likelihood import CPU_BUDGET

    tokens = plan.score.batch_tokens
    if plan.device.kind == "cpu":
        tokens = min(tokens, CPU_BUDGET)
    logits = LOGIT_BYTES[plan.device.kind]
    with _rehearsal(plan):
        hidden = rehearse_scoring(plan, tokens)
    # a chunk's float32 logits live until the next are there, beside those in the compute dtype;
    # no layer is gathered then
    in_layers = round(heap_share * hidden) + standing.scored
    return standing.around + max(in_layers, round(heap_share * (5 * logits // 2)))


@contextmanager
def _rehearsal(plan: Plan) -> Iterator[None]:
    """Turn whatever a model's code raises on shapes into the one condition NotRehearsed.

    Modelling code of any author runs here without data and under another attention mask than its
    own, so it may raise anything; a run with real tensors goes on all the same.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        kind = plan.model.config.get("model_type", plan.model.name)
        said = " ".join(str(error).split())[:200]
        raise NotRehearsed(
            f"a step of {kind} models{_with(plan)} cannot be rehearsed without weights "
            f"({type(error).__name__}: {said})"
        ) from error


def _with(plan: Plan) -> str:
    plain = plan.adapter is None or plan.adapter.type == "LORA"
    return "" if plain or plan.adapter is None else f" with {plan.adapter.type} adapters"


def training_parts(
    plan: Plan, counts: ParameterCount, largest: MicroBatch | None = None
) -> dict[str, int]:
    """What the peak of a training step is made of, in bytes.

    Raises:
        NotRehearsed: the path cannot rehearse a step of this model.
    """
    return _training_parts(settle_recomputation(plan, counts, largest), counts, largest)


def settle_recomputation(
    plan: Plan, counts: ParameterCount, largest: MicroBatch | None = None
) -> Plan:
    """``plan`` with as many kept layers as fit, where it leaves that to the forecast.

    Raises:
        NotRehearsed: the path cannot rehearse a step of this model.
    """
    if not keeps_what_fits(plan):
        return plan

    def needed(one: Plan) -> int:
        return room_needed(one, sum(_training_parts(one, counts, largest).values()))

    return with_kept_layers(plan, needed)


def _training_parts(
    plan: Plan, counts: ParameterCount, largest: MicroBatch | None
) -> dict[str, int]:
    around = overhead(plan, counts)
    standing = standing_bytes(plan, counts)
    rows = plan.training.micro_batch_size
    path = path_of(plan)
    with _rehearsal(plan):
        step = path.footprint(plan, largest or MicroBatch.full(plan), standing.trainable)
    kept = path.keeps_gradients or plan.device_rows > rows or plan.spreads_training
    before = max(step.saved, step.loss)
    best = standing.gradients if plan.validation.keep == "best" else 0  # of the same shapes
    copied = {"best weights": best} if best and plan.device.kind == "cpu" else {}  # on the host
    return {
        "weights": standing.base,
        **_gathered(standing),
        "adapter": standing.adapter,
        "optimizer": standing.optimizer,
        **copied,
        "gradients": standing.gradients if kept else 0,
        "activations": step.saved,
        "loss": before - step.saved,
        "backward": step.peak - before,
        "runtime_overhead": around.training + round((around.heap_share - 1) * step.peak),
    }


def fits(plan: Plan, memory_bytes: int) -> bool | None:
    """Whether the plan's peak and the driver's memory fit into ``memory_bytes``; None: unknown."""
    prediction = predict(plan)
    if prediction is None:
        return None
    return room_needed(plan, prediction.peak_bytes) <= memory_bytes


def room_needed(plan: Plan, peak_bytes: int) -> int:
    """Memory a device must have for a predicted peak; on a CPU all processes need it of one."""
    if plan.device.kind == "cpu":
        return peak_bytes * plan.training.devices
    return peak_bytes + CONTEXT_BYTES + (NCCL_BYTES if plan.training.devices > 1 else 0)


def largest_batch(plan: Plan, memory_bytes: int) -> int | None:
    """The largest micro-batch whose training step fits, at most MOST_ROWS; 0 if no row does.

    None if the plan trains nothing, or if a step of the model cannot be rehearsed. Gradients are
    not kept from one micro-batch to the next.
    """
    if not plan.trains:
        return None
    counts = count_plan(plan)
    plan = keeping(plan, 0) if keeps_what_fits(plan) else plan

    def needed(rows: int) -> int:
        training = plan.training.model_copy(update={"micro_batch_size": rows})
        budget = plan.budget.model_copy(update={"batch_size": rows * training.devices})
        wider = plan.model_copy(update={"training": training, "budget": budget})
        return room_needed(plan, sum(training_parts(wider, counts).values()))

    try:
        return _largest_fitting(needed, memory_bytes)
    except NotRehearsed:
        return None


def _largest_fitting(needed: Callable[[int], int], room: int) -> int:
    """The largest argument for which ``needed``, rising and nearly linear, is within ``room``."""
    low, at_low = 0, 0  # fits
    step, at_step = 1, needed(1)
    while at_step <= room:
        if step >= MOST_ROWS:
            return MOST_ROWS
        slope = max((at_step - at_low) // (step - low), 1) if low else at_step
        low, at_low = step, at_step
        step = min(low + max(1, (room - at_low) // slope), MOST_ROWS)
        at_step = needed(step)
    high = step  # does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= room else (low, middle)
    return low
