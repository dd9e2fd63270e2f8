"""A variant is checked against itself: method, quantization and adapter must fit together."""

from __future__ import annotations

import pytest

from harness.errors import InvalidFile
from harness.spec.schema import parse
from harness.spec.variant import Adapter, Variant

LORA = {"type": "LORA", "r": 8}


def variant(**written: object) -> Variant:
    return parse(Variant, {"name": "v", "description": "d", **written}, where="v.toml")


def test_the_defaults_are_an_adapter_on_an_unquantized_bfloat16_base() -> None:
    made = variant(adapter=LORA)
    assert (made.method, made.quantization.type) == ("adapter", "none")
    assert (made.precision.compute, made.precision.trainable) == ("bfloat16", "float32")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({"method": "adapter"}, "with adapter = None"),
        ({"method": "none", "adapter": LORA}, 'method = "none" with adapter'),
        ({"method": "full", "quantization": {"type": "nf4"}}, "needs an unquantized base"),
        ({"adapter": LORA, "quantization": {"type": 4}}, "quantization.type"),
        ({"adapter": LORA, "training": {"learning_rate": 0}}, "training.learning_rate"),
        ({"adapter": LORA, "training": {"sequence_length": -1}}, "training.sequence_length"),
        ({"adapter": LORA, "training": {"sequence_length": 512.5}}, "valid integer"),
        ({"adapter": LORA, "training": {"packing": 1}}, "training.packing"),
        ({"adapter": LORA, "precision": {"compute": "tf32"}}, "precision.compute"),
        ({"adapter": LORA, "traning": {}}, "traning: unknown key"),
    ],
)
def test_what_does_not_fit_together_is_refused(written: dict, reason: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        variant(**written)
    assert reason in str(caught.value)


def test_adapter_fields_besides_the_type_are_handed_to_peft_as_written() -> None:
    adapter = parse(Adapter, {"type": "LOHA", "r": 4, "module_dropout": 0.1}, where="x")
    assert adapter.type == "LOHA"
    assert adapter.fields == {"r": 4, "module_dropout": 0.1}
