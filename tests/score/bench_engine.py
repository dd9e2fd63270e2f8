"""Side by side: lm-eval's HF backend and the fast engine on the same requests, same answers.

Run with ``nox -s bench`` or ``python tests/score/bench_engine.py --help``. Each engine answers the
requests of one task at a time, taking turns; medians of wall time and of CPU time are compared.
Peak memory is the process's resident peak while the engine works, less what was there before.
"""

from __future__ import annotations

import gc
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from real_model import load, parser

from harness.events import Silence
from harness.suite import Task

WORKLOADS = {
    "mmlu 5-shot": Task(name="mmlu_anatomy", num_fewshot=5, limit=10),
    "openbookqa 5-shot": Task(name="openbookqa", num_fewshot=5, limit=6),
    "arc_challenge 5-shot": Task(name="arc_challenge", num_fewshot=5, limit=4),
    "lambada": Task(name="lambada_openai", limit=16),
    "perplexity": Task(name="wikitext", limit=1),
}
GOALS = {"mmlu": 3.0, "openbookqa": 2.0, "arc_challenge": 2.0, "lambada": 1.3, "perplexity": 1.3}
PERPLEXITY_CONTEXT = 1024


def requests_of(task: Task, data: Path) -> list[Any]:
    """The requests lm-eval makes of a task."""
    from harness.score.catalogue import load_task

    with tempfile.TemporaryDirectory() as scratch, load_task(task, data, Path(scratch)) as loaded:
        (leaf,) = loaded.tasks.values()
        leaf.set_config(key="num_fewshot", value=task.num_fewshot or 0)
        leaf.set_fewshot_seed(seed=1234)
        leaf.build_all_requests(limit=task.limit)
        return list(leaf.instances)


def answer(lm: Any, requests: list[Any]) -> list[tuple[float, bool]]:
    """Log-likelihoods with greedy flags; rolling ones have no flag."""
    if requests[0].request_type == "loglikelihood_rolling":
        return [(value, True) for value in lm.loglikelihood_rolling(requests, disable_tqdm=True)]
    found: list[tuple[float, bool]] = lm.loglikelihood(requests, disable_tqdm=True)
    return found


def measured(lm: Any, requests: list[Any]) -> dict[str, Any]:
    """Wall seconds, CPU seconds and extra resident bytes of one pass."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    answers = answer(lm, requests)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": _status("VmHWM") - before,
        "answers": answers,
    }


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def compare(engines: dict[str, Any], requests: list[Any], repeats: int) -> dict[str, Any]:
    """Medians of ``repeats`` turns each, and how far the answers are apart."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, lm in engines.items():
            runs[name].append(measured(lm, requests))
    theirs, ours = runs["hf"][0]["answers"], runs["fast"][0]["answers"]
    apart = max(abs(a[0] - b[0]) for a, b in zip(theirs, ours, strict=True))
    relative = max(
        abs(a[0] - b[0]) / max(1.0, abs(a[0])) for a, b in zip(theirs, ours, strict=True)
    )
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in ("wall", "cpu", "peak")}
        for name, found in runs.items()
    }
    return {
        "requests": len(requests),
        "hf": median["hf"],
        "fast": median["fast"],
        "wall_ratio": median["hf"]["wall"] / median["fast"]["wall"],
        "cpu_ratio": median["hf"]["cpu"] / median["fast"]["cpu"],
        "largest_difference": apart,
        "largest_relative_difference": relative,
        "same_greedy": all(a[1] == b[1] for a, b in zip(theirs, ours, strict=True)),
        "same_choice": _same_choice(requests, theirs, ours),
    }


def _same_choice(requests: list[Any], theirs: list[Any], ours: list[Any]) -> bool:
    """Whether every document has the same likeliest answer."""
    documents: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        documents.setdefault(request.doc_id, []).append(index)
    return all(
        max(group, key=lambda i: theirs[i][0]) == max(group, key=lambda i: ours[i][0])
        for group in documents.values()
    )


def main() -> None:
    options = parser("Speed of the fast engine against lm-eval's HF backend.")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--only", nargs="*", help="workloads, by the start of their names")
    options.add_argument("--json", type=Path, help="write the numbers here")
    chosen = options.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, tokenizer, _ = load(chosen)
    from harness.score.engine import FastLM, PlainLM

    engines = {
        "hf": PlainLM(model, tokenizer),
        "fast": FastLM(model, tokenizer, 4096, Silence()),
    }
    found = {}
    print(f"{'':22}{'hf s':>9}{'fast s':>9}{'wall x':>8}{'cpu x':>8}{'goal':>6}"
          f"{'hf MiB':>9}{'fast MiB':>9}{'max diff':>10}  same")  # fmt: skip
    for name, task in WORKLOADS.items():
        if chosen.only and not name.startswith(tuple(chosen.only)):
            continue
        for lm in engines.values():
            lm._max_length = PERPLEXITY_CONTEXT if name == "perplexity" else None
        row = found[name] = compare(engines, requests_of(task, chosen.data), chosen.repeats)
        print(
            f"{name:22}{row['hf']['wall']:9.2f}{row['fast']['wall']:9.2f}{row['wall_ratio']:8.2f}"
            f"{row['cpu_ratio']:8.2f}{GOALS[name.split()[0]]:6.1f}"
            f"{row['hf']['peak'] / 2**20:9.0f}{row['fast']['peak'] / 2**20:9.0f}"
            f"{row['largest_difference']:10.1e}  {row['same_choice'] and row['same_greedy']}",
            flush=True,
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
