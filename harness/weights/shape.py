"""Shape: the model of a plan without weights (meta device), and parameter counts from it."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import prod
from typing import TYPE_CHECKING, Any

from harness.errors import InvalidFile, UnknownName, Unpredicted
from harness.quantize.scheme import find_scheme, quiet_schemes
from harness.spec.methods import held_still, plainly_initialised, shares_ranks
from harness.spec.model import Model
from harness.spec.plan import Plan
from harness.spec.variant import Adapter, Method, Quantization
from harness.weights.adapter import hold_still
from harness.weights.depth import SHALLOW, layers_alike
from harness.weights.wrapping import wrap

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

UNQUANTIZED = Quantization()


@dataclass(frozen=True)
class ParameterCount:
    """Logical parameter counts; a tied embedding counts once."""

    total: int
    trainable: int
    linear: int
    """Weights of linear layers, the output head left out."""
    quantized: int
    """Those of them that the scheme quantizes."""
    quantized_bytes: int
    """What these take as stored, quantization constants included."""
    modules: int
    """How many layers those are."""
    largest: int
    """Elements of the largest weight among them."""

    def deepened(self, one_deeper: ParameterCount, layers: int) -> ParameterCount:
        """The counts of a model with ``layers`` more, of which ``one_deeper`` has one."""
        low, high = dataclasses.astuple(self), dataclasses.astuple(one_deeper)
        return ParameterCount(*(a + layers * (b - a) for a, b in zip(low, high, strict=True)))


def transformers_config(model: Model) -> PretrainedConfig:
    """The model's configuration as transformers' own class, vocabulary grown by added tokens."""
    quiet_schemes()  # transformers imports what it finds of their packages
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    fields: dict[str, Any] = dict(model.config)
    if "model_type" not in fields:
        raise InvalidFile(
            f"model {model.name} states no shape",
            where=f"models/{model.name}.toml, [config]",
            expected="model_type and the fields of its transformers configuration",
        )
    model_type = fields.pop("model_type")
    if model.added_tokens:
        fields["vocab_size"] = fields["vocab_size"] + model.added_tokens
    where = f"models/{model.name}.toml, [config]"
    try:
        config = AutoConfig.for_model(model_type, **fields)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise InvalidFile(
            f"transformers does not accept the shape of {model.name}: {error}", where=where
        ) from None
    _refuse_misspelt(config, fields, where)
    return config


def _refuse_misspelt(config: PretrainedConfig, fields: dict[str, Any], where: str) -> None:
    """Transformers keeps fields it does not know; one that resembles an absent one is an error."""
    known = {field.name for field in dataclasses.fields(config)} | set(config.attribute_map)
    for name in fields.keys() - known:
        if difflib.get_close_matches(name, known - fields.keys(), cutoff=0.85):
            raise UnknownName(f"{config.model_type} shape field", name, known, where=where)


def meta_model(model: Model, layers: int | None = None) -> nn.Module:
    """The model, ``layers`` deep or its whole depth, on the meta device: shapes, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    config = transformers_config(model)
    if layers is not None:
        config.num_hidden_layers = layers
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built: nn.Module = AutoModelForCausalLM.from_config(config)
    return built


def wrapped_shapes(build: Callable[[], nn.Module], adapter: Adapter) -> nn.Module:
    """The model that ``build`` makes on the meta device, with the adapter on it.

    Raises:
        Unpredicted: PEFT reads the base's weights to find the adapter's shapes.
        UnknownName, InvalidFile: as :func:`harness.weights.adapter.wrap`.
    """
    import torch

    adapter = plainly_initialised(adapter)
    try:
        with torch.device("meta"):
            wrapped: nn.Module = wrap(build(), adapter)
    except (InvalidFile, RuntimeError) as error:
        if not _asks_for_values(error):
            raise
    else:
        return wrapped
    try:  # the way in which PEFT loads an adapter: shapes first
        loaded: nn.Module = wrap(build(), adapter, low_cpu_mem_usage=True)
    except (InvalidFile, RuntimeError) as error:
        if not _asks_for_values(error):
            raise
        raise Unpredicted(
            f"PEFT reads the weights to make an adapter of type {adapter.type}", where="[adapter]"
        ) from error
    return loaded


