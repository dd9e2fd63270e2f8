"""Speed: adapters trained together on one base, and recomputation by budget, on one GPU.

Run from the repository root: ``python reports/h100/speed.py --data TREES --tokenizer FOLDER
[--parts products,together,budget,profile,norms] [--memories 12:host,12] [--brief] [--seconds N]
[--tiny]``. Prints one line of JSON a measurement; random weights of the models' shapes, real
conversations, no network.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from bench import BF16, CKPT, DQ, LLAMA, NF4, PHI, SMOL, Case, make_data, make_plan_of, random_model
from trials import each_in_a_process

from harness.corpus.sequences import TrainingRows, make_training_rows
from harness.forecast.memory import predict, settle_recomputation
from harness.records.events import Silence
from harness.spec.plan import Plan
from harness.train.job import TrainJob
from harness.train.path import choose_path, train
from harness.train.schedule import schedule
from harness.train.together.loop import Member, train_together
from harness.train.together.start import AdapterStart
from harness.weights.shape import count_plan

FAST = {"speed": "fast", "packing": False}
PACKED = {"speed": "fast", "packing": True}
MANY = 8
GIB = 2**30


def job_of(plan: Plan, model: Any, rows: TrainingRows) -> TrainJob:
    """The plan's steps over the rows."""
    tokens = [len(row.input_ids) for row in rows.rows]
    return TrainJob(model, rows.rows, schedule(len(rows.rows), plan.budget, 0, tokens), plan, 2)


def with_rate(plan: Plan, rate: float) -> Plan:
    """The plan at another learning rate."""
    return plan.model_copy(
        update={"training": plan.training.model_copy(update={"learning_rate": rate})}
    )


