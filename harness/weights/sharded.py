"""Sharded: the frozen weights of decoder layers, spread over devices by torch's FSDP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.quantize.scheme import Weighed, scheme_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from harness.spec.variant import Adapter

COMPARED = 2  # layers that are compared with themselves before and after they are sharded
PROBE = 16  # tokens of that comparison
# Largest difference of a sharded layer from a whole one, of the largest number. Both run the same
# kernels on the same bits; only the addresses differ, by which libraries may choose a kernel.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}
WRAPPED = "_fsdp_wrapped_module."  # what FSDP puts into the names of what it wraps
HELD = "_harness_sharded"


@dataclass(frozen=True)
class Held:
    """A parameter that was there before its layer was sharded: whose it was, and what it weighs."""

    module: nn.Module
    name: str
    dtype: str
    weighed: Weighed


class Shards:
    """Shards one layer after the other, then ties them together; adapters to come stay whole.

    FSDP (the first one) gathers a layer before it is used, in forward and backward passes, and
    lets go of it after that. It keeps all weights of a layer in one flat tensor, so they must have
    one dtype: packed 4-bit weights are kept as numbers of the compute dtype. Weights are frozen,
    so there are no gradients to share here.
    """

    def __init__(self, device: str, adapter: Adapter | None = None) -> None:
        """Shard over all processes that have joined, each with its ``device``.

        ``adapter`` is the one to come: what it adapts besides layers is left alone.
        """
        self._device = device
        self._adapter = adapter
        self._names: list[str] = []
        self._whole: list[Tensor] = []
        self.difference: float | None = None

    def take(self, model: Any, name: str) -> None:
        """Shard the layer ``name``; the first few wait for each other, to be asked whole.

        Raises:
            RunError: the layer cannot be sharded.
        """
        self._names.append(name)
        if self._whole:
            _shard(model, name, self._device)
            return
        layers = model.get_submodule(container(name))
        if len(self._names) == min(COMPARED, len(layers)):
            self._whole = probe(model, layers[:COMPARED], layers, name)
            embeddings = spread_embeddings(model, self._adapter)
            for one in [*self._names, *([embeddings] if embeddings else [])]:
                _shard(model, one, self._device)

    def close(self, model: Any) -> None:
        """Tie the layers together, and compare the first ones with what they gave whole.

        What calls the layers is wrapped too: FSDP does not let go of a layer that nothing is
        wrapped around until its backward pass.

        Raises:
            RunError: they compute something else.
        """
        layers = model.get_submodule(container(self._names[0]))
        caller = container(container(self._names[0]))
        module = model.get_submodule(caller)
        spread = (layers, model.get_input_embeddings())
        inside = {id(weight) for one in spread if is_sharded(one) for weight in one.parameters()}
        others = [weight for weight in module.parameters() if id(weight) not in inside]
        wrapped = _wrap(module, self._device, ignored_states=others)
        model.set_submodule(caller, wrapped)
        # Room is made at the first call otherwise: maybe in inference mode, of no use to training.
        wrapped.check_is_root()
        found = probe(model, layers[:COMPARED], layers, self._names[0], within=module)
        self.difference = compare(self._whole, found, model.dtype)
        self._whole = []


def spread_embeddings(model: Any, adapter: Adapter | None) -> str | None:
    """The name of the input embeddings, where devices share them too.

    They do not where the output layer has the same weights, nor where an adapter may be put on
    them.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or embeddings.weight is head.weight:
        return None
    name = next(str(name) for name, module in model.named_modules() if module is embeddings)
    targets = "all-linear" if adapter is None else adapter.fields.get("target_modules")
    if targets == "all-linear":
        return name
    apart = isinstance(targets, list) and not any(name.endswith(str(one)) for one in targets)
    return name if apart else None


def container(name: str) -> str:
    """The name of what holds the module ``name``."""
    return name.rpartition(".")[0]


def _shard(model: Any, name: str, device: str) -> None:
    model.set_submodule(name, shard_layer(model.get_submodule(name), device, name))


def _wrap(module: nn.Module, device: str, **options: Any) -> Any:
    import torch
    from torch.distributed.fsdp import FullyShardedDataParallel

    on_cuda = device == "cuda"
    # A layer is gathered for its backward pass when the one after it has been let go of; the
    # device has work enough waiting meanwhile.
    options |= {"backward_prefetch": None}
    place = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FullyShardedDataParallel(module, device_id=place, use_orig_params=False, **options)


def shard_layer(layer: nn.Module, device: str, name: str) -> nn.Module:
    """``layer`` with its frozen weights spread over all processes.

    Raises:
        RunError: its weights have several dtypes.
    """
    held = tuple(_held(layer))
    dtypes = sorted({str(weight.dtype) for weight in layer.parameters()})
    if len(dtypes) > 1:
        raise RunError(
            f"the weights of {name} have the dtypes {', '.join(dtypes)}, and FSDP keeps a layer "
            "in one flat tensor of one dtype",
            where="training.parallel",
            hint='use parallel = "data"',
        )
    wrapped: nn.Module = _wrap(layer, device)
    wrapped.__dict__[HELD] = held
    return wrapped


