"""Planning: a variant, a suite, a model, a seed and a device become a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from harness.errors import UserError
from harness.spec.device import Device
from harness.spec.methods import needs_of, virtual_tokens
from harness.spec.model import Model, context_of
from harness.spec.parallel import parallel_refusal
from harness.spec.plan import Plan, Substitution
from harness.spec.plan_digests import corpus_sha256, data_sha256, model_sha256
from harness.spec.products import products_refusal
from harness.spec.schemes import check_usable
from harness.spec.suite import Budget, Suite, Validation
from harness.spec.variant import AUTO, PLAIN, Precision, SuiteProtocol, Training, Variant


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
    refused = products_refusal(variant, precision, device)
    if refused is not None:
        raise UserError(
            f"no products of eight-bit floats for variant {variant.name}: {refused}",
            where="precision.products",
            hint='use precision.products = "compute"',
        )
    refused = parallel_refusal(variant, suite.score.forms)
    if refused is not None:
        raise UserError(refused, where=f"[training] of variant {variant.name}")
    training = _fit_training(variant, suite, model, found)
    training = _fit_device(training, device, found)
    training = _without_choice(training, device)
    _tell_context(variant, model, found)
    _tell_router_loss(variant, model, found)
    decided = _decided(suite, model)
    _tell_left(variant, {**decided, "seed": seed, "warmup": training.warmup_steps}, found)
    order: dict[str, Any] = {"order": suite.order, "order_seed": suite.order_seed}
    if variant.method == "none":
        shared = {"devices": training.devices, "parallel": training.parallel}
        training, budget, order = Training.model_validate(shared), Budget(steps=0), {}
        validation = Validation()
        precision = precision.model_copy(update={"trainable": "float32"})
        found = [item for item in found if not item.key.startswith(("training", "precision.tr"))]
    else:
        budget, validation = suite.budget, suite.validation
    return Plan(
        variant=variant.name,
        suite=suite.name,
        seed=seed,
        **order,
        method=variant.method,
        quantization=variant.quantization,
        precision=precision,
        adapter=variant.adapter,
        interpolation=variant.interpolation,
        training=training,
        model=model,
        corpus=suite.corpus,
        corpus_sha256=corpus_sha256(suite.corpus),
        data_sha256=data_sha256(suite.score.taken),
        model_sha256=model_sha256(model),
        budget=budget,
        validation=validation,
        score=suite.score.taken,
        device=device,
        protocol=_protocol(suite),
        substitutions=tuple(found),
    )


def _protocol(suite: Suite) -> SuiteProtocol:
    """What a variant that names nothing itself would be trained with.

    A path that is chosen is the plain one here: which one a run took, its own plan says.
    """
    given = {"training": suite.training, "precision": suite.precision}
    found = SuiteProtocol.model_validate(given)
    return found.model_copy(update={"training": _plain_for_auto(found.training)})


def _without_choice(training: Training, device: Device) -> Training:
    """``training`` with the plain path where the device leaves no choice.

    Elsewhere :func:`harness.train.path.choose_path` chooses, since paths know what they take.
    """
    has_choice = device.kind == "cpu" and device.bfloat16
    return training if has_choice else _plain_for_auto(training)


def _plain_for_auto(training: Training) -> Training:
    return training.model_copy(update={"speed": PLAIN}) if training.speed == AUTO else training


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
    training = _fit_attention(_fit_method(variant, found), found)
    taken = virtual_tokens(variant.adapter)
    limit = _context(variant, model)
    if limit is not None and training.sequence_length > limit - taken:
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


def _tell_router_loss(variant: Variant, model: Model, found: list[Substitution]) -> None:
    """What transformers would add to the loss of a model of experts is no loss of tokens."""
    key = "output_router_logits"
    if variant.method != "none" and model.config.get(key) is True:
        reason = "the loss counts assistant tokens; the term that balances experts is left out"
        found.append(Substitution(key=f"model.{key}", asked=True, used=False, reason=reason))


def _decided(suite: Suite, model: Model) -> dict[str, JsonValue]:
    """What the suite says of what PEFT's experiments set themselves, under their names."""
    return {
        "model_id": model.name,
        "max_steps": suite.budget.steps,
        "batch_size": suite.budget.batch_size,
    }


def _tell_left(
    variant: Variant, decided: Mapping[str, JsonValue], found: list[Substitution]
) -> None:
    """What another tool's file asks for and a suite decides, so that all variants have the same."""
    for name in sorted(variant.left.keys() & decided.keys()):
        asked, used = variant.left[name], decided[name]
        if asked != used:
            reason = "the suite decides it for all variants alike"
            found.append(Substitution(key=name, asked=asked, used=used, reason=reason))
    others = sorted(variant.left.keys() - decided.keys())
    if others:
        reason = "runs are scored and computed in the harness's own way"
        found.append(
            Substitution(key=", ".join(others), asked="as written", used=None, reason=reason)
        )


def _context(variant: Variant, model: Model) -> int | None:
    """Positions that the model takes under the variant; None where its TOML does not say."""
    limit = context_of(model.config)
    return None if limit is None else limit * variant.interpolation


def _tell_context(variant: Variant, model: Model, found: list[Substitution]) -> None:
    """Scores have the positions that a soft prompt leaves, which other variants need not do."""
    taken, limit = virtual_tokens(variant.adapter), _context(variant, model)
    if taken and limit is not None and variant.adapter is not None:
        reason = f"{taken} virtual tokens of {variant.adapter.type} come before every text"
        found.append(
            Substitution(key="score.context", asked=limit, used=limit - taken, reason=reason)
        )


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


def _fit_attention(training: Training, found: list[Substitution]) -> Training:
    """Groups of shifted attention would cross the borders of packed conversations."""
    if training.attention == "full" or not training.packing:
        return training
    reason = "groups of shifted attention would cross the borders of packed conversations"
    found.append(Substitution(key="training.packing", asked=True, used=False, reason=reason))
    return training.model_copy(update={"packing": False})


def _fit_method(variant: Variant, found: list[Substitution]) -> Training:
    """What the adapter cannot be trained with is switched off, and said."""
    training = variant.training
    needs = needs_of(variant.adapter)
    kind = variant.adapter.type if variant.adapter is not None else ""
    together = (
        f"{kind} looks at every token of a row"
        if needs.sees_all
        else f"{kind} numbers positions anew"
    )
    unable = {
        "packing": (
            needs.virtual_tokens is not None or needs.sees_all,
            f"{together}, so packed conversations would see each other",
        ),
        "gradient_checkpointing": (
            needs.holds_cache,
            f"the prompt of {kind} is a cache, which checkpointed layers do not read",
        ),
    }
    for name, (cannot, reason) in unable.items():
        if cannot and getattr(training, name):
            key = f"training.{name}"
            asked = getattr(training, name)
            found.append(Substitution(key=key, asked=asked, used=False, reason=reason))
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
    usable = training.gradient_checkpointing and device.kind == "cuda"
    if training.activation_offload and not usable:
        found.append(
            Substitution(
                key="training.activation_offload",
                asked=True,
                used=False,
                reason="needs a GPU and gradient checkpointing",
            )
        )
        training = training.model_copy(update={"activation_offload": False})
    return training
