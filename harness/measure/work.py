"""Work: the floating-point operations that training on one token asks for."""

from __future__ import annotations

from typing import Any

from harness.spec.plan import Plan
from harness.weights.shape import count_plan, transformers_config


def training_flops_per_token(plan: Plan, context: float, labelled_share: float) -> float:
    """Operations of one training step divided by its non-padding tokens.

    A matrix product with a weight of P elements takes 2P operations per token forward, 2P for the
    gradient of its input and 2P for that of the weight if it is trained (Kaplan et al., 2020,
    section 2.1). So per token, with N frozen and M trained elements in linear layers, V in the
    output head, L layers, attention ``width`` (heads × head size) and conversations of ``context``
    tokens (the mean over tokens, not over conversations, where lengths differ):

        4 N + 6 M + 4 V × labelled_share + 6 L × width × context

    The last term is causal attention: half of the 12 L × width × context of Chowdhery et al.,
    "PaLM", 2022, appendix B; shifted attention has the context of its groups, and a model's own
    sliding window is not taken off. Embedding look-ups, norms and what checkpointing computes again
    are not counted: this is the work that the model asks for, not what the device does.
    """
    counts = count_plan(plan)
    config: Any = transformers_config(plan.model)
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    head = int(config.vocab_size) * int(config.hidden_size)
    if plan.training.attention == "shifted":
        context = min(context, plan.training.attention_group)
    attention = 6 * int(config.num_hidden_layers) * heads * size * context
    if plan.method == "full":
        return 6 * counts.linear + 6 * head * labelled_share + attention
    frozen = 4 * counts.linear + 4 * head * labelled_share
    return frozen + 6 * counts.trainable + attention