def peak() -> float | None:
    """Peak of allocated memory since the last call, GiB."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.max_memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    return found


def empty() -> None:
    """Give memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def median_step(seconds: list[float]) -> float:
    """Median over the steps after the first five."""
    steady = sorted(seconds[5:] or seconds)
    return steady[len(steady) // 2]


def one(plan: Plan, case: Case, rows: TrainingRows) -> dict[str, Any]:
    """The plan alone."""
    model = random_model(plan)
    empty()
    started = time.perf_counter()
    result = train(job_of(plan, model, rows), Silence())
    return {
        "step_seconds": median_step([point.seconds for point in result.losses]),
        "tokens_per_second": result.throughput.median,
        "first_loss": result.losses[0].loss,
        "last_loss": result.losses[-1].loss,
        "peak_gib": peak(),
        "wall_seconds": time.perf_counter() - started,
        "rows": case.rows,
    }


def many(plan: Plan, count: int, rows: TrainingRows) -> dict[str, Any]:
    """``count`` plans of one data order, at learning rates of their own."""
    model = random_model(plan)
    start = AdapterStart.of(model)
    rates = [plan.training.learning_rate * 1.5**index for index in range(count)]
    members = [
        Member(job_of(with_rate(plan, rate), model, rows), start, Silence()) for rate in rates
    ]
    empty()
    started = time.perf_counter()
    found = train_together(members)
    results = [outcome.result for outcome in found if outcome.result is not None]
    first = results[0]
    step = median_step([point.seconds for point in first.losses]) * count
    return {
        "adapters": count,
        "step_seconds": step,
        "tokens_per_second_of_all": sum(r.throughput.median or 0.0 for r in results) / count,
        "first_loss": first.losses[0].loss,
        "last_loss": first.losses[-1].loss,
        "last_losses": [round(result.losses[-1].loss, 4) for result in results],
        "peak_gib": peak(),
        "wall_seconds": time.perf_counter() - started,
    }


TOGETHER = {
    "smol_nf4_8x512": Case(SMOL, NF4, 8, 512, FAST, steps=150),
    "smol_bf16_8x512": Case(SMOL, "lora_bf16", 8, 512, FAST, steps=150),
    "smol_nf4_packed_8x512": Case(SMOL, NF4, 8, 512, PACKED, steps=60),
    "phi_dq_1x1024": Case(PHI, DQ, 1, 1024, FAST, steps=30),
    "phi_dq_packed_1x1024": Case(PHI, DQ, 1, 1024, PACKED, steps=30),
}


def together(sequences: list[Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One adapter alone, one through the loop for several, two, four and eight."""
    for name, full in TOGETHER.items():
        if arguments.cases and name not in arguments.cases.split(","):
            continue
        case = dataclasses.replace(full, steps=3) if arguments.tiny else full
        plan = make_plan_of(case, arguments.tiny)
        rows = make_training_rows(sequences, plan.training)
        alone = one(plan, case, rows)
        yield {"case": name, "adapters": "alone", **alone}
        for count in (MANY,) if arguments.brief else (1, 4, MANY):
            empty()
            found = many(plan, count, rows)
            found["times_one_alone"] = found["step_seconds"] / alone["step_seconds"]
            yield {"case": name, **found}
        empty()


PROFILED = {
    "smol_bf16_8x512, eight together": (TOGETHER["smol_bf16_8x512"], MANY),
    "phi_dq_8x2048": (Case(PHI, DQ, 8, 2048, PACKED), 1),
    "smol_nf4_packed_8x512": (TOGETHER["smol_nf4_packed_8x512"], 1),
    "smol_full_8x512": (Case(SMOL, "full_finetune", 8, 512, FAST), 1),
    "phi_dq_1x1024, eight together": (TOGETHER["phi_dq_1x1024"], MANY),
}


def profile(sequences: list[Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Where the device's time goes: kernels by their share, warm-up included."""
    activity = torch.profiler.ProfilerActivity
    kind = activity.CUDA if torch.cuda.is_available() else activity.CPU
    for name, (full, count) in PROFILED.items():
        case = dataclasses.replace(full, steps=3 if arguments.tiny else 10)
        plan = choose_path(make_plan_of(case, arguments.tiny))
        rows = make_training_rows(sequences, plan.training)
        with torch.profiler.profile(activities=[kind]) as found:
            measured = many(plan, count, rows) if count > 1 else one(plan, case, rows)
        events = found.key_averages()
        whole = sum(event.self_device_time_total for event in events) or 1.0
        ordered = sorted(events, key=lambda event: -event.self_device_time_total)
        kernels = [
            [event.key[:90], event.count, round(event.self_device_time_total / whole, 4)]
            for event in ordered[:40]
            if event.self_device_time_total
        ]
        yield {"case": name, **measured, "device_seconds": whole / 1e6, "kernels": kernels}
        empty()


HOSTED = ":host"  # inputs of recomputed layers wait in host memory
MEMORIES = "6,8,10,12,16,20,24,28,12:host,8:host,16:host,6:host"


def budget(sequences: list[Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Speed and peak for several memories, between all layers recomputed and none."""
    case = Case(PHI, DQ, 8, 2048, PACKED, steps=2 if arguments.tiny else 9)
    auto: dict[str, Any] = {"gradient_checkpointing": "auto"}
    for asked_for in arguments.memories.split(","):
        gib, host = int(asked_for.removesuffix(HOSTED)), asked_for.endswith(HOSTED)
        more = {**auto, "memory_gib": gib, "activation_offload": host}
        asked = make_plan_of(dataclasses.replace(case, training={**PACKED, **more}), arguments.tiny)
        plan = settle_recomputation(asked, count_plan(asked))
        rows = make_training_rows(sequences, plan.training)
        model = random_model(plan)
        empty()
        result = train(job_of(plan, model, rows), Silence())
        prediction = predict(plan)
        yield {
            "memory_gib": gib,
            "inputs_in_host_memory": host,
            "kept_layers": plan.training.kept_layers,
            "tokens_per_second": result.throughput.median,
            "peak_gib": peak(),
            "predicted_gib": prediction and prediction.by_phase["train"] / GIB,
            "last_loss": result.losses[-1].loss,
        }
        del model
        empty()


def norms(sequences: list[Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The recorded path with norms written out, as models have them, and as one kernel.

    And LoRA on the fast path, which full fine-tuning is compared with.
    """
    import harness.train.recorded.train as recorded

    fused = recorded.fused_norms
    loose = {"speed": "recorded", "packing": False}
    for variant in ("full_finetune",) if arguments.brief else ("full_finetune", NF4):
        case = Case(SMOL, variant, 8, 512, loose, steps=3 if arguments.tiny else 40)
        plan = make_plan_of(case, arguments.tiny)
        rows = make_training_rows(sequences, plan.training)
        for way, how in (("written out", nullcontext), ("one kernel", fused)):
            recorded.fused_norms = how
            found = one(plan, case, rows)
            yield {"variant": variant, "norms": way, **found}
            empty()
    recorded.fused_norms = fused
    case = Case(SMOL, BF16, 8, 512, {"speed": "fast", "packing": False}, steps=case.steps)
    plan = make_plan_of(case, arguments.tiny)
    yield {
        "variant": BF16,
        "path": "fast",
        **one(plan, case, make_training_rows(sequences, plan.training)),
    }


SHORT = 10
PRODUCTS = {
    "phi_dq_8x2048": Case(PHI, DQ, 8, 2048, PACKED, steps=SHORT),
    "phi_fp8_8x2048": Case(PHI, "qlora_nf4_fp8", 8, 2048, PACKED, steps=SHORT),
    "phi_lora_fp8_8x2048": Case(PHI, "lora_fp8", 8, 2048, PACKED, steps=SHORT),
    "phi_lora_bf16_8x2048": Case(PHI, "lora_bf16", 8, 2048, PACKED, steps=SHORT),
    "llama_fp8_4x2048": Case(LLAMA, "qlora_nf4_fp8", 4, 2048, PACKED, steps=SHORT),
    "smol_fp8_packed_8x512": Case(SMOL, "qlora_nf4_fp8", 8, 512, PACKED, steps=60),
}


def products(sequences: list[Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Frozen products in bfloat16 and in float8: the same rows, one after another."""
    for name, full in PRODUCTS.items():
        case = dataclasses.replace(full, steps=2 if arguments.tiny else full.steps)
        plan = make_plan_of(case, arguments.tiny)
        rows = make_training_rows(sequences, plan.training)
        found = one(plan, case, rows)
        prediction = predict(plan)
        yield {
            "case": name,
            **found,
            "predicted_gib": prediction and prediction.by_phase["train"] / GIB,
        }
        empty()


def copied_one_by_one(groups: Any) -> None:
    """The adapters' present values as they were taken before: all by one list."""
    copies = [copy for group in groups if group.rank for copy in group.copies]
    targets, sources, scales = (list(column) for column in zip(*copies, strict=True))
    torch._foreach_copy_(targets, torch._foreach_mul(sources, scales))


@contextmanager
def kernels_of(way: str) -> Iterator[None]:
    """``before``: neither; ``fused``: activations with adapters' products; ``drafts``; ``both``."""
    from harness.train.stream import decoder, drafts, linears
    from harness.train.together import linears as together_linears

    kinds = linears.Linears, together_linears.TogetherLinears
    fused = [kind.fuses for kind in kinds]
    before = together_linears.RIDING_TOKENS, drafts.DRAFT_BYTES, decoder.refresh
    for kind in kinds:
        kind.fuses = way in {"fused", "both"}
    if way in {"before", "drafts"}:
        together_linears.RIDING_TOKENS = 1 << 40
    if way in {"before", "fused"}:
        drafts.DRAFT_BYTES, decoder.refresh = -1, copied_one_by_one
    try:
        yield
    finally:
        for kind, fuses in zip(kinds, fused, strict=True):
            kind.fuses = fuses
        together_linears.RIDING_TOKENS, drafts.DRAFT_BYTES, decoder.refresh = before


FUSED, SMALL = ("before", "fused"), ("before", "drafts", "fused", "both")
WAYS = {
    "phi_dq_8x2048": (Case(PHI, DQ, 8, 2048, PACKED, steps=SHORT), FUSED, 1),
    "phi_fp8_8x2048": (Case(PHI, "qlora_nf4_fp8", 8, 2048, PACKED, steps=SHORT), FUSED, 1),
    "smol_bf16_8x512, eight": (TOGETHER["smol_bf16_8x512"], FUSED, MANY),
    "smol_nf4_packed_8x512": (TOGETHER["smol_nf4_packed_8x512"], SMALL, 1),
    "llama_dq_4x2048": (Case(LLAMA, DQ, 4, 2048, PACKED, steps=SHORT), FUSED, 1),
    "phi_lora_fp8_8x2048": (Case(PHI, "lora_fp8", 8, 2048, PACKED, steps=SHORT), FUSED, 1),
    "smol_nf4_8x512": (TOGETHER["smol_nf4_8x512"], SMALL, 1),
    "smol_bf16_packed_8x512": (Case(SMOL, "lora_bf16", 8, 512, PACKED, steps=60), SMALL, 1),
    "smol_fp8_packed_8x512": (Case(SMOL, "qlora_nf4_fp8", 8, 512, PACKED, steps=60), ("both",), 1),
    "phi_ckpt_8x2048": (Case(PHI, DQ, 8, 2048, CKPT, steps=SHORT), FUSED, 1),
}


def ways(sequences: list[Any], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Kernels before and now, and products in float8: the same rows, one after another."""
    from harness.train.stream import trial

    chosen = arguments.ways.split(",")
    if torch.cuda.is_available() and "fused" in chosen:
        yield {"why_not_fused": trial.fused_failure(torch.bfloat16)}
    for name, (full, how, count) in WAYS.items():
        case = dataclasses.replace(full, steps=2 if arguments.tiny else min(full.steps, 60))
        plan = make_plan_of(case, arguments.tiny)
        rows = make_training_rows(sequences, plan.training)
        for way in (way for way in how if way in chosen):
            with kernels_of(way):
                try:
                    found = many(plan, count, rows) if count > 1 else one(plan, case, rows)
                except Exception as error:
                    found = {"error": f"{type(error).__name__}: {error}"[:400]}
            prediction = None if count > 1 else predict(plan)
            predicted = prediction and prediction.by_phase["train"] / GIB
            yield {"case": name, "kernels": way, **found, "predicted_gib": predicted}
            empty()


PARTS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "ways": ways,
    "products": products,
    "together": together,
    "budget": budget,
    "profile": profile,
    "norms": norms,
}


def main() -> None:
    """Run the chosen parts; several are a process each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--parts", default="products,together,budget")
    parser.add_argument("--cases", default="")
    parser.add_argument("--ways", default=",".join(SMALL), help="of the kernels, for part ways")
    parser.add_argument("--memories", default=MEMORIES, help="GiB, for part budget")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--brief", action="store_true", help="fewer rows of a part")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin nothing after that")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if len(parts) > 1:
        names = ("data", "tokenizer", "cases", "ways", "memories")
        more = [f"--{name}={getattr(arguments, name)}" for name in names]
        more += [f"--{name}" for name in ("tiny", "brief") if getattr(arguments, name)]
        each_in_a_process(__file__, parts, more, arguments.seconds)
        return
    started = time.perf_counter()
    sequences = make_data(arguments)
    if arguments.tiny:
        sequences = sorted(sequences, key=lambda one: len(one.input_ids))[:40]
    print(json.dumps({"gpu": torch.cuda.is_available() and torch.cuda.get_device_name()}))
    for found in PARTS[parts[0]](sequences, arguments):
        seconds = time.perf_counter() - started
        print(json.dumps({"part": parts[0], "at": round(seconds), **found}), flush=True)
        if seconds > arguments.seconds:
            break


if __name__ == "__main__":
    main()
