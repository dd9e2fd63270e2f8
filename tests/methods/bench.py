"""Bench: tiny models of three architectures and a suite of few steps, to try every method on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.train.path import resolve
from tests.architectures import ARCHITECTURES, Architecture
from tests.runs.small_run import tree
from tests.weights.tiny_llama import vocabulary, write_folder

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=1)
FAMILIES = ("llama", "phi", "gpt_neo")
SUITE = """
description = "seconds on any machine"
model = "{model}"
[corpus]
source = "{corpus}"
held_out_fraction = 0.3
[budget]
steps = 3
batch_size = 4
[training]
sequence_length = 96
micro_batch_size = 2
[score]
window = 64
stride = 32
generations = 2
max_new_tokens = 3
"""

# What a variant made for real models needs to fit one of 64 hidden units and two layers.
FITTED = {
    "lora_last_half": (
        "adapter.layers_to_transform=[1]",
        'adapter.target_modules=["q_proj", "v_proj"]',
    ),
    "c3a": ("adapter.block_size=16",),
    "longlora": ('adapter.target_modules=["q_proj", "v_proj"]',),  # every family has them
    "road": ("adapter.group_size=16",),
    "vblora": ("adapter.num_vectors=16", "adapter.vector_length=16"),
    "miss": ("adapter.r=4",),
    "osf": ("adapter.effective_rank=8",),
    "adalora": ("adapter.init_r=4", "adapter.target_r=2"),
    "llama_adapter": ("adapter.adapter_layers=2",),
    "p_tuning": ("adapter.encoder_hidden_size=16",),
    "frod": ("adapter.sparse_rate=0.05",),
    "adamss": ("adapter.r=8", "adapter.num_subspaces=2"),
    "psoft": ("adapter.r=8",),
    "lora_rs": ("adapter.r=8",),
    # more principal components than this are three quarters of a pair's time
    "lora_eva": ("adapter.r=4",),
    # sixteen times this for one of its matrices, which three steps at ten times as much overshoot
    "lora_plus": ("training.learning_rate=2e-4",),
}


@dataclass(frozen=True)
class Bench:
    """A suite file for each architecture."""

    folder: Path
    suites: dict[str, Path]

    def plan(self, variant: str, family: str = "llama", *settings: str) -> Plan:
        """The plan that the command line would make for a registered variant, or a file."""
        chosen = ("training.learning_rate=2e-3", *FITTED.get(variant, ()), *settings)
        request = Request((variant,), str(self.suites[family]), settings=chosen, seeds=(0,))
        (plan,) = resolve(request, CPU)
        return plan


def make_bench(folder: Path) -> Bench:
    """Weights, tokenizers, model files, a corpus and suites below ``folder``."""
    corpus = folder / "trees.jsonl"
    corpus.write_text("".join(json.dumps(tree(index)) + "\n" for index in range(12)))
    suites = {}
    for family in FAMILIES:
        model = _write_model(folder / family, ARCHITECTURES[family])
        suites[family] = folder / f"{family}_suite.toml"
        suites[family].write_text(SUITE.format(model=model, corpus=corpus))
    return Bench(folder, suites)


def _write_model(folder: Path, architecture: Architecture) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    weights = write_folder(folder / "weights")  # its tokenizer is kept
    fields = {**architecture.written(), "vocab_size": len(vocabulary())}
    torch.manual_seed(0)
    config = AutoConfig.for_model(fields["model_type"], **_without_type(fields))
    AutoModelForCausalLM.from_config(config).save_pretrained(weights)
    path = folder / f"tiny_{fields['model_type']}.toml"
    lines = ['description = "tiny"', 'license = "Apache-2.0"', 'chat_template = "chatml"']
    lines += ["[source]", 'kind = "folder"', f"path = {json.dumps(str(weights))}", "[config]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in fields.items() if value is not None]
    path.write_text("\n".join(lines) + "\n")
    return path


def _without_type(fields: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if key != "model_type"}
