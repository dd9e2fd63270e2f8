"""The written-out gradients against autograd, in double precision and on a quantized base."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PhiConfig

from harness.quantize.float8 import round_products
from harness.train.collate import StreamSize, make_stream_batch
from harness.train.stream import ops
from harness.train.stream.decoder import Decoder
from harness.train.stream.float8 import Float8Decoder
from harness.train.stream.linears import Linears, UnsupportedLayer
from harness.train.stream.store import DeviceStore
from tests.train.tiny import SHAPE, tiny_model, tiny_rows


def autograd(model: Any, rows: Any) -> tuple[float, dict[str, torch.Tensor]]:
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        start = 0
        for size in row.lengths:
            ids = torch.tensor(row.input_ids[start : start + size], dtype=torch.int64)[None]
            labels = torch.tensor(row.labels[start : start + size], dtype=torch.int64)
            logits = model(input_ids=ids).logits[0, :-1]
            total = total + functional.cross_entropy(
                logits, labels[1:], ignore_index=-100, reduction="sum"
            )
            start += size
    total.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    return float(total.detach()), grads


def distance(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative; transformers takes norms and angles in single precision whatever the model's."""
    return float((found - reference).norm() / reference.norm())


def written_out(
    model: Any, rows: Any, dtype: torch.dtype, size: StreamSize | None = None, **how: bool
) -> tuple[float, Any]:
    decoder = Decoder(model, dtype, **how)
    decoder.refresh()
    batch = make_stream_batch(rows, size)
    loss = decoder.accumulate(batch, decoder.stream(batch), torch.ones(()))
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return float(loss), grads


@pytest.mark.parametrize("family", ["llama", "phi"])
@pytest.mark.parametrize("kept", [None, 0, 1, 2, 5])
def test_gradients_are_those_of_autograd(family: str, kept: int | None) -> None:
    rows = tiny_rows(count=3, conversations=2)
    loss, grads = autograd(tiny_model(family).double().eval(), rows)
    found, written = written_out(tiny_model(family).double().eval(), rows, torch.float64, kept=kept)

    assert found == pytest.approx(loss, rel=1e-6)
    for name, grad in grads.items():
        assert distance(written[name], grad) < 1e-5, name


class HereStore(DeviceStore):
    """In place of the host's memory, which only a GPU has another name for."""

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead


class HereDecoder(Decoder):
    """As with inputs of layers on the host."""

    host_store = HereStore


@pytest.mark.parametrize(("family", "fewer"), [("llama", 1), ("phi", 0)])
@pytest.mark.parametrize("kept", [0, 2, 3])
def test_what_lies_on_the_host_is_not_computed_again(
    monkeypatch: pytest.MonkeyPatch, family: str, fewer: int, kept: int
) -> None:
    rows = tiny_rows(count=3, conversations=2)
    products = []
    forward = Linears.forward

    def counted(linears: Linears, *given: Any, **named: Any) -> Any:
        products.append(linears)
        return forward(linears, *given, **named)

    monkeypatch.setattr(Linears, "forward", counted)
    found = {}
    for kind in (Decoder, HereDecoder):
        products.clear()
        model = tiny_model(family).eval()
        decoder = kind(model, torch.float32, kept=kept, offload=kind is HereDecoder)
        decoder.refresh()
        batch = make_stream_batch(rows)
        loss = decoder.accumulate(batch, decoder.stream(batch), torch.ones(()))
        grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found[kind] = (loss, grads, len(products))
    (loss, grads, count), (same, alike, less) = found.values()
    assert same == loss
    assert all(torch.equal(alike[name], grad) for name, grad in grads.items())
    assert count - less == fewer * (3 - kept), "the layers that are computed again"


def test_filling_up_to_a_common_shape_changes_nothing() -> None:
    rows = tiny_rows(count=3, conversations=2)
    exact = StreamSize.of(rows)
    roomy = StreamSize(
        exact.tokens + 40, exact.conversations + 5, exact.labelled + 9, exact.longest
    )
    loss, grads = written_out(tiny_model().double().eval(), rows, torch.float64)
    found, filled = written_out(tiny_model().double().eval(), rows, torch.float64, roomy)

    assert found == pytest.approx(loss, rel=1e-6)
    for name, grad in grads.items():
        assert distance(filled[name], grad) < 1e-5, name


def test_ranks_too_high_to_ride_along() -> None:
    rows = tiny_rows(count=2)
    _, grads = autograd(tiny_model("phi", r=48).double().eval(), rows)
    _, written = written_out(tiny_model("phi", r=48).double().eval(), rows, torch.float64)

    for name, grad in grads.items():
        assert distance(written[name], grad) < 1e-5, name


def test_some_layers_without_an_adapter() -> None:
    rows = tiny_rows(count=2)
    some = {"target_modules": ["q_proj", "down_proj"]}
    _, grads = autograd(tiny_model(**some).double().eval(), rows)
    _, written = written_out(tiny_model(**some).double().eval(), rows, torch.float64)

    assert set(grads) == set(written)
    for name, grad in grads.items():
        assert distance(written[name], grad) < 1e-5, name


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"lora_dropout": 0.5}, {"modules_to_save": ["lm_head"]}]
)
def test_what_it_does_not_know_is_refused(lora: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedLayer):
        Decoder(tiny_model(**lora), torch.float32)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LlamaConfig(**SHAPE, hidden_act="gelu"), "activation gelu"),
        (PhiConfig(**SHAPE, hidden_act="relu"), "activation relu"),
        (MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8), "sliding-window"),
    ],
)
def test_layers_of_another_mathematics_are_left_to_the_plain_path(config: Any, reason: str) -> None:
    """These were trained with SiLU, GELU and no window, whatever the model says."""
    model = AutoModelForCausalLM.from_config(config)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    with pytest.raises(UnsupportedLayer, match=reason):
        Decoder(adapted, torch.float32)


def test_the_loss_of_16_bit_logits_is_taken_in_float32() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(64, 5000) * 3).bfloat16()
    targets = torch.randint(0, 5000, (64,))
    expected = functional.cross_entropy(logits.double(), targets, reduction="none")
    slope = logits.clone()
    losses = ops.cross_entropy_(slope, targets, torch.tensor(1.0))
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    assert slope.dtype == torch.bfloat16
    torch.testing.assert_close(slope.float().sum(dim=1), torch.zeros(64), rtol=0, atol=0.01)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_products_in_float8_round_as_the_layers_of_the_model_do(family: str) -> None:
    rows = tiny_rows(count=3, conversations=2)
    exact, _ = autograd(tiny_model(family).eval(), rows)
    model = tiny_model(family).eval()
    round_products(model.get_base_model())
    loss, grads = autograd(model, rows)
    decoder = Float8Decoder(tiny_model(family).eval(), torch.float32)
    decoder.refresh()
    batch = make_stream_batch(rows)
    found = decoder.accumulate(batch, decoder.stream(batch), torch.ones(()))
    groups = [group for block in decoder.blocks for group in block.linears]
    written = [p.grad for group in groups for p in group.trained if p.grad is not None]

    assert found.item() == pytest.approx(loss, rel=1e-3)
    assert abs(loss - exact) > abs(found.item() - loss), "float8 is not what it was"
    norm, wanted = (sum(float(g.norm()) for g in found) for found in (written, grads.values()))
    assert norm == pytest.approx(wanted, rel=0.05)
