"""Every scheme: bits as predicted, trained by LoRA on a CPU, foreseen, dequantized, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.errors import UserError
from harness.forecast.memory import predict
from harness.quantize.grouped import pack, unpack
from harness.quantize.layers import is_linear
from harness.quantize.scheme import Target, find_scheme, installed, scheme_of
from harness.spec.plan import Plan
from harness.spec.schemes import resolve_quantization
from harness.spec.variant import Quantization
from harness.weights.adapter import attach_adapter
from harness.weights.census import check_census, take_census
from harness.weights.load import load_base
from harness.weights.phantom import phantom_model
from harness.weights.shape import count_plan
from tests.architectures import model_toml, save_architecture
from tests.planned import planned

# Settings of a quantization, and its bits per weight at a usual shape with all constants.
SCHEMES: dict[str, tuple[dict[str, Any], float]] = {
    "nf4": ({"type": "nf4"}, 4.5),
    "nf4_dq": ({"type": "nf4", "double": True}, 4.127),
    "nf4_block32": ({"type": "nf4", "block_size": 32}, 5.0),
    "nf4_block128_dq": ({"type": "nf4", "double": True, "block_size": 128}, 4.0635),
    "fp4_block256": ({"type": "fp4", "block_size": 256}, 4.125),
    "int8": ({"type": "int8"}, 8.0156),
    "int4": ({"type": "int4"}, 5.0),
    "int4_block64": ({"type": "int4", "block_size": 64}, 4.5),
    "hqq4": ({"type": "hqq"}, 4.5),
    "hqq3": ({"type": "hqq", "bits": 3}, 3.5),
    "hqq2_group16": ({"type": "hqq", "bits": 2, "group_size": 16}, 4.0),
    "hqq8": ({"type": "hqq", "bits": 8, "group_size": 128}, 8.25),
    "nvfp4": ({"type": "nvfp4"}, 4.5),
    "mxfp4": ({"type": "mxfp4"}, 4.25),
    "torchao_int8": ({"type": "torchao_int8"}, 8.0156),
    "torchao_float8": ({"type": "torchao_float8"}, 8.0156),
}


def needs(written: dict[str, Any]) -> Quantization:
    quantization = resolve_quantization(Quantization.model_validate(written), "here")
    for package in find_scheme(quantization).packages:
        if installed(package) is None:
            pytest.skip(f"{package} is not installed")
    return quantization


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> tuple[Quantization, float]:
    written, bits = SCHEMES[request.param]
    return needs(written), bits


def plan_of(quantization: Quantization, folder: Path, name: str = "llama") -> Plan:
    save_architecture(name, folder)
    settings = [f"quantization.type={quantization.type}"]
    settings += [f"quantization.{key}={value}" for key, value in quantization.settings.items()]
    if quantization.double:
        settings.append("quantization.double=true")
    model = model_toml(name, folder / "model.toml", folder)
    return planned("lora_bf16", f"model={model}", "adapter.r=4", *settings)


def test_bits_of_a_weight_of_usual_shape(scheme: tuple[Quantization, float]) -> None:
    quantization, bits = scheme
    stored = find_scheme(quantization).stored_bytes(quantization, 2048, 2048)
    assert 8 * stored / 2048**2 == pytest.approx(bits, abs=0.001)


@pytest.mark.parametrize("name", ["llama", "falcon", "gpt2"])
def test_it_weighs_what_was_predicted_and_trains(
    scheme: tuple[Quantization, float], name: str, tmp_path: Path
) -> None:
    plan = plan_of(scheme[0], tmp_path, name)
    counts = count_plan(plan)
    model: Any = attach_adapter(load_base(plan, tmp_path), plan)
    census = take_census(model)
    check_census(census, plan, counts)
    found = [row for row in census.rows if row.quantization != "none"]
    assert [row.quantization for row in found] == [plan.quantization.label]
    assert found[0].bytes == counts.quantized_bytes
    trained = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    ids = torch.arange(3, 60)[None]
    losses = []
    for _ in range(6):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert take_census(model) == census


def test_its_product_is_that_with_the_dequantized_weight(
    scheme: tuple[Quantization, float],
) -> None:
    quantization, _ = scheme
    found = find_scheme(quantization)
    torch.manual_seed(0)
    linear = nn.Linear(96, 40)
    exact = linear.weight.data.clone()
    target = Target(quantization, torch.float32, "cpu")
    layer: Any = found.quantize(linear, target)
    assert scheme_of(layer) is found
    weight = found.dequantize(layer)
    assert weight.shape == exact.shape
    assert float((weight.float() - exact).norm() / exact.norm()) < 0.35
    x = torch.randn(5, 96, requires_grad=True)
    out = layer(x)
    expected = nn.functional.linear(x, weight.float(), layer.bias)
    assert torch.allclose(out, expected, atol=0.02 if not found.plain_product else 1e-4)
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(slope, weight.float().sum(0).expand_as(x), atol=0.05)


class FromTheHost(TorchDispatchMode):
    """Counts what a CUDA graph cannot record: numbers of Python made into tensors, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func.overloadpacket in (aten.lift_fresh, aten._local_scalar_dense, aten.nonzero):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_graph_can_record_how_its_weight_is_expanded(
    scheme: tuple[Quantization, float],
) -> None:
    """After one pass, nothing is copied from the host or read back by it."""
    quantization, _ = scheme
    found = find_scheme(quantization)
    layer: Any = found.quantize(nn.Linear(96, 40), Target(quantization, torch.float32, "cpu"))
    first = found.dequantize(layer)
    with FromTheHost() as seen:
        again = found.dequantize(layer)
    assert seen.found == []
    assert torch.equal(first, again)


