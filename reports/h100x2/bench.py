"""Bench: two GPUs of one host against one of them, in the same processes.

Run from the repository root under torchrun:
``torchrun --standalone --nproc-per-node 2 reports/h100x2/bench.py --out FOLDER [--tiny]``.
``--tiny`` shrinks the models to try it on a CPU. The first process measures each case alone while
the others wait, then all measure it together; ``overlap`` measures what it brings that gradients
are added up while the backward pass goes on. Writes numbers.json; random weights, random tokens.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
if "LOCAL_RANK" in os.environ and "--tiny" not in sys.argv:  # before torch looks
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["LOCAL_RANK"]

import numpy as np
import torch

from harness.corpus.sequences import TrainingRow
from harness.parallel.ranks import ALONE, Joined, Ranks
from harness.records.events import Silence
from harness.score.divided import DividedLikelihood
from harness.score.likelihood import Likelihood, Query
from harness.spec.plan import Plan
from harness.train.job import TrainJob
from harness.train.joined import JoinedGradients
from harness.train.path import train
from harness.train.schedule import divided, schedule

FAST = {"speed": "fast"}
PHI, SMOL, DQ = "phi2_shape", "smollm2_135m_instruct", "qlora_nf4_dq"
LLAMA = "llama32_3b_shape"


@dataclasses.dataclass(frozen=True)
class Case:
    """A training; ``rows`` are those of a device, or of all where the batch is ``equal``."""

    model: str
    rows: int
    length: int
    steps: int
    full: bool
    equal: bool = False
    micro: int = 0
    training: dict[str, Any] = dataclasses.field(default_factory=dict)


HOST = {"gradient_checkpointing": True, "activation_offload": True}
CASES = {
    "phi_dq_8x2048": Case(PHI, 8, 2048, 16, full=True),
    "phi_dq_host_8x2048": Case(PHI, 8, 2048, 12, full=True, training=HOST),
    "llama_dq_4x2048": Case(LLAMA, 4, 2048, 14, full=True),
    "llama_dq_host_4x2048": Case(LLAMA, 4, 2048, 12, full=True, training=HOST),
    "smol_dq_8x512": Case(SMOL, 8, 512, 60, full=False),
    "phi_dq_equal_8x1024": Case(PHI, 8, 1024, 20, full=False, equal=True, micro=4),
    "smol_dq_equal_8x512": Case(SMOL, 8, 512, 20, full=False, equal=True, micro=4),
}

# Few rows a step, so that adding up takes a larger part of it, and as many as above.
OVERLAPPED = {
    "phi_dq_1x2048": Case(PHI, 1, 2048, 40, full=True),
    "phi_dq_8x2048": dataclasses.replace(CASES["phi_dq_8x2048"], steps=8),
}
TURNS = 3


def h100() -> Any:
    """The bench for one GPU, which builds the models."""
    spec = importlib.util.spec_from_file_location("h100_bench", ROOT / "reports/h100/bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["h100_bench"] = module
    sys.path.append(str(ROOT / "reports/h100"))  # it has a neighbour
    spec.loader.exec_module(module)
    return module


def plan_of(case: Case, devices: int, one: Any, *, tiny: bool) -> Plan:
    """The case for that many devices."""
    batch = case.rows if case.equal else case.rows * devices
    shared = {"devices": devices} if devices > 1 else {}
    length = 64 if tiny else case.length
    micro = case.micro or case.rows
    training = {**FAST, "sequence_length": length, "micro_batch_size": micro, **shared}
    plan = one.make_plan_of(
        one.Case(case.model, DQ, batch, length, {**training, **case.training}, steps=case.steps),
        tiny,
    )
    steps = 4 if tiny else case.steps
    budget = plan.budget.model_copy(update={"batch_size": batch, "steps": steps})
    used = {
        "micro_batch_size": min(micro, batch // devices),
        "parallel": "data",
        "devices": devices,
    }
    used |= {} if devices > 1 else {"parallel": "none"}
    training = plan.training.model_copy(update=used)
    return plan.model_copy(update={"budget": budget, "training": training})


def make_training_rows(case: Case, plan: Plan, count: int) -> tuple[TrainingRow, ...]:
    """Random tokens: full rows of several conversations, or rows of one of unequal length.

    Lengths follow OASST1's (median 500 tokens, long tail); 77 % of tokens carry loss.
    """
    rng = np.random.default_rng(0)
    length = plan.training.sequence_length
    words = int(plan.model.config["vocab_size"])
    rows = []
    for _ in range(count):
        sizes: list[int] = []
        while sum(sizes) < length and (case.full or not sizes):
            size = int(np.clip(np.exp(rng.normal(6.2, 0.8)), 16, length))
            sizes.append(min(size, length - sum(sizes)) if case.full else size)
        total = sum(sizes)
        ids = rng.integers(0, words, total).astype(np.int32)
        labels = np.where(rng.random(total) < 0.23, -100, ids).astype(np.int32)
        positions = np.concatenate([np.arange(size) for size in sizes]).astype(np.int32)
        rows.append(TrainingRow(ids, labels, positions, tuple(sizes)))
    return tuple(rows)


def run(
    case: Case, plan: Plan, model: Any, rows: tuple[TrainingRow, ...], ranks: Ranks
) -> dict[str, Any]:
    """Train, and say how fast."""
    tokens = [len(row.input_ids) for row in rows]
    order = divided(schedule(len(rows), plan.budget, plan.seed, tokens), tokens, plan)
    job = TrainJob(model, rows, order, plan, pad_id=2, ranks=ranks)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    result = train(job, Silence())
    steady = result.losses[result.throughput.warmup_steps :]
    return {
        "tokens_per_second": result.throughput.median,
        "all_steady_steps": sum(p.non_padding_tokens for p in steady)
        / sum(p.seconds for p in steady),
        "tokens_per_step": result.tokens.non_padding / result.steps,
        "losses": [point.loss for point in result.losses],
        "compile_seconds": result.compile_seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30
        if torch.cuda.is_available()
        else None,
    }


def fresh(one: Any, plan: Plan) -> Any:
    """A model in random weights, the same in every process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return one.random_model(plan)


