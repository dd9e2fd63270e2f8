"""Peers: Unsloth's and litgpt's QLoRA on full rows of random tokens, every token labelled.

``python reports/h100/peers.py unsloth --model FOLDER --shapes 4x2048,8x2048:host [--steps 12]
[--brief]`` prints a line of JSON for each shape; ``:host`` asks for recomputation with layer inputs
in host memory. A process of its own, since both change libraries that they import; ``bench.py``
starts it. NF4 with double quantization, rank 16 on all linear layers, AdamW, one optimizer step
over all rows.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RANK = 16
WARM_UP = 4
GIB = 2**30
Found = dict[str, Any]


def random_rows(words: int, rows: int, length: int) -> Any:
    """[rows, length] random tokens."""
    import torch

    return torch.randint(0, words, (rows, length), generator=torch.Generator().manual_seed(0))


class Meter:
    """Seconds and losses of steps, and the allocator's peak since it was made."""

    def __init__(self) -> None:
        import torch

        self.cuda = torch.cuda.is_available()
        self.torch = torch
        self.times: list[float] = []
        self.losses: list[float] = []
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated() if self.cuda else 0

    def tick(self) -> None:
        """A step has ended (or the first begins)."""
        if self.cuda:
            self.torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def found(self, tokens: int) -> Found:
        """Tokens a second over the steps after warm-up, their median and whole, and memory."""
        spans = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        steady = sorted(spans[WARM_UP:] or spans)
        found: Found = {
            "tokens_per_second": tokens / steady[len(steady) // 2],
            "mean_tokens_per_second": tokens * len(steady) / sum(steady),
            "first_step_seconds": spans[0],
        }
        if self.losses:
            found |= {"first_loss": self.losses[0], "last_loss": self.losses[-1]}
        if self.cuda:
            found["peak_gib"] = self.torch.cuda.max_memory_allocated() / GIB
            found["reserved_gib"] = self.torch.cuda.max_memory_reserved() / GIB
            found["weights_gib"] = self.before / GIB
        return found


def trainable_types(model: Any) -> list[str]:
    """Types of what is trained."""
    found = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad}
    return sorted(found)


class Unsloth:
    """FastLanguageModel as its documentation says, by SFTTrainer and by a plain loop."""

    def __init__(self, model: str, *, brief: bool) -> None:
        """``brief`` leaves its SFTTrainer out."""
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        import unsloth  # first: it changes what the others import
        from unsloth import FastLanguageModel

        self.version = unsloth.__version__
        self.brief = brief
        self.fast = FastLanguageModel
        self.folder = model
        self.mode: Any = None
        self.model: Any = None
        self.tokenizer: Any = None

    def load(self, host: bool, length: int) -> None:
        """The model with checkpointing as asked, loaded anew where that changes."""
        import torch

        mode = "unsloth" if host else False
        if self.model is not None and self.mode == mode:
            return
        self.model = None
        gc.collect()
        cuda = torch.cuda.is_available()
        self.model, self.tokenizer = self.fast.from_pretrained(
            self.folder,
            max_seq_length=max(length, 2048),
            dtype=torch.bfloat16 if cuda else torch.float32,
            load_in_4bit=cuda,
            use_gradient_checkpointing=mode,
        )
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        self.model = self.fast.get_peft_model(
            self.model,
            r=RANK,
            lora_alpha=RANK,
            lora_dropout=0,
            bias="none",
            target_modules=names,
            use_gradient_checkpointing=mode,
        )
        self.mode = mode

    def rows(self, shape: tuple[int, int, bool], steps: int) -> Iterator[Found]:
        """One shape by both ways."""
        rows, length, host = shape
        self.load(host, length)
        about = {"peer": f"unsloth {self.version}", "trainable": trainable_types(self.model)}
        ways: dict[str, Callable[[int, int, int], Found]] = {"a plain loop": self.loop}
        if not self.brief:
            ways["SFTTrainer"] = self.trainer
        for name, way in ways.items():
            yield {**about, "way": name, **guarded(lambda way=way: way(rows, length, steps))}

    def loop(self, rows: int, length: int, steps: int) -> Found:
        """Forward, backward, AdamW: nothing of a trainer's work."""
        import torch

        model = self.fast.for_training(self.model, use_gradient_checkpointing=self.mode)
        device = next(model.parameters()).device
        tokens = random_rows(model.config.vocab_size, rows, length).to(device)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=2e-4, fused=device.type == "cuda")
        meter = Meter()
        meter.tick()
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            meter.tick()
            meter.losses.append(float(loss.detach()))
        return meter.found(rows * length)

    def trainer(self, rows: int, length: int, steps: int) -> Found:
        """TRL's SFTTrainer as Unsloth changes it, on rows that are tokens already."""
        import torch
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl import SFTConfig, SFTTrainer

        tokens = random_rows(self.model.config.vocab_size, rows, length).tolist() * steps
        data = Dataset.from_dict({"input_ids": tokens, "labels": tokens})
        meter = Meter()

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                meter.tick()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                meter.tick()

        cuda = torch.cuda.is_available()
        settings: dict[str, Any] = {} if self.mode else {"gradient_checkpointing": False}
        settings |= {
            "output_dir": "outputs",
            "max_steps": steps,
            "max_length": length,
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": 1,
            "learning_rate": 2e-4,
            "optim": "adamw_torch_fused" if cuda else "adamw_torch",
            "report_to": [],
            "logging_strategy": "no",
            "save_strategy": "no",
            "disable_tqdm": True,
            "bf16": cuda,
            "packing": False,
        }
        made = SFTTrainer(
            model=self.model,
            processing_class=self.tokenizer,
            train_dataset=data,
            args=SFTConfig(**settings),
            callbacks=[Clock()],
        )
        result = made.train()
        return {**meter.found(rows * length), "mean_loss": result.training_loss}


