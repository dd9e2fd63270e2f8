"""Bench: the training paths beside TRL's SFTTrainer on one GPU, same rows, one process.

Run from the repository root: ``python reports/h100/bench.py --data TREES --tokenizer FOLDER
--out FOLDER [--cases NAME,…] [--profile NAME,…] [--site PEER=FOLDER]``. ``--tiny`` shrinks the
models to try it on a CPU. Unsloth and litgpt are measured in a process each (``peers.py``) where
``--site`` names the folder of their packages. Prints one line a case and writes numbers.json; holds
no data text.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.metadata
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import peers
import torch

from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.corpus.sequences import IGNORED, TrainingRow, TrainingRows, make_training_rows
from harness.quantize.layers import linear_layers
from harness.records.events import Silence
from harness.spec.device import detect_device
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import load_model, load_suite, load_variant
from harness.spec.suite import CorpusSpec
from harness.train.job import TrainJob
from harness.train.path import train
from harness.train.schedule import schedule
from harness.weights.adapter import attach_adapter
from harness.weights.shape import transformers_config

TINY = {
    "vocab_size": 49152,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    model: str
    variant: str
    rows: int
    length: int
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainable: str = "float32"
    sft: dict[str, Any] | None = None
    steps: int = 12
    full_rows: bool = False
    peer: str | None = None

    @property
    def shape(self) -> str:
        """The shape as ``peers.py`` takes it."""
        host = ":host" if self.training.get("activation_offload") else ""
        return f"{self.rows}x{self.length}{host}"


FAST = {"speed": "fast", "packing": True}
CKPT = {**FAST, "gradient_checkpointing": True}
HOST = {**CKPT, "activation_offload": True}
DQ, BF16, NF4 = "qlora_nf4_dq", "lora_bf16", "qlora_nf4"
LOOSE = {"packing": False}
PHI, LLAMA, SMOL = "phi2_shape", "llama32_3b_shape", "smollm2_135m_instruct"
# Full rows of random tokens, every token labelled: like for like with the peers.
LIKE_FOR_LIKE = {
    "4x2048": Case(LLAMA, DQ, 4, 2048, {**FAST, **LOOSE}, full_rows=True),
    "host_8x2048": Case(LLAMA, DQ, 8, 2048, {**HOST, **LOOSE}, full_rows=True),
    "host_4x1024": Case(LLAMA, DQ, 4, 1024, {**HOST, **LOOSE}, full_rows=True),
}
CASES = {
    **{f"llama_full_{name}": case for name, case in LIKE_FOR_LIKE.items()},
    **{
        f"{peer}_{name}": dataclasses.replace(case, peer=peer)
        for peer in ("unsloth", "litgpt")
        for name, case in LIKE_FOR_LIKE.items()
    },
    "sft_dq_defaults": Case(PHI, DQ, 4, 1024, sft={"gc": True}, trainable="bfloat16", steps=6),
    "sft_bf16_defaults": Case(PHI, BF16, 4, 1024, sft={"gc": True}, steps=6),
    "sft_dq_no_gc": Case(PHI, DQ, 4, 1024, sft={"gc": False}, trainable="bfloat16", steps=8),
    "sft_dq_packed": Case(
        PHI, DQ, 4, 2048, sft={"gc": False, "packed": True}, trainable="bfloat16", steps=8
    ),
    "phi_dq_4x2048": Case(PHI, DQ, 4, 2048, FAST),
    "phi_dq_8x2048": Case(PHI, DQ, 8, 2048, FAST),
    "phi_nf4_8x2048": Case(PHI, NF4, 8, 2048, FAST),
    "phi_bf16_4x2048": Case(PHI, BF16, 4, 2048, FAST),
    "phi_bf16_8x2048": Case(PHI, BF16, 8, 2048, FAST),
    "phi_dq_ckpt_4x2048": Case(PHI, DQ, 4, 2048, CKPT),
    "phi_dq_ckpt_8x2048": Case(PHI, DQ, 8, 2048, CKPT),
    "phi_dq_ckpt_4x1024": Case(PHI, DQ, 4, 1024, CKPT),
    "phi_dq_ckpt_1x1024": Case(PHI, DQ, 1, 1024, CKPT),
    "phi_dq_host_4x2048": Case(PHI, DQ, 4, 2048, HOST),
    "phi_dq_host_8x2048": Case(PHI, DQ, 8, 2048, HOST),
    "phi_dq_1x1024": Case(PHI, DQ, 1, 1024, FAST),
    "phi_fp16_4x2048": Case(PHI, "lora_fp16", 4, 2048, FAST),
    "phi_fp4_4x2048": Case(PHI, "qlora_fp4", 4, 2048, FAST),
    "phi_int8_4x1024": Case(PHI, "lora_int8", 4, 1024, FAST, steps=5),
    "phi_dq_r256_4x2048": Case(PHI, "qlora_nf4_r256", 4, 2048, FAST),
    "llama_dq_4x2048": Case(LLAMA, DQ, 4, 2048, FAST),
    "llama_dq_5x2048": Case(LLAMA, DQ, 5, 2048, FAST),
    "llama_bf16_4x2048": Case(LLAMA, BF16, 4, 2048, FAST),
    "llama_dq_ckpt_8x2048": Case(LLAMA, DQ, 8, 2048, CKPT),
    "llama_dq_host_8x2048": Case(LLAMA, DQ, 8, 2048, HOST),
    "llama_dq_host_4x1024": Case(LLAMA, DQ, 4, 1024, HOST),
    "llama_dq_ckpt_4x1024": Case(LLAMA, DQ, 4, 1024, CKPT),
    # of any two rows the second computes what the first does
    **{
        f"smol_{variant}_{speed}": Case(SMOL, variant, 8, 512, {"speed": speed, **LOOSE}, steps=30)
        for variant in ("full_finetune", "lora_dora", "ia3", "loha", "oft", NF4)
        for speed in ("plain", "recorded")
    },
}


def make_plan_of(case: Case, tiny: bool) -> Plan:
    """The case as a plan of suite phi2_speed."""
    case = dataclasses.replace(case, rows=2, length=128) if tiny else case
    suite = load_suite(
        "phi2_speed",
        {
            "model": case.model,
            "budget": {"steps": case.steps, "batch_size": case.rows},
            "training": {
                "sequence_length": case.length,
                "micro_batch_size": case.rows,
                "speed": "plain",
                **case.training,
            },
            "precision": {"trainable": case.trainable},
        },
    )
    model = load_model(case.model)
    if tiny:
        small = {**TINY, "num_key_value_heads": 4}
        config = {**model.config, **small}
        config.pop("head_dim", None)
        model = model.model_copy(update={"config": config})
    return make_plan(load_variant(case.variant, suite), suite, model, 0, detect_device())


def random_model(plan: Plan) -> Any:
    """Random weights of the plan's shape, quantized as planned, its adapter attached."""
    from transformers import AutoModelForCausalLM

    device = plan.device.kind
    torch.manual_seed(0)
    dtype = getattr(torch, plan.precision.compute)
    config = transformers_config(plan.model)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if plan.quantization.type != "none":
        quantize(model, plan, dtype)
    return attach_adapter(model, plan)


