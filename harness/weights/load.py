"""Load: tokenizer and base model in the planned quantization and dtype, on the planned device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.quantize.scheme import Target, find_scheme
from harness.spec.model import DrawnSource
from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.weights.agreement import as_unreadable, check_config, check_loading, check_shapes
from harness.weights.allocator import large_blocks_apart
from harness.weights.interpolation import interpolate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of the fetched model; code beside it runs only if it is trusted.

    Raises:
        InvalidFile: the folder holds no tokenizer that transformers can read.
    """
    from transformers import AutoTokenizer

    files = "tokenizer.json and tokenizer_config.json"
    with as_unreadable(folder, "tokenizer", expected=files, whatever=True):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def load_base(
    plan: Plan,
    folder: Path,
    quantization: Quantization | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The base model in evaluation mode, frozen.

    ``quantization`` replaces the plan's, to score an adapter on a base it was not trained on.
    Code that lies beside the weights runs only if it is trusted.

    Raises:
        InvalidFile: the folder holds no model that transformers can read, another one than the
            plan's, or not all of it.
    """
    import torch

    chosen = plan.quantization if quantization is None else quantization
    # cuDNN builds a plan for every new length (about 60 ms on an H100); texts have hundreds.
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    # Fully fine-tuned weights are stored as trainable weights, everything else as compute dtype.
    open_model = partial(
        _open_whole,
        folder,
        interpolation=plan.interpolation,
        dtype=getattr(torch, plan.stored),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    compute = getattr(torch, plan.precision.compute)
    # FSDP keeps what it shards in one flat tensor of one dtype
    storage = compute if plan.sharded else None
    target = Target(chosen, compute, plan.device.kind, storage)
    check_config(plan.model, folder)
    with as_unreadable(folder), large_blocks_apart():
        check_shapes(plan.model, folder, trust_remote_code=trust_remote_code)
        model = _load(plan, folder, open_model, target)
    model.requires_grad_(requires_grad=False)  # whatever is to be trained asks for it later
    if plan.precision.products == "float8":
        from harness.quantize.float8 import round_products

        round_products(model)
    return model.eval()


def _load(plan: Plan, folder: Path, open_model: partial[PreTrainedModel], target: Target) -> Any:
    """The base as its scheme loads it, or layer by layer where it must never be whole."""
    scheme, source = find_scheme(target.quantization), plan.model.source
    if not (isinstance(source, DrawnSource) or plan.sharded):
        loaded = scheme.load(open_model, target)
        _add_rows(loaded, plan.model.added_tokens)
        return loaded
    from harness.weights.by_layer import (
        Filling,
        as_read,
        build_by_layer,
        drawn_weights,
        empty_model,
    )
    from harness.weights.sharded import Shards
    from harness.weights.trained_shards import TrainedShards

    if isinstance(source, DrawnSource):
        options = open_model.keywords
        trusted = options["trust_remote_code"]
        config = base_config(folder, options["interpolation"], trusted=trusted)
        model: Any = empty_model(config, options["dtype"])
        fill = drawn_weights(model, source.seed, target.device)
    else:
        # The file is mapped, whole on each device's process: that takes addresses and no memory.
        # Its pages are the system's, one copy for all, until a layer is taken to the device.
        model, fill = open_model(device_map={"": "cpu"}), as_read
    shards: Shards | TrainedShards | None = None
    if plan.spreads_training:
        shards = TrainedShards(target.device)
    elif plan.sharded:
        shards = Shards(target.device, plan.adapter)
    filling = Filling(fill, partial(_add_rows, count=plan.model.added_tokens))
    build_by_layer(model, scheme, target, filling, shards)
    return model


def _add_rows(model: PreTrainedModel, count: int) -> None:
    """Append ``count`` rows to the embedding and the output head, each the mean of those before.

    Transformers draws them around that mean by the generator of the moment, so that every load
    would give another model.
    """
    import torch

    if not count:
        return
    before, place = model.config.vocab_size, model.device
    with torch.random.fork_rng([place.index] if place.type == "cuda" else []):
        model.resize_token_embeddings(before + count, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for values in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
            if values is not None:
                values.data[before:] = values.data[:before].float().mean(dim=0).to(values.dtype)


def _open_whole(folder: Path, *, interpolation: int, **options: Any) -> PreTrainedModel:
    """The model with every weight from the folder; transformers would fill gaps at random."""
    from transformers import AutoModelForCausalLM

    if interpolation > 1:
        trusted = options["trust_remote_code"]
        options["config"] = base_config(folder, interpolation, trusted=trusted)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    check_loading(info, folder)
    found: PreTrainedModel = model
    return found


def base_config(folder: Path, interpolation: int, *, trusted: bool) -> Any:
    """The configuration in ``folder`` with the positions of a plan."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    if interpolation > 1:
        interpolate(config, interpolation)
    return config
