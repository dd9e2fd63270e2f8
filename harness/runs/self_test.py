"""Self-test: tiny trainings by several devices and by one, to see what each computes right."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.parallel.ranks import ALONE, Joined, Ranks
from harness.records.events import Silence
from harness.runs.child import set_up_torch
from harness.spec.device import Device, detect_device
from harness.spec.model import DrawnSource, Model
from harness.spec.plan import Plan
from harness.spec.request import Request

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRow

MODULE = "harness.runs.self_test"
SECONDS = 1800  # for everything, the import of libraries on a busy machine included
SILENCE_SECONDS = 300.0  # for the other devices' import too
STEPS, ROWS, WORDS, TOKENS = 4, 4, 128, 48
# Largest difference of a step's loss from one device's: sums in another order, nothing more.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3, "float16": 5e-3}
EVERY_WEIGHT = "every weight"  # trained, and no adapter
VARIANTS = {
    "none": "lora_bf16",
    "nf4": "qlora_nf4",
    "nf4+dq": "qlora_nf4_dq",
    "fp4": "qlora_fp4",
    "int8": "lora_int8",
    "int4": "lora_int4",
    EVERY_WEIGHT: "full_finetune",
}
WAYS = ("data", "sharded")
SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Tried:
    """One combination: how far its losses are from one device's, or what went wrong.

    ``right`` is None where the combination is refused when it is planned.
    """

    parallel: str
    quantization: str
    right: bool | None
    words: str


def try_devices(count: int, device: Device) -> list[Tried]:
    """What ``count`` devices of this machine, or processes on its CPU, compute together.

    A process that dies takes the combinations after it along; they are said to be not tried.
    """
    quantizations = tuple(VARIANTS)
    with tempfile.TemporaryDirectory() as scratch:
        said = _run(count, device, Path(scratch), quantizations)
        found = [Tried(**json.loads(line)) for line in _lines(Path(scratch) / "found.jsonl")]
    missing = [(way, name) for way in WAYS for name in quantizations][len(found) :]
    words = f"not tried: the processes ended early ({said})"
    return [*found, *(Tried(way, name, right=False, words=words) for way, name in missing)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def meeting_place(count: int) -> Iterator[dict[str, str]]:
    """A store of this process at which ``count`` ranks meet; yields the environment that says so.

    As at torchrun's: a port that is free now may be another's by the time that rank 0 listens.
    """
    dist: Any = import_module("torch.distributed")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _run(count: int, device: Device, folder: Path, quantizations: Sequence[str]) -> str:
    """Start the processes and wait for them; returns the last line of the first that failed."""
    arguments = [str(folder), str(count), device.kind, *quantizations]
    with meeting_place(count) as told:
        return _wait(
            [
                subprocess.Popen(
                    [sys.executable, "-m", MODULE, *arguments],
                    env={**os.environ, **told, "RANK": str(rank)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for rank in range(count)
            ]
        )


def _wait(processes: Sequence[subprocess.Popen[str]]) -> str:
    words = ""
    try:
        for process in processes:
            _, said = process.communicate(timeout=SECONDS)
            if process.returncode and not words:
                words = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        words = f"no answer in {SECONDS} s"
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return words


def main(arguments: Sequence[str]) -> int:
    """One of the processes: ``python -m harness.runs.self_test FOLDER COUNT KIND LABEL…``."""
    folder, count, kind = Path(arguments[0]), int(arguments[1]), arguments[2]
    device = detect_device("cuda" if kind == "cuda" else "cpu")
    if device.kind == "cpu":  # single precision shows more
        device = device.model_copy(update={"bfloat16": False})
    set_up_torch(_plan("none", "data", (count, count), device))
    ranks = Joined(cuda=device.kind == "cuda", silence_seconds=SILENCE_SECONDS)
    for found in _try_all(ranks, folder, device, arguments[3:]):
        if ranks.index == 0:
            with (folder / "found.jsonl").open("a") as file:
                file.write(json.dumps(asdict(found)) + "\n")
    return 0


def _try_all(
    ranks: Ranks, folder: Path, device: Device, quantizations: Sequence[str]
) -> Iterator[Tried]:
    alone: dict[str, list[float]] = {}  # by quantization: what one device computes
    for way in WAYS:
        for name in quantizations:
            try:
                plan = _plan(name, way, (ranks.count, ranks.count), device)
                one = _plan(name, "none", (1, ranks.count), device)
            except HarnessError as refused:
                yield Tried(way, name, right=None, words=refused.what)
                continue
            gap, said = _gap(plan, one, folder, ranks, alone.setdefault(name, []))
            right = not said and gap <= TOLERANCE[plan.precision.compute]
            yield Tried(way, name, right, said or f"losses within {gap:.0e} of one device's")


def _gap(
    plan: Plan, one: Plan, folder: Path, ranks: Ranks, alone: list[float]
) -> tuple[float, str]:
    """How far the losses of all devices are from those of one, or what went wrong anywhere.

    ``alone`` holds the losses of ``one``, which are filled in if it is empty.
    """
    together: list[float] = []
    said = ""
    try:
        together = _losses(plan, folder, ranks)
        alone += [] if alone else _losses(one, folder, ALONE)
    except (HarnessError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
    said = "; ".join(sorted({one for one in ranks.gather(said) if one}))
    if said:
        return math.inf, said
    gap = max(abs(a - b) for a, b in zip(together, alone, strict=True))
    return max(ranks.gather(gap)), ""


def _plan(name: str, way: str, ranks: tuple[int, int], device: Device) -> Plan:
    """The plan of ``ranks[0]`` devices, with a batch for ``ranks[1]``."""
    from harness.train.path import choose_path, resolve

    count, batch = ranks[0], ROWS * ranks[1]
    settings = [f"budget.steps={STEPS}", f"budget.batch_size={batch}"]
    settings += [f"training.micro_batch_size={ROWS}"]
    settings += [] if name == EVERY_WEIGHT else ["adapter.r=4", "adapter.lora_dropout=0.0"]
    settings += ["training.speed=plain", "training.learning_rate=1e-2", "score.tasks=[]"]
    settings += ["training.gradient_checkpointing=false", "validation.every=0"]
    settings += [f"training.devices={count}", f"training.parallel={way}"] if count > 1 else []
    (plan,) = resolve(Request((VARIANTS[name],), settings=tuple(settings), seeds=(0,)), device)
    source = DrawnSource(kind="drawn", tokenizer="smollm2_135m_instruct")
    tiny = Model(name="tiny", description="tiny", license="none", source=source, config=SHAPE)
    planned: Plan = choose_path(plan.model_copy(update={"model": tiny}))
    return planned


def _losses(plan: Plan, folder: Path, ranks: Ranks) -> list[float]:
    from harness.train.job import TrainJob
    from harness.train.path import train
    from harness.train.schedule import divided
    from harness.weights.adapter import attach_adapter
    from harness.weights.load import load_base
    from harness.weights.shape import transformers_config

    shape = folder / f"shape-{os.getpid()}"
    transformers_config(plan.model).save_pretrained(shape)
    model = attach_adapter(load_base(plan, shape), plan)
    rows = _rows(plan.budget.batch_size)
    order = list(range(len(rows)))
    tokens = [len(row.input_ids) for row in rows]
    job = TrainJob(model, rows, divided(order, tokens, plan), plan, pad_id=0, ranks=ranks)
    return [point.loss for point in train(job, Silence()).losses]


def _rows(batch: int) -> tuple[TrainingRow, ...]:
    """Rows of random tokens for all steps, the same for everyone."""
    import numpy as np

    from harness.corpus.sequences import TrainingRow

    rng = np.random.default_rng(0)
    found = []
    for _ in range(STEPS * batch):
        ids = rng.integers(0, WORDS, int(rng.integers(8, TOKENS))).astype(np.int32)
        places = np.arange(len(ids), dtype=np.int32)
        found.append(TrainingRow(ids, ids.copy(), places, (len(ids),)))
    return tuple(found)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