def _held(layer: nn.Module) -> Iterator[Held]:
    for module in layer.modules():
        scheme = scheme_of(module)
        for name, weight in module.named_parameters(recurse=False):
            found = None if scheme is None else scheme.weigh(weight, module)
            plain = Weighed("none", weight.numel(), weight.numel() * weight.element_size())
            yield Held(module, name, str(weight.dtype).removeprefix("torch."), found or plain)


def held_parameters(model: nn.Module) -> list[Held]:
    """All parameters of ``model`` that are sharded now, as they were before."""
    return [one for module in model.modules() for one in module.__dict__.get(HELD, ())]


def is_sharded(model: nn.Module) -> bool:
    """Whether each device has only a part of ``model``, whether frozen or trained."""
    return any(HELD in module.__dict__ for module in model.modules()) or any(
        hasattr(weight, "device_mesh") for weight in model.parameters()
    )


def own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Name, parameter and owner of all parameters of ``model`` that are whole on this device.

    Names are those of the model without sharding. Flat tensors and what is left of the weights
    that lie in them are passed over; bitsandbytes registers these anew in every forward pass.
    """
    passed = {(id(one.module), one.name) for one in held_parameters(model)}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            flat = name == "_flat_param" or (id(module), name) in passed
            if flat or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            whole = f"{prefix}.{name}" if prefix else name
            yield plain_name(whole), parameter, module


def plain_name(name: str) -> str:
    """The name of a parameter without what sharding puts into it."""
    return name.replace(WRAPPED, "")


@contextmanager
def weights_in_sight(model: nn.Module) -> Iterator[None]:
    """Let PEFT see what sharded 4-bit layers hold, while it puts adapters on them.

    It asks a layer's weight for its format, and the dtype of the weight decides the adapter's; a
    stand-in without numbers answers as the weight did before it was sharded.
    """
    found = [one for one in held_parameters(model) if one.weighed.quantization != "none"]
    for one in found:
        _stand_in(one.module, one.name)
    try:
        yield
    finally:
        for one in found:
            delattr(one.module, one.name)
            setattr(one.module, one.name, _nothing(one.module))


def _stand_in(module: Any, name: str) -> None:
    import torch
    from bitsandbytes.nn import Params4bit

    state = module.quant_state
    delattr(module, name)
    weight = Params4bit(
        torch.empty((0, 1), dtype=torch.uint8, device=state.absmax.device),
        requires_grad=False,
        quant_state=state,
        quant_type=state.quant_type,
        compress_statistics=state.nested,
        blocksize=state.blocksize,
        bnb_quantized=True,
    )
    setattr(module, name, weight)


def _nothing(module: Any) -> Tensor:
    """What stands for a weight that lies with the others until FSDP puts it in place."""
    import torch

    return torch.empty((0, 1), dtype=module.quant_storage, device=module.quant_state.absmax.device)


def probe(
    model: Any, first: nn.Module, layers: nn.Module, name: str, within: nn.Module | None = None
) -> list[Tensor]:
    """Logits of a few tokens by the layers ``first`` alone, and the gradient of their inputs.

    ``first`` stands in for ``layers`` meanwhile, in ``within`` or in what ``name`` says.
    """
    import torch

    words = model.get_output_embeddings().weight.shape[0]
    ids = torch.arange(PROBE, device=model.device)[None] % words
    inputs: list[Tensor] = []

    def keep(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
        inputs.append(output.detach().requires_grad_())
        return inputs[-1]

    parent = model.get_submodule(container(container(name))) if within is None else within
    attribute = container(name).rpartition(".")[2]
    hook = model.get_input_embeddings().register_forward_hook(keep)
    setattr(parent, attribute, first)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
        logits.float().logsumexp(-1).mean().backward()
    finally:
        setattr(parent, attribute, layers)
        hook.remove()
    slope = inputs[0].grad
    assert slope is not None  # noqa: S101 - asked for by the hook
    return [logits.detach(), slope]


def compare(whole: list[Tensor], sharded: list[Tensor], dtype: torch.dtype) -> float:
    """The largest difference, of the largest number.

    Raises:
        RunError: it is more than rounding.
    """
    worst = 0.0
    for one, other in zip(whole, sharded, strict=True):
        gap = (one.float() - other.float()).abs().max() / one.float().abs().max().clamp(min=1e-30)
        worst = max(worst, float("inf") if not bool(gap.isfinite()) else float(gap))
    if worst > TOLERANCE[str(dtype).removeprefix("torch.")]:
        raise RunError(
            f"sharded layers compute something else than whole ones: the first {COMPARED} layers "
            f"differ by {worst:.1e} of the largest number",
            where="training.parallel",
            expected=f"at most {TOLERANCE[str(dtype).removeprefix('torch.')]:.0e}",
            hint="use parallel = \"data\"; 'harness doctor --gpus' says what is right here",
        )
    return worst