def quantize(model: Any, plan: Plan, dtype: torch.dtype) -> None:
    """Replace linear layers by bitsandbytes' in place."""
    import bitsandbytes as bnb

    kind = plan.quantization.type
    device = next(model.parameters()).device
    chosen = {id(layer) for _, layer in linear_layers(model)}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if id(child) not in chosen:
                continue
            size = (child.in_features, child.out_features, child.bias is not None)
            if kind == "int8":
                with torch.device("meta"):
                    new = bnb.nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=6.0)
                new.weight = bnb.nn.Int8Params(
                    child.weight.data.cpu(), requires_grad=False, has_fp16_weights=False
                )
            else:
                with torch.device("meta"):
                    new = bnb.nn.Linear4bit(
                        *size,
                        compute_dtype=dtype,
                        compress_statistics=plan.quantization.double,
                        quant_type=kind,
                    )
                new.weight = bnb.nn.Params4bit(
                    child.weight.data.cpu() if device.type == "cpu" else child.weight.data,
                    requires_grad=False,
                    quant_type=kind,
                    compress_statistics=plan.quantization.double,
                )
            new.bias = child.bias
            setattr(module, name, new.to(device))
    model.is_loaded_in_4bit = kind != "int8"
    model.is_loaded_in_8bit = kind == "int8"