def test_its_phantom_has_the_shapes_of_the_real_layers(
    scheme: tuple[Quantization, float], tmp_path: Path
) -> None:
    plan = plan_of(scheme[0], tmp_path)
    phantom: Any = phantom_model(plan, layers=2)
    real: Any = attach_adapter(load_base(plan, tmp_path), plan)
    described = [
        {name: (tuple(item.shape), item.dtype) for name, item in one.named_parameters()}
        for one in (phantom, real)
    ]
    assert described[0] == described[1]
    prediction = predict(plan)
    assert prediction.parts["weights"] == sum(
        row.bytes for row in take_census(real).rows if not row.trainable
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packing_loses_nothing(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (7, 16), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.numel() == codes.numel() * bits // 8
    assert torch.equal(unpack(packed, bits), codes.flatten())


def test_rounding_to_nearest_errs_by_half_a_step_at_most() -> None:
    linear = nn.Linear(96, 40, bias=False)
    exact = linear.weight.data.clone()
    quantization = needs({"type": "int4"})
    layer: Any = find_scheme(quantization).quantize(
        linear, Target(quantization, torch.float32, "cpu")
    )
    step = layer.scale.float().expand(-1, 32).reshape(40, 96)
    assert bool(((layer.dequantized() - exact).abs() <= 0.51 * step).all())


def test_equal_weights_and_a_last_block_that_is_not_full_are_kept() -> None:
    linear = nn.Linear(9, 5, bias=False)
    linear.weight.data.fill_(0.25)
    quantization = needs({"type": "int4"})
    layer: Any = find_scheme(quantization).quantize(
        linear, Target(quantization, torch.float32, "cpu")
    )
    assert torch.equal(layer.dequantized(), torch.full((5, 9), 0.25))


@pytest.mark.parametrize("name", ["gptq", "awq", "aqlm", "eetq", "torchao_int4"])
def test_what_is_not_offered_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=f"quantization {name} cannot be used: ") as caught:
        planned("qlora_nf4", f"quantization.type={name}")
    reason = find_scheme(Quantization(type=name)).reason  # type: ignore[attr-defined]
    assert reason in str(caught.value)
    assert "; use " in reason, "what to do instead"


def test_torchaos_four_bits_cannot_be_trained_on() -> None:
    """Its refusal's reason: should this fail, a newer library has learned it."""
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
        torch.randint(0, 15, (16, 32), dtype=torch.int32), 1
    )
    x = torch.randn(2, 32, requires_grad=True)
    out = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 32, torch.ones(1, 16, 2))
    with pytest.raises(RuntimeError, match="derivative"):
        out.sum().backward()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("quantization.block_size=48", "32, 64, 128"),
        ("quantization.bits=4", "unknown nf4 quantization setting 'bits'"),
        ("quantization.block_size=big", "block_size"),
    ],
)
def test_settings_are_checked(setting: str, reason: str) -> None:
    with pytest.raises(UserError, match=r"qlora_nf4\.toml") as caught:
        planned("qlora_nf4", setting)
    assert reason in str(caught.value)


def test_the_usual_block_size_is_the_same_plan(tmp_path: Path) -> None:
    plain, said = planned("qlora_nf4"), planned("qlora_nf4", "quantization.block_size=64")
    assert plain.fingerprint == said.fingerprint
    assert planned("qlora_nf4", "quantization.block_size=32").fingerprint != plain.fingerprint


def test_only_layers_that_compute_a_plain_product_are_taken() -> None:
    class Router(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).softmax(-1)

    class Renamed(nn.Linear):
        pass

    assert is_linear(Renamed(3, 2))
    assert not is_linear(Router(3, 2))
