"""Forms of a model with interpolated positions say so to whoever loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from harness.forms.make import Parts, open_form, write_form
from harness.records.store import RunFolder
from harness.runs.saving import save_whole
from harness.spec.form import parse_form
from harness.spec.model import FolderSource
from tests.methods.bench import Bench
from tests.methods.conftest import bench
from tests.methods.trial import carry_out, train_again

__all__ = ["bench"]
IDS = torch.arange(60).repeat(7)[None]  # 420 tokens; the base was made for 256


@pytest.fixture(scope="module")
def trained(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Parts, Any]:
    """A LongLoRA for four times the context, and its logits."""
    plan = bench.plan("longlora", "llama")
    model = train_again(plan).model
    run = RunFolder(tmp_path_factory.mktemp("run"))
    written, _ = save_whole(model, run, interpolated=True)
    assert "config.json" in written
    assert isinstance(plan.model.source, FolderSource)
    return Parts(plan, Path(plan.model.source.path), run.adapter), logits(model)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return found.float()


@pytest.mark.parametrize("name", ["merged", "int4_again", "gguf:F32", "adapter"])
def test_the_harness_opens_what_it_has_written(
    trained: tuple[Parts, Any], name: str, tmp_path: Path
) -> None:
    parts, wanted = trained
    form = parse_form(name)
    write_form(parts, form, tmp_path)
    close = 0.3 if form.scheme else 1e-5
    assert (logits(open_form(parts, form, tmp_path)) - wanted).abs().max() < close


def test_plain_transformers_reads_a_merged_model_with_its_positions(
    trained: tuple[Parts, Any], tmp_path: Path
) -> None:
    parts, wanted = trained
    write_form(parts, parse_form("merged"), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.max_position_embeddings == 4 * 256
    torch.testing.assert_close(logits(model), wanted, atol=1e-5, rtol=0)


def test_an_adapter_names_the_positions_that_its_base_needs(
    trained: tuple[Parts, Any], tmp_path: Path
) -> None:
    parts, wanted = trained
    write_form(parts, parse_form("adapter"), tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(parts.source, config=config)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(base, tmp_path)), wanted, atol=1e-5, rtol=0
    )
    plain = AutoModelForCausalLM.from_pretrained(parts.source)
    other = logits(PeftModel.from_pretrained(plain, tmp_path))
    assert (other - wanted).abs().max() > 1e-3, "why the file is there"
    with pytest.raises(OSError, match=r"model\.safetensors"):  # not in silence
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.slow
def test_a_run_leaves_the_positions_beside_its_adapter(bench: Bench, tmp_path: Path) -> None:
    run = carry_out(bench.plan("longlora", "llama", 'score.forms=["merged"]'), tmp_path)
    config = AutoConfig.from_pretrained(run.folder.adapter)
    assert config.rope_parameters["factor"] == 4.0
    assert run.record.adapter_sha256 is not None
    assert "config.json" in run.record.adapter_sha256
    merged = [one for one in run.record.scores if one.precision == "merged"]
    assert merged, "scored as merged too"
