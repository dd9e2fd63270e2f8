"""Footprint: the bytes of a training step on the fast path, whose backward pass is written out.

The fast path keeps known tensors and no others, so they are added up: no autograd is asked.
"""

from __future__ import annotations

from typing import Any

from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES, Training
from harness.train.peaks import TrainingPeaks
from harness.weights.shape import transformers_config

ON_DEVICE = 2  # of the layer inputs that are kept on the host, the last ones never leave
LOGIT_BYTES = 1 << 27  # of logits in the compute dtype that exist at a time
# Drafts of gradients (see `harness.train.stream.drafts`) pay where a step is bound by its many
# small kernels, and there the adapters are small too.
DRAFT_BYTES = 1 << 25
DRAFT_SHARE = 1.5  # of the adapters' parameters: joint products have parts that are not used


def logit_chunk(vocabulary: int, unit: int) -> int:
    """Positions whose logits are held at a time; ``unit`` is the bytes of one logit."""
    return max(64, LOGIT_BYTES // (vocabulary * unit) // 64 * 64)


def training_peaks(plan: Plan, tokens: int, trainable: int) -> TrainingPeaks:
    """Peaks of one step over ``tokens`` in one stream; ``trainable`` adapter parameters.

    Kept per token and layer: the layer's input and, unless it is recomputed (the last layers
    may be kept all the same), the outputs of the projections that the backward pass reads, the
    mixed values of attention with a float32 log-sum per head, and in a sequential layer the sum
    between attention and MLP. Beside them stand a copy of the adapters in the compute dtype, drafts
    of small adapters' gradients, two chunks of logits in the loss, and in the backward pass the
    gradients of one layer's widest tensors.
    """
    config: Any = transformers_config(plan.model)
    unit = DTYPE_BYTES[plan.precision.compute]
    width, depth = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(config.intermediate_size)
    stream = tokens * width * unit
    layer = tokens * _kept_per_token(config, unit)
    asked = layers_kept(plan.training)
    whole = depth if asked is None else min(asked, depth)
    offloaded = plan.training.gradient_checkpointing and plan.training.activation_offload
    drafts = int(DRAFT_SHARE * trainable * unit)
    copies = trainable * unit + (drafts if drafts <= DRAFT_BYTES else 0)
    inputs = (3 if offloaded else depth) * stream + copies
    kept = inputs + whole * layer
    vocabulary = int(config.vocab_size)
    chunk = logit_chunk(vocabulary, unit)
    loss = kept + min(tokens, 2 * chunk) * vocabulary * unit + 4 * stream
    # what was kept is gone before the first layer is computed again
    backward = inputs + max(whole, 1) * layer + tokens * inner * unit + 3 * stream
    if plan.precision.products == "float8":  # the codes of the widest gradient
        backward += tokens * (_kept_per_token(config, 1) - 4 * int(config.num_attention_heads))
    return TrainingPeaks(saved=kept, loss=loss, backward=backward)


def host_bytes(plan: Plan, tokens: int) -> int | None:
    """Page-locked host memory for the inputs of layers; None where they stay on the device.

    Of layers that are computed again it also holds what stands between attention and MLP.
    Torch rounds page-locked memory up to a power of two.
    """
    if not (plan.training.activation_offload and plan.training.gradient_checkpointing):
        return None
    config: Any = transformers_config(plan.model)
    one = tokens * int(config.hidden_size) * DTYPE_BYTES[plan.precision.compute]
    depth = int(config.num_hidden_layers)
    again = 0 if config.model_type == "phi" else depth - min(layers_kept(plan.training) or 0, depth)
    return (depth + again - ON_DEVICE) * (1 << (one - 1).bit_length())


def layers_kept(training: Training) -> int | None:
    """How many of the last layers keep what they computed; None: all."""
    return training.kept_layers if training.gradient_checkpointing else None


def _kept_per_token(config: Any, unit: int) -> int:
    """Bytes that one layer keeps for one token beside its input."""
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    attention = (heads + 2 * groups) * size + heads * size
    if config.model_type == "phi":  # attention and MLP side by side
        mlp = int(config.intermediate_size)
    else:
        mlp = 2 * int(config.intermediate_size) + int(config.hidden_size)
    return (attention + mlp) * unit + 4 * heads