def make_data(arguments: argparse.Namespace) -> list[Any]:
    """Token sequences of real conversations."""
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(arguments.tokenizer))
    spec = CorpusSpec(source=arguments.data, policy="all_paths", held_out_fraction=0.05)
    corpus = build_corpus(spec)
    return list(renderer.encode_all(corpus.train))


def full_rows(plan: Plan) -> TrainingRows:
    """Rows of random tokens, all of them labelled but the first, which nothing predicts."""
    length, words = plan.training.sequence_length, plan.model.config["vocab_size"]
    drawn = np.random.default_rng(0)
    rows = []
    for _ in range(plan.budget.batch_size):
        tokens = drawn.integers(0, words, length).astype(np.int32)
        labels = np.concatenate([np.array([IGNORED], np.int32), tokens[1:]])
        rows.append(TrainingRow(tokens, labels, np.arange(length, dtype=np.int32), (length,)))
    return TrainingRows(tuple(rows), 0, 0, 0, 0, length, ())


def run_ours(plan: Plan, model: Any, rows: TrainingRows, profile: Path | None) -> dict[str, Any]:
    """One of the harness's two paths."""
    tokens = [len(row.input_ids) for row in rows.rows]
    order = schedule(len(rows.rows), plan.budget, plan.seed, tokens)
    job = TrainJob(model, rows.rows, order, plan, pad_id=2)
    if profile is not None:
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        ) as found:
            train(job, Silence())
        table = found.key_averages().table(
            sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=90
        )
        profile.write_text(table)
        return {}
    result = train(job, Silence())
    return {
        "trainer": result.trainer,
        "tokens_per_second": result.throughput.median,
        "tokens_per_step": result.tokens.non_padding / result.steps,
        "compile_seconds": result.compile_seconds,
        "first_loss": result.losses[0].loss,
        "last_loss": result.losses[-1].loss,
    }


