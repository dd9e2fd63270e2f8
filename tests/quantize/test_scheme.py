"""Scheme: settings are checked when planned, and what is missing or absent is said with advice."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from harness.errors import InvalidFile, UnknownName
from harness.quantize.absent import AWQ, GPTQ, Absent
from harness.quantize.affine import INT4
from harness.quantize.scheme import (
    Scheme,
    Target,
    Weighed,
    find_scheme,
    installed,
    is_quantized,
    scheme_of,
    scheme_packages,
    schemes,
)
from harness.quantize.unquantized import UNQUANTIZED
from harness.spec.variant import Quantization
from tests.planned import CPU, GPU


def asked(**written: object) -> Quantization:
    return Quantization.model_validate(written)


class Needing(Scheme):
    """A scheme whose package nobody has."""

    name = "needing"
    packages: ClassVar[tuple[str, ...]] = ("no-such-package-at-all",)

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        del quantization
        return rows * columns

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        del parameter, module
        return None

    def dequantize(self, layer: nn.Module) -> torch.Tensor:
        raise NotImplementedError(str(layer))


def test_settings_are_spelled_out() -> None:
    found = INT4.resolve(asked(type="int4"), "[quantization]")
    assert found.settings["block_size"] == 32
    same = INT4.resolve(asked(type="int4", block_size=32), "[quantization]")
    assert found == same


@pytest.mark.parametrize(
    ("written", "error", "words"),
    [
        ({"type": "int4", "blocksize": 32}, UnknownName, "block_size"),
        ({"type": "int4", "block_size": 48}, InvalidFile, "block_size"),
        ({"type": "int4", "double": True}, InvalidFile, "double with one of"),
        ({"type": "none", "bits": 4}, UnknownName, "none quantization setting"),
    ],
)
def test_a_setting_that_a_scheme_has_not_is_refused(
    written: dict[str, object], error: type[Exception], words: str
) -> None:
    quantization = asked(**written)
    with pytest.raises(error) as caught:
        find_scheme(quantization).resolve(quantization, "variant x, [quantization]")
    assert words in str(caught.value)
    assert "variant x" in str(caught.value)


def test_a_missing_package_is_named_with_the_command_that_brings_it() -> None:
    scheme = Needing()
    assert scheme.missing() == ["no-such-package-at-all"]
    refusal = scheme.refuses(asked(type="needing"), CPU)
    assert refusal is not None
    assert refusal.startswith("no-such-package-at-all is not installed")
    assert "pip install -c constraints.txt no-such-package-at-all" in refusal
    assert installed("no-such-package-at-all") is None
    assert installed("torch") == torch.__version__.partition("+")[0] or installed("torch")


def test_a_scheme_that_quantizes_while_loading_has_no_layer_of_its_own() -> None:
    target = Target(asked(type="needing"), torch.float32, "cpu")
    with pytest.raises(NotImplementedError, match="quantizes while it loads"):
        Needing().quantize(nn.Linear(2, 2), target)


@pytest.mark.parametrize("scheme", [GPTQ, AWQ, Absent("x", "because")])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_what_is_not_offered_says_why_on_every_device(scheme: Absent, device: object) -> None:
    assert scheme.refuses(asked(type=scheme.name), device) == scheme.reason  # type: ignore[arg-type]
    assert scheme.weigh(nn.Parameter(torch.ones(1)), nn.Linear(1, 1)) is None


def test_a_plain_base_is_taken_as_it_is() -> None:
    linear = nn.Linear(3, 2)
    assert not UNQUANTIZED.takes(linear)
    assert UNQUANTIZED.refuses(asked(type="none"), CPU) is None
    assert UNQUANTIZED.weigh(linear.weight, linear) is None
    assert torch.equal(UNQUANTIZED.dequantize(linear), linear.weight.data)


def test_the_scheme_of_a_layer_is_found_by_the_layer() -> None:
    plain = nn.Linear(32, 4)
    made = INT4.quantize(nn.Linear(32, 4), Target(asked(type="int4"), torch.float32, "cpu"))
    assert scheme_of(made) is INT4
    assert scheme_of(plain) is None
    assert is_quantized(nn.Sequential(plain, made))
    assert not is_quantized(nn.Sequential(plain))


def test_an_unknown_scheme_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="nf5") as caught:
        find_scheme(asked(type="nf5"))
    assert "nf4" in str(caught.value)


def test_every_scheme_that_can_be_imported_has_its_own_name() -> None:
    names = [scheme.name for scheme in schemes()]
    assert len(names) == len(set(names))
    assert {"none", "nf4", "int4", "gptq"} <= set(names)
    assert "bitsandbytes" in scheme_packages()
    assert scheme_packages() == sorted(scheme_packages())
