"""By layer: a base that is filled, quantized and, where asked for, sharded one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.quantize.scheme import Scheme, Target

if TYPE_CHECKING:
    from torch import nn

    from harness.weights.sharded import Shards
    from harness.weights.trained_shards import TrainedShards

Fill = Callable[[Iterable["nn.Module"]], None]


@dataclass(frozen=True)
class Filling:
    """Where weights come from: ``fill`` gives modules theirs, if they have none yet.

    ``add_rows`` may lengthen the embeddings once they are filled.
    """

    fill: Fill
    add_rows: Callable[[Any], None] = lambda _: None


def build_by_layer(
    model: Any,
    scheme: Scheme,
    target: Target,
    filling: Filling,
    shards: Shards | TrainedShards | None = None,
) -> None:
    """Put ``model`` on the target's device, never more than one layer of it unquantized.

    What is outside of the decoder's layers comes first. With ``shards`` a layer is spread over the
    devices once it is quantized.

    Raises:
        RunError: the model does not say what its layers are, or sharded layers compute something
            else than whole ones.
    """
    from harness.quantize.layers import taken_layers

    model.requires_grad_(requires_grad=False)
    layers = decoder_layers(model)
    inside = {id(module) for _, layer in layers for module in layer.modules()}
    taken = [name for name, _ in taken_layers(model, scheme)]
    starts = tuple(f"{name}." for name, _ in layers)
    filling.fill(_beside(model, inside))
    filling.add_rows(model)
    _quantize(model, [name for name in taken if not name.startswith(starts)], scheme, target)
    _move(_beside(model, inside), target.device)
    for name, layer in layers:
        filling.fill(layer.modules())
        _quantize(model, [one for one in taken if one.startswith(f"{name}.")], scheme, target)
        layer.to(target.device)
        if shards is not None:
            shards.take(model, name)
    scheme.complete(model)
    if shards is not None:
        shards.close(model)


def _beside(model: nn.Module, inside: Set[int]) -> list[nn.Module]:
    return [module for module in model.modules() if id(module) not in inside]


def decoder_layers(model: Any) -> list[tuple[str, nn.Module]]:
    """Name and module of every layer of the decoder, in order.

    Raises:
        RunError: the model does not say what its layers are.
    """
    from torch import nn

    kinds = set(getattr(model, "_no_split_modules", None) or ())
    for name, module in model.named_modules():
        filled = isinstance(module, nn.ModuleList) and len(module) > 0
        if filled and {type(layer).__name__ for layer in module.children()} <= kinds:
            return [(f"{name}.{index}", layer) for index, layer in module.named_children()]
    raise RunError(
        f"models of type {model.config.model_type} do not say what their layers are",
        where="loading layer by layer",
        hint='use parallel = "data", or a model whose weights lie in a folder or on the hub',
    )


def _quantize(model: Any, names: Sequence[str], scheme: Scheme, target: Target) -> None:
    from harness.quantize.layers import as_linear

    for name in names:
        linear = as_linear(model.get_submodule(name), target.device)
        model.set_submodule(name, scheme.quantize(linear, target))


def _move(modules: Iterable[nn.Module], device: str) -> None:
    """Move what the modules hold themselves; tied weights stay tied."""
    for module in modules:
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)  # noqa: SLF001 - stays persistent or not


def empty_model(config: Any, dtype: Any, **options: Any) -> Any:
    """The model of a transformers configuration without memory for its parameters."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options)
    model.tie_weights()  # each was made empty for itself
    return model.eval()


def as_read(modules: Iterable[nn.Module]) -> None:
    """Nothing is to be filled: the weights are those of a file."""


def drawn_weights(model: Any, seed: int, device: str) -> Fill:
    """What fills modules of an empty model at random, each as the model would initialise it.

    The numbers depend on ``seed``, the kind of device and the order of the calls. Torch's own
    random numbers are left as they are.
    """
    import torch

    calls = 0

    def fill(modules: Iterable[nn.Module]) -> None:
        nonlocal calls
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed * STEP + calls)
            calls += 1
            _draw(model, list(modules), device)

    return fill


STEP = 1_000_003  # between the numbers of two seeds: more than any model has layers


def _draw(model: Any, modules: Sequence[nn.Module], device: str) -> None:
    import torch

    empty = {
        id(parameter): parameter
        for module in modules
        for parameter in module.parameters(recurse=False)
    }
    made = {
        key: torch.nn.Parameter(torch.empty_like(one, device=device), requires_grad=False)
        for key, one in empty.items()
    }
    for module in modules:
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = made[id(parameter)]  # noqa: SLF001 - a tied one stays one
    for module in modules:
        model._init_weights(module)  # noqa: SLF001 - the model's own