def run_sft(plan: Plan, model: Any, sequences: list[Any], case: Case) -> dict[str, Any]:
    """TRL's SFTTrainer on the same conversations, timed per step."""
    import os

    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    assert case.sft is not None
    packed = case.sft.get("packed", False)
    count = case.rows * case.steps * (8 if packed else 1)
    data = Dataset.from_dict(
        {
            "input_ids": [s.input_ids.tolist()[: case.length] for s in (sequences * 8)[:count]],
            "labels": [
                [t if m else -100 for t, m in zip(s.input_ids.tolist(), s.loss_mask, strict=True)][
                    : case.length
                ]
                for s in (sequences * 8)[:count]
            ],
        }
    )
    times: list[float] = []
    real: list[int] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    if packed:
        model.get_base_model().set_attn_implementation("flex_attention")
    fields = SFTConfig.__dataclass_fields__
    ckpt = (
        "activation_checkpointing"
        if "activation_checkpointing" in fields
        else ("gradient_checkpointing")
    )
    settings = {
        "output_dir": "/tmp/sft",
        "max_steps": case.steps,
        "max_length": case.length,
        "per_device_train_batch_size": case.rows,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "packing": packed,
        ckpt: case.sft["gc"],
    }
    inner = Tokenizer(models.WordLevel({"<p>": 2}, unk_token="<p>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<p>", eos_token="<p>")

    class Counting(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *a: Any, **k: Any) -> Any:
            mask = inputs.get("attention_mask")
            real.append(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
            return super().compute_loss(model, inputs, *a, **k)

    trainer = Counting(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    steady = range(3, len(times))
    rates = sorted(real[i] / (times[i] - times[i - 1]) for i in steady)
    total = sum(real[i] for i in steady) / (times[-1] - times[2])
    return {
        "trainer": "SFTTrainer",
        "tokens_per_second": total,
        "median_tokens_per_second": rates[len(rates) // 2],
        "tokens_per_step": sum(real) / len(real),
    }


def run_case(name: str, case: Case, sequences: list[Any], arguments: Any) -> dict[str, Any]:
    """Build, train, measure one case."""
    plan = make_plan_of(case, arguments.tiny)
    started = time.perf_counter()
    model = random_model(plan)
    built = time.perf_counter() - started
    cuda = torch.cuda.is_available()
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    if case.sft is not None:
        found = run_sft(plan, model, sequences, case)
    else:
        rows = full_rows(plan) if case.full_rows else make_training_rows(sequences, plan.training)
        found = run_ours(plan, model, rows, None)
        found["fill"] = round(rows.tokens / (len(rows.rows) * rows.sequence_length), 4)
    if cuda:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
        found["weights_gib"] = before / 2**30
        if name in arguments.profile.split(",") and case.sft is None:
            run_ours(plan, model, rows, Path(arguments.out) / f"profile_{name}.txt")
        from harness.forecast.memory import predict

        found["predicted_gib"] = predict(plan).by_phase["train"] / 2**30
    found["build_seconds"] = built
    del model
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return found


def save_model(case: Case, folder: Path, arguments: argparse.Namespace) -> None:
    """Random bfloat16 weights of the case's shape with the tokenizer's files, to load elsewhere."""
    from transformers import AutoModelForCausalLM

    plan = make_plan_of(case, arguments.tiny)
    config = transformers_config(plan.model)
    config.save_pretrained(folder)
    if case.peer == "litgpt":  # it makes its own weights
        return
    with torch.device(plan.device.kind):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file in Path(arguments.tokenizer).iterdir():
        if file.name.startswith(
            ("tokenizer", "special_tokens", "chat_template", "vocab", "merges")
        ):
            shutil.copy(file, folder)


def run_peers(names: list[str], arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """The peers' cases among ``names``, a process for each peer."""
    sites = dict(text.split("=", 1) for text in arguments.site)
    chosen = [name for name in names if CASES[name].peer]
    if not chosen:
        return
    with tempfile.TemporaryDirectory() as folder:
        for peer in dict.fromkeys(CASES[name].peer for name in chosen):
            first = next(CASES[name] for name in chosen if CASES[name].peer == peer)
            save_model(first, Path(folder), arguments)
            gc.collect()
            torch.cuda.empty_cache() if torch.cuda.is_available() else None
            small = {"rows": 2, "length": 64} if arguments.tiny else {}
            of_shape = {
                dataclasses.replace(CASES[name], **small).shape: name
                for name in chosen
                if CASES[name].peer == peer
            }
            site = sites.get(str(peer))
            seconds = arguments.peer_seconds
            more = ["--brief"] if arguments.brief else []
            for row in peers.measure(str(peer), Path(folder), list(of_shape), site, seconds, more):
                name = of_shape[row["shape"]]
                way = row.get("way")
                yield f"{name}, {way}" if way else name, {**dataclasses.asdict(CASES[name]), **row}


def main() -> None:
    """Run the chosen cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--profile", default="")
    parser.add_argument("--site", action="append", default=[], metavar="PEER=FOLDER")
    parser.add_argument("--peer-seconds", type=float, default=300.0, help="for each peer")
    parser.add_argument("--brief", action="store_true", help="peers by a plain loop alone")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    names = arguments.cases.split(",")
    needed = any(not (CASES[name].peer or CASES[name].full_rows) for name in names)
    sequences = make_data(arguments) if needed else []
    sizes = sorted(len(s.input_ids) for s in sequences)
    out: dict[str, Any] = {
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
        },
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "corpus": sizes
        and {
            "conversations": len(sizes),
            "mean_tokens": sum(sizes) / len(sizes),
            "p50": sizes[len(sizes) // 2],
            "p90": sizes[len(sizes) * 9 // 10],
            "assistant_share": sum(int(s.loss_mask.sum()) for s in sequences) / sum(sizes),
        },
        "cases": {},
    }
    print(json.dumps({k: out[k] for k in ("versions", "gpu", "corpus")}))
    for name in names:
        if CASES[name].peer:
            continue
        started = time.perf_counter()
        try:
            found = run_case(name, CASES[name], sequences, arguments)
        except Exception as error:  # a failing case must not cost the others
            import traceback

            traceback.print_exc(limit=-6)
            found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            gc.collect()
            torch.cuda.empty_cache() if torch.cuda.is_available() else None
        found["wall_seconds"] = time.perf_counter() - started
        out["cases"][name] = {**dataclasses.asdict(CASES[name]), **found}
        shown = {
            k: round(v, 3) if isinstance(v, float) and math.isfinite(v) else v
            for k, v in found.items()
        }
        print(name, json.dumps(shown), flush=True)
        Path(arguments.out, "numbers.json").write_text(json.dumps(out, indent=1))
    for name, found in run_peers(names, arguments):
        out["cases"][name] = found
        print(name, json.dumps(found), flush=True)
        Path(arguments.out, "numbers.json").write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
