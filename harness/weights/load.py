"""Load: tokenizer and base model in the planned quantization and dtype, on the planned device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InvalidFile
from harness.quantize.scheme import Target, find_scheme
from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.weights.agreement import as_unreadable, check_config, check_loading, check_shapes
from harness.weights.interpolation import interpolate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of the fetched model; code beside it runs only if it is trusted.

    Raises:
        InvalidFile: the folder holds no tokenizer that transformers can read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise InvalidFile(
            f"transformers cannot load the tokenizer: {error}",
            where=folder,
            expected="tokenizer.json and tokenizer_config.json",
        ) from error


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
    target = Target(chosen, getattr(torch, plan.precision.compute), plan.device.kind)
    check_config(plan.model, folder)
    with as_unreadable(folder):
        check_shapes(plan.model, folder, trust_remote_code=trust_remote_code)
        model = find_scheme(chosen).load(open_model, target)
    if plan.model.added_tokens:
        _add_rows(model, plan.model.added_tokens)
    model.requires_grad_(requires_grad=False)  # whatever is to be trained asks for it later
    return model.eval()


def _add_rows(model: PreTrainedModel, count: int) -> None:
    """Append ``count`` rows to the embedding and the output head, each the mean of those before.

    Transformers draws them around that mean by the generator of the moment, so that every load
    would give another model.
    """
    import torch

    before, place = model.config.vocab_size, model.device
    with torch.random.fork_rng([place.index] if place.type == "cuda" else []):
        model.resize_token_embeddings(before + count, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for values in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
            if values is not None:
                values.data[before:] = values.data[:before].float().mean(dim=0).to(values.dtype)


def _open_whole(folder: Path, *, interpolation: int, **options: Any) -> PreTrainedModel:
    """The model with every weight from the folder; transformers would fill gaps at random."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if interpolation > 1:
        trusted = options["trust_remote_code"]
        options["config"] = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        interpolate(options["config"], interpolation)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    check_loading(info, folder)
    found: PreTrainedModel = model
    return found