class Litgpt:
    """litgpt's finetune_lora: its model, its quantized layers, its chunked loss."""

    def __init__(self, model: str, *, brief: bool) -> None:
        import lightning
        import litgpt

        self.lightning = lightning
        self.version = getattr(litgpt, "__version__", None) or installed("litgpt")
        self.config = json.loads(Path(model, "config.json").read_text())

    def make(self) -> tuple[Any, Any]:
        """Random weights of the shape, quantized as they are made; litgpt unties the head."""
        import torch
        from litgpt.lora import GPT, Config, mark_only_lora_as_trainable

        names = ("query", "key", "value", "projection", "mlp")
        config = Config.from_name(
            "Llama-3.2-3B",
            n_layer=self.config["num_hidden_layers"],
            n_embd=self.config["hidden_size"],
            n_head=self.config["num_attention_heads"],
            head_size=self.config["hidden_size"] // self.config["num_attention_heads"],
            n_query_groups=self.config["num_key_value_heads"],
            intermediate_size=self.config["intermediate_size"],
            padded_vocab_size=self.config["vocab_size"],
            lora_r=RANK,
            lora_alpha=RANK,
            lora_dropout=0.0,
            **{f"lora_{name}": True for name in names},
        )
        if torch.cuda.is_available():
            from lightning.fabric.plugins import BitsandbytesPrecision

            plugin = BitsandbytesPrecision("nf4-dq", torch.bfloat16)
            fabric = self.lightning.Fabric(devices=1, plugins=plugin)
        else:
            fabric = self.lightning.Fabric(devices=1, accelerator="cpu", precision="32-true")
        with fabric.init_module(empty_init=False):
            model = GPT(config)
        mark_only_lora_as_trainable(model)
        model.train()
        return fabric, fabric.setup_module(model)

    def rows(self, shape: tuple[int, int, bool], steps: int) -> Iterator[Found]:
        """One shape; it has no recomputation on one device, so rows are halved until they fit."""
        import torch

        rows, length, host = shape
        about: Found = {"peer": f"litgpt {self.version}"}
        if host:
            about["note"] = "litgpt's finetune_lora recomputes nothing on one device"
        fabric, model = self.make()
        model.max_seq_length = length
        about |= {"way": "its training step", "trainable": trainable_types(model)}
        micro = rows
        while True:
            found = guarded(lambda: self.loop(fabric, model, (rows, micro, length), steps))  # noqa: B023
            if "OutOfMemory" not in found.get("error", "") or micro == 1:
                break
            about.setdefault("out_of_memory_at", []).append(micro)
            micro //= 2
            gc.collect()
            torch.cuda.empty_cache()
        yield {**about, "micro_batch": micro, **found}

    def loop(self, fabric: Any, model: Any, size: tuple[int, int, int], steps: int) -> Found:
        """What ``litgpt.finetune.lora.fit`` does in a step."""
        import torch
        from litgpt.utils import chunked_cross_entropy

        rows, micro, length = size
        tokens = random_rows(self.config["vocab_size"], rows, length).to(fabric.device)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=2e-4, fused=fabric.device.type == "cuda")
        optimizer = fabric.setup_optimizers(optimizer)
        model.zero_grad(set_to_none=True)
        meter = Meter()
        meter.tick()
        for _ in range(steps):
            for part in tokens.split(micro):
                logits = model(part, lm_head_chunk_size=128)
                logits[-1] = logits[-1][..., :-1, :]
                loss = chunked_cross_entropy(logits, part[..., 1:])
                fabric.backward(loss * len(part) / rows)
                del logits
            optimizer.step()
            optimizer.zero_grad()
            meter.tick()
            meter.losses.append(float(loss.detach()))
        return meter.found(rows * length)