def used_bytes() -> int | None:
    """Memory of the whole device in use, by the driver's count."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def train_case(name: str, ranks: Ranks, one: Any, *, tiny: bool) -> dict[str, Any]:
    """One device alone, then all together; every process builds the same model."""
    case = CASES[name]
    found: dict[str, Any] = {}
    for devices in (1, ranks.count):
        plan = plan_of(case, devices, one, tiny=tiny)
        rows = make_training_rows(case, plan, 8 * case.rows * ranks.count)
        together = devices > 1
        if together or ranks.index == 0:
            model = fresh(one, plan)
            found[str(devices)] = run(case, plan, model, rows, ranks if together else ALONE)
            found[str(devices)]["device_bytes"] = used_bytes()
            del model
        ranks.gather(None)
    if ranks.index == 0:
        alone, both = found["1"], found[str(ranks.count)]
        found["speedup"] = both["tokens_per_second"] / alone["tokens_per_second"]
        found["speedup_all_steady_steps"] = both["all_steady_steps"] / alone["all_steady_steps"]
        if case.equal:
            pairs = zip(alone["losses"], both["losses"], strict=True)
            found["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
    return found


@contextmanager
def apart(wanted: bool) -> Iterator[None]:
    """Have all gradients be added up after the backward pass, and not while it goes on."""
    begin = JoinedGradients.complete_from
    if wanted:
        JoinedGradients.complete_from = lambda self, start: None
    try:
        yield
    finally:
        JoinedGradients.complete_from = begin


def overlap(ranks: Ranks, one: Any, *, tiny: bool) -> dict[str, Any]:
    """Tokens per second of all devices, gradients added up meanwhile and afterwards, in turn."""
    found: dict[str, Any] = {}
    for name, case in OVERLAPPED.items():
        plan = plan_of(case, ranks.count, one, tiny=tiny)
        rows = make_training_rows(case, plan, 8 * case.rows * ranks.count)
        model = fresh(one, plan)
        speeds: dict[str, list[float]] = {"meanwhile": [], "afterwards": []}
        for _ in range(TURNS):
            for way, told in speeds.items():
                with apart(way == "afterwards"):
                    told.append(run(case, plan, model, rows, ranks)["all_steady_steps"])
        del model
        found[name] = speeds
        found[f"{name} gains"] = (
            statistics.median(speeds["meanwhile"]) / statistics.median(speeds["afterwards"]) - 1
        )
    return found


def mmlu(words: int, *, tiny: bool) -> list[Query]:
    """Requests in the shape of MMLU 5-shot: 57 preambles, questions, four answers of one token."""
    rng = np.random.default_rng(1)
    queries = []
    for _ in range(3 if tiny else 57):
        preamble = rng.integers(0, words, 80 if tiny else int(rng.integers(350, 1400)))
        for _ in range(4 if tiny else 40):
            question = rng.integers(0, words, int(rng.integers(30, 160)))
            for choice in rng.choice(words, 4, replace=False):
                tokens = np.concatenate([preamble, question, [choice]])
                queries.append(Query(tokens, np.array([len(tokens) - 1])))
    return queries


def score(ranks: Ranks, one: Any, *, tiny: bool) -> dict[str, Any]:
    """The same requests of one device and of all: seconds, and whether answers are the same."""
    plan = plan_of(CASES["phi_dq_8x2048"], 1, one, tiny=tiny)
    model = fresh(one, plan).eval()
    queries = mmlu(int(plan.model.config["vocab_size"]), tiny=tiny)
    found: dict[str, Any] = {"requests": len(queries), "seconds": {"1": [], "2": []}}
    answers = []
    for turn in range(2):
        if ranks.index == 0:
            alone = Likelihood(model, plan.score.batch_tokens, Silence())
            seconds, answer = timed(alone, queries)
            found["seconds"]["1"].append(seconds)
            answers.append(answer)
        ranks.gather(None)
        shared = DividedLikelihood(model, plan.score.batch_tokens, Silence(), ranks)
        if ranks.index == 0:
            seconds, answer = timed(shared, queries)
            found["seconds"]["2"].append(seconds)
            answers.append(answer)
        else:
            shared.answer(ranks.hand_out(None))
        del turn
    if ranks.index == 0:
        first, *others = [[a.log_probs.tolist() for a in answer] for answer in answers]
        found["identical"] = all(other == first for other in others)
        found["speedup"] = found["seconds"]["1"][-1] / found["seconds"]["2"][-1]
    return found


def timed(likelihood: Likelihood, queries: list[Query]) -> tuple[float, Any]:
    """Seconds and answers."""
    started = time.perf_counter()
    answers = likelihood.answer(queries)
    return time.perf_counter() - started, answers


def versions() -> dict[str, str]:
    """Of what computes."""
    names = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    found = {name: importlib.metadata.version(name) for name in names}
    if torch.cuda.is_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return found


def main() -> None:
    """Every case; the first process writes after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--cases", default=",".join([*CASES, "mmlu"]))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    one = h100()
    ranks = Joined(cuda=torch.cuda.is_available(), silence_seconds=120)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    out: dict[str, Any] = {"versions": versions(), "gpu": gpu, "devices": ranks.count, "cases": {}}
    for name in arguments.cases.split(","):
        started = time.perf_counter()
        if name == "mmlu":
            found = score(ranks, one, tiny=arguments.tiny)
        elif name == "overlap":
            found = overlap(ranks, one, tiny=arguments.tiny)
        else:
            found = train_case(name, ranks, one, tiny=arguments.tiny)
        found["wall_seconds"] = time.perf_counter() - started
        if ranks.index == 0:
            out["cases"][name] = found
            shown = {key: value for key, value in found.items() if not isinstance(value, dict)}
            print(name, json.dumps(shown), flush=True)
            Path(arguments.out).mkdir(parents=True, exist_ok=True)
            Path(arguments.out, "numbers.json").write_text(json.dumps(out, indent=1))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
