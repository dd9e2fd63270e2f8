"""A variant's quantization is checked against its scheme, and older plans keep their identity."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.errors import InvalidFile, UnknownName
from harness.spec.schemes import SCHEMES, load_scheme, resolve_quantization, scheme_names
from harness.spec.variant import Quantization
from tests.planned import planned


def resolved(**written: object) -> Quantization:
    return resolve_quantization(Quantization.model_validate(written), "v.toml")


@pytest.mark.parametrize("name", sorted(SCHEMES.built_in))
def test_a_registered_name_leads_to_the_scheme_of_that_name(name: str) -> None:
    assert load_scheme(name).name == name
    assert name in scheme_names()
    assert resolved(type=name) == resolved(**resolved(type=name).model_dump())


def test_an_unknown_name_gets_its_close_matches() -> None:
    with pytest.raises(UnknownName, match="unknown quantization 'nf5'") as caught:
        resolved(type="nf5")
    assert "did you mean nf4" in str(caught.value)
    assert "v.toml, quantization.type" in str(caught.value)


@pytest.mark.parametrize("name", ["none", "int8"])
def test_double_quantization_is_for_those_that_have_it(name: str) -> None:
    with pytest.raises(InvalidFile, match="no double quantization") as caught:
        resolved(type=name, double=True)
    assert "fp4" in str(caught.value)
    assert "nf4" in str(caught.value)


def test_a_setting_that_a_scheme_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown int8 quantization setting 'bits'") as caught:
        resolved(type="int8", bits=3)
    assert "v.toml, [quantization]" in str(caught.value)


def test_labels_name_what_is_set() -> None:
    assert Quantization().label == "none"
    assert Quantization(type="nf4", double=True).label == "nf4+dq"
    assert Quantization.model_validate({"type": "x", "b": 2, "a": 1}).label == "x a=1 b=2"


def test_a_plan_of_today_has_the_fingerprint_that_it_always_had() -> None:
    dumped = planned("qlora_nf4_dq").quantization.model_dump(mode="json")
    assert dumped == {"type": "nf4", "double": True}


def test_a_plan_takes_no_deep_learning_library() -> None:
    code = (
        "import sys\n"
        "from harness.spec.device import Device\n"
        "from harness.spec.request import Request, resolve\n"
        "cpu = Device(kind='cpu', name='c', bfloat16=False, threads=1)\n"
        "resolve(Request(('qlora_nf4', 'lora_int8', 'lora_bf16')), cpu)\n"
        "print(sorted({'torch', 'transformers', 'bitsandbytes'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