def installed(name: str) -> str:
    """The version of an installed package."""
    import importlib.metadata

    return importlib.metadata.version(name)


def guarded(way: Callable[[], Found]) -> Found:
    """What a way gives, or plainly why it failed."""
    try:
        return way()
    except Exception as error:  # told in the row
        import traceback

        traceback.print_exc(limit=-6)
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}


PEERS = {"unsloth": Unsloth, "litgpt": Litgpt}


def parse_shape(text: str) -> tuple[int, int, bool]:
    """``8x2048:host`` as rows, length and whether inputs lie in host memory."""
    size, _, how = text.partition(":")
    rows, length = (int(part) for part in size.split("x"))
    return rows, length, how == "host"


def measure(
    peer: str, folder: Path, shapes: list[str], site: str | None, seconds: float, more: list[str]
) -> list[Found]:
    """The rows of a peer in a process of its own, with its packages in ``site``.

    A row holds ``error`` where the peer could not be measured: why, in its own words.
    """
    if site is None:
        missing = f"not measured: no folder of its packages (--site {peer}=FOLDER)"
        return [{"peer": peer, "shape": shape, "error": missing} for shape in shapes]
    command = [sys.executable, __file__, peer, "--model", str(folder), "--shapes", ",".join(shapes)]
    command += more
    environment = {**os.environ, "PYTHONPATH": site, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch, Path(scratch, "said").open("w+") as said:
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, timeout=seconds, check=False,
                stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
            ended = f"ended with code {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"had not ended after {seconds:.0f} s"
        said.seek(0)
        lines = said.read().splitlines()
    sys.stderr.write("\n".join(line[:300] for line in lines[-40:]) + "\n")
    rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
    seen = {row["shape"] for row in rows}
    why = f"{ended}; last line: {lines[-1][:300] if lines else 'none'}"
    return rows + [
        {"peer": peer, "shape": shape, "error": why} for shape in shapes if shape not in seen
    ]


def rows_of(peer: Any, shape: str, steps: int) -> Iterator[Found]:
    """The rows of a shape; one that says why, where the model itself cannot be made."""
    try:
        yield from peer.rows(parse_shape(shape), steps)
    except Exception as error:  # told in the row
        import traceback

        traceback.print_exc(limit=-8)
        yield {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}


def main() -> None:
    """Measure a peer on all shapes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--model", required=True, help="folder of the model, for Unsloth to load")
    parser.add_argument("--shapes", required=True)
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--brief", action="store_true", help="no trainer beside the plain loop")
    arguments = parser.parse_args()
    started = time.perf_counter()
    peer = PEERS[arguments.peer](arguments.model, brief=arguments.brief)
    for shape in arguments.shapes.split(","):
        for row in rows_of(peer, shape, arguments.steps):
            at = round(time.perf_counter() - started, 1)
            line = json.dumps({"peer": arguments.peer, **row, "shape": shape, "at": at})
            print(f"ROW {line}", file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