def _asks_for_values(error: Exception) -> bool:
    """Whether torch raised it because a tensor on the meta device holds no values."""
    first = error.__cause__ if isinstance(error, InvalidFile) else error
    return isinstance(first, RuntimeError)  # NotImplementedError is one


def count_plan(plan: Plan) -> ParameterCount:
    """Count what the run of ``plan`` would load and train, without weights."""
    if shares_ranks(plan.adapter):
        raise Unpredicted("the ranks of the adapter are shared out by the training rows")
    still = held_still(plan.training.optimizer) if plan.trains else None
    return count_parameters(plan.model, plan.method, plan.adapter, plan.quantization, still=still)


def count_parameters(
    model: Model,
    method: Method,
    adapter: Adapter | None,
    quantization: Quantization = UNQUANTIZED,
    *,
    still: str | None = None,
) -> ParameterCount:
    """Count what a run would load and train, without weights.

    ``total`` includes the adapter, as PEFT's ``print_trainable_parameters`` does. Weights with
    ``still`` in their names are not trained.

    Raises:
        Unpredicted: the adapter's shapes depend on the weights.
        UnknownName, InvalidFile: the model or the adapter is not one that can be built.
    """
    plain = None if adapter is None else plainly_initialised(adapter)
    parts = (model, plain, quantization)
    written = tuple("" if part is None else part.model_dump_json() for part in parts)
    return _count(_Asked(written, method, still, model, adapter, quantization))


@dataclass(frozen=True)
class _Asked:
    """What is counted; equal where its parts, as JSON, are."""

    written: tuple[str, ...]
    method: Method
    still: str | None
    model: Model = field(compare=False)
    adapter: Adapter | None = field(compare=False)
    quantization: Quantization = field(compare=False)


@lru_cache(maxsize=256)
def _count(asked: _Asked) -> ParameterCount:
    """Models are built for it, and planning and a run ask for the same several times."""
    quiet_schemes()  # before transformers' quantizers, which load torchao where it is installed
    if not layers_alike(asked.model, asked.adapter):
        return _counted(asked)
    one, two = (_counted(asked, layers) for layers in SHALLOW)
    depth = int(transformers_config(asked.model).num_hidden_layers)
    return one.deepened(two, depth - SHALLOW[0])


def _counted(asked: _Asked, layers: int | None = None) -> ParameterCount:
    """Counted on a model that is ``layers`` deep, or as deep as it is."""
    from harness.quantize.layers import linear_layers, taken_layers, weight_shape

    model, adapter, quantization = asked.model, asked.adapter, asked.quantization
    built = meta_model(model, layers)
    scheme = find_scheme(quantization)
    linear = sum(prod(weight_shape(layer)) for _, layer in linear_layers(built))
    taken = [weight_shape(layer) for _, layer in taken_layers(built, scheme)]
    if quantization.type != "none" and not taken:
        raise InvalidFile(
            f"quantization {quantization.label} finds no layer of {model.name} to quantize",
            where="quantization.type",
            expected="linear layers besides the output head",
            hint="use an unquantized variant",
        )
    if adapter is not None:
        built = wrapped_shapes(partial(meta_model, model, layers), adapter)
    elif asked.method == "none":
        built.requires_grad_(requires_grad=False)
    hold_still(built, asked.still)
    return ParameterCount(
        total=sum(parameter.numel() for parameter in built.parameters()),
        trainable=sum(item.numel() for item in built.parameters() if item.requires_grad),
        linear=linear,
        quantized=sum(map(prod, taken)),
        quantized_bytes=sum(scheme.stored_bytes(quantization, *shape) for shape in taken),
        modules=len(taken),
        largest=max(map(prod, taken), default=0),
    )
