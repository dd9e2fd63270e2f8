"""`show` spells a variant, a suite or a model out as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.terminal import refused, shown


def test_show_prints_a_variant_with_every_value_of_its_suite() -> None:
    found = json.loads(shown("show", "qlora_nf4"))
    assert found["quantization"] == {"type": "nf4", "double": False}
    assert found["training"]["sequence_length"] == 512


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("quick", "model", "smollm2_135m_instruct"), ("phi2", "name", "phi2")],
)
def test_show_prints_suites_and_models(name: str, key: str, value: str) -> None:
    assert json.loads(shown("show", name))[key] == value


def test_an_unknown_name_is_refused_with_close_ones() -> None:
    message = refused("show", "qlora")
    assert "unknown variant, suite, model or study" in message
    assert "did you mean" in message


def test_a_variant_file_with_an_unknown_key_is_named_with_the_close_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\nquantisation = { type = "nf4" }\n')
    message = refused("show", str(path))
    assert "quantisation: unknown key; did you mean quantization?" in message
    assert str(path) in message
