"""The count of live bytes, on known operations and against real tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.train.rehearsal import LiveBytes, StandIns, checkpoint_layers, rehearsing
from harness.train.sft.footprint import rehearse_training
from harness.weights.adapter import attach_adapter
from harness.weights.phantom import phantom_model
from harness.weights.shape import transformers_config
from tests.forecast.phi_plans import CPU, make, small
from tests.planned import GPU, planned

MIB = 1 << 20


def test_bytes_live_until_the_last_reference_goes() -> None:
    with LiveBytes([]) as live:
        one = torch.empty(MIB, dtype=torch.uint8, device="meta")
        view = one[: MIB // 2]
        assert live.live == MIB  # a view holds no memory of its own
        two = torch.empty(3 * MIB, dtype=torch.uint8, device="meta")
        del one
        assert live.live == 4 * MIB  # the view still holds the storage
        del view, two
        assert (live.live, live.peak) == (0, 4 * MIB)
        live.reset_peak()
        assert live.peak == 0


def test_what_autograd_keeps_is_counted_and_freed_by_the_backward_pass() -> None:
    weight = nn.Parameter(torch.empty(256, 256, device="meta"))
    with LiveBytes([weight]) as live:
        x = torch.empty(64, 256, device="meta")
        hidden = functional.relu(x @ weight)  # keeps its output
        loss = hidden.sum()
        del hidden
        assert live.live == (64 * 256 * 4) * 2 + 512
        loss.backward()
        assert weight.grad is not None
        del loss
        assert live.live == (64 + 256) * 256 * 4


def test_weights_are_not_counted() -> None:
    model = phantom_model(make("qlora_nf4_dq", model=small()), layers=2)
    with rehearsing(model) as live:
        for parameter in model.parameters():
            parameter.view(-1)
        assert live.live == 0


def test_dequantized_weights_pass_through_the_peak() -> None:
    plan = make("qlora_nf4", model=small())
    layer = next(
        module
        for module in phantom_model(plan, layers=1).modules()
        if type(module).__name__ == "Linear4bit"
    )
    x = torch.empty(1, 4, layer.in_features, dtype=torch.bfloat16, device="meta")
    with torch.no_grad(), rehearsing(layer) as live:
        layer(x)
        weight = layer.in_features * layer.out_features
        assert live.peak >= weight * 2
        assert live.live < weight


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("variant", ["lora_bf16", "full_finetune"])
def test_rehearsal_agrees_with_real_tensors(variant: str, checkpointing: bool) -> None:
    """The same step on a real model: its live bytes are counted in the same way."""
    from transformers import AutoModelForCausalLM

    rows, tokens = 1, 256
    training = {"gradient_checkpointing": checkpointing, "micro_batch_size": rows}
    plan = make(variant, training, model=small(num_hidden_layers=5), device=CPU)
    base = AutoModelForCausalLM.from_config(
        transformers_config(plan.model), attn_implementation="sdpa", dtype=torch.float32
    )
    model: Any = attach_adapter(base, plan).train()
    if checkpointing:
        options = {"use_reentrant": False}
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    ids = torch.zeros(rows, tokens, dtype=torch.int64)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state
        saved = live.live
        hidden.sum().backward()
    rehearsed = rehearse_training(plan, rows, tokens)
    # beside the ids, the rehearsal's first recomputed layer also keeps a gradient of its input
    assert rehearsed.saved == pytest.approx(saved, rel=0.05)


def test_casts_of_weights_and_states_are_rehearsed() -> None:
    """Full fine-tuning keeps its weights in float32 and multiplies in bfloat16, under autocast."""
    from transformers import AutoModelForCausalLM

    plan = planned("full_finetune", device=GPU)
    model: Any = AutoModelForCausalLM.from_config(
        transformers_config(plan.model), attn_implementation="sdpa", dtype=torch.float32
    )
    ids = torch.zeros(1, 128, dtype=torch.int64)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        saved = live.live
        del hidden
    assert rehearse_training(plan, 1, 128).saved == pytest.approx(saved, rel=0.05)


def test_stand_ins_answer_questions_about_data_with_yes() -> None:
    with StandIns():
        assert bool(torch.empty(3, dtype=torch.bool, device="meta").all())
        query = torch.empty(2, 4, 8, 16, device="meta", requires_grad=True)
        out = functional.scaled_dot_product_attention(query, query, query, is_causal=True)
        assert out.shape == query.shape
        out.sum().backward()
    assert query.grad is not None


def test_recomputed_layers_keep_only_their_input() -> None:
    plan = make("lora_bf16", model=small())
    model: Any = phantom_model(plan, layers=2).train()
    checkpoint_layers(model)
    embed = model.get_base_model().get_input_embeddings()
    embed.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())
    with rehearsing(model) as live:
        ids = torch.empty(1, 512, dtype=torch.int64, device="meta")
        out = model.get_base_model().base_model(input_ids=ids, use_cache=False).last_hidden_state
        kept = live.live
        out.sum().backward()
        assert live.peak > 2 * kept
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
