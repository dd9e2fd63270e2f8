"""Side by side: lm-eval's HF backend and the fast engine on the same requests, same answers.

Run with ``python -m tests.score.bench_engine --help``. Each engine answers the
requests of one task at a time, taking turns; medians of wall time and of CPU time are compared.
Peak memory is the process's resident peak (on a GPU: the allocator's) while the engine works, less
what was there before. ``hf`` is lm-eval's backend at batch size 1, the reference for answers; with
``--hf-batch N`` its speed at batch size N is shown too.
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

from harness.records.events import Silence
from harness.spec.suite import Task
from tests.score.real_model import DATA, load, parser

WORKLOADS = {
    "mmlu 5-shot": Task(name="mmlu_anatomy", num_fewshot=5, limit=10),
    "openbookqa 5-shot": Task(name="openbookqa", num_fewshot=5, limit=6),
    "arc_challenge 5-shot": Task(name="arc_challenge", num_fewshot=5, limit=4),
    "lambada": Task(name="lambada_openai", limit=16),
    "perplexity": Task(name="wikitext", limit=1),
}
HELD_OUT = "held-out replies"
HELD_OUT_CONVERSATIONS = 12
GOALS = {"mmlu": 3.0, "openbookqa": 2.0, "arc_challenge": 2.0, "lambada": 1.3, "perplexity": 1.3,
         "held-out": 1.3}  # fmt: skip
PERPLEXITY_CONTEXT = 1024
TREES = DATA.parent / "oasst" / "oasst1-en-validation.trees.jsonl.gz"


def requests_of(task: Task, data: Path) -> list[Any]:
    """The requests lm-eval makes of a task."""
    from harness.score.catalogue import load_task

    with tempfile.TemporaryDirectory() as scratch, load_task(task, data, Path(scratch)) as loaded:
        (leaf,) = loaded.tasks.values()
        leaf.set_config(key="num_fewshot", value=task.num_fewshot or 0)
        leaf.set_fewshot_seed(seed=1234)
        leaf.build_all_requests(limit=task.limit)
        return list(leaf.instances)


def held_out_requests(trees: Path, tokenizer: Any, count: int) -> list[Any]:
    """One request for each assistant turn of the first held-out conversations, as lm-eval asks."""
    from lm_eval.api.instance import Instance

    from harness.corpus.corpus import build_corpus
    from harness.corpus.render import Renderer
    from harness.spec.suite import CorpusSpec

    renderer = Renderer(tokenizer)
    found = []
    for conversation in build_corpus(CorpusSpec(source=str(trees))).held_out[:count]:
        for place, message in enumerate(conversation.messages):
            if message.role == "assistant":
                context = renderer.prompt_text(conversation.messages[:place])
                asked = (context, message.text)
                found.append(Instance("loglikelihood", {}, asked, 0, doc_id=len(found)))
    return found


def answer(lm: Any, requests: list[Any]) -> list[tuple[float, bool]]:
    """Log-likelihoods with greedy flags; rolling ones have no flag."""
    if requests[0].request_type == "loglikelihood_rolling":
        return [(value, True) for value in lm.loglikelihood_rolling(requests, disable_tqdm=True)]
    found: list[tuple[float, bool]] = lm.loglikelihood(requests, disable_tqdm=True)
    return found


def measured(lm: Any, requests: list[Any]) -> dict[str, Any]:
    """Wall seconds, CPU seconds and extra bytes of one pass."""
    gc.collect()
    memory = DeviceMemory() if lm.device.type == "cuda" else ResidentMemory()
    wall, cpu = time.perf_counter(), time.process_time()
    answers = answer(lm, requests)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": memory.extra(),
        "answers": answers,
    }


class ResidentMemory:
    """This process's resident memory from here on."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = _status("VmRSS")

    def extra(self) -> int:
        """Peak bytes above what was there."""
        return _status("VmHWM") - self._before


class DeviceMemory:
    """The CUDA allocator's memory from here on."""

    def __init__(self) -> None:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    def extra(self) -> int:
        """Peak bytes above what was there."""
        import torch

        return torch.cuda.max_memory_allocated() - self._before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def compare(engines: dict[str, Any], requests: list[Any], repeats: int) -> dict[str, Any]:
    """Medians of ``repeats`` turns each, and how far the answers of hf and fast are apart."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, lm in engines.items():
            runs[name].append(measured(lm, requests))
    theirs, ours = runs["hf"][0]["answers"], runs["fast"][0]["answers"]
    pairs = list(zip(theirs, ours, strict=True))
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in ("wall", "cpu", "peak")}
        for name, found in runs.items()
    }
    fast = median["fast"]
    return {
        "requests": len(requests),
        **median,
        "wall_ratio": median["hf"]["wall"] / fast["wall"],
        "cpu_ratio": median["hf"]["cpu"] / fast["cpu"],
        "largest_difference": max(abs(a[0] - b[0]) for a, b in pairs),
        "largest_relative_difference": max(
            abs(a[0] - b[0]) / max(1.0, abs(a[0])) for a, b in pairs
        ),
        "same_greedy": sum(a[1] == b[1] for a, b in pairs) / len(pairs),
        "same_choice": _same_choice(requests, theirs, ours),
    }


def _same_choice(requests: list[Any], theirs: list[Any], ours: list[Any]) -> float:
    """Share of documents that have the same likeliest answer."""
    documents: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        documents.setdefault(request.doc_id, []).append(index)
    return statistics.mean(
        max(group, key=lambda i: theirs[i][0]) == max(group, key=lambda i: ours[i][0])
        for group in documents.values()
    )


def main() -> None:
    options = parser("Speed of the fast engine against lm-eval's HF backend.")
    options.add_argument(
        "--trees", type=Path, default=TREES, help="OASST trees for held-out replies"
    )
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--only", nargs="*", help="workloads, by the start of their names")
    options.add_argument("--scale", type=int, default=1, help="times as many documents")
    options.add_argument("--hf-batch", type=int, help="also lm-eval's backend at this batch size")
    options.add_argument("--json", type=Path, help="write the numbers here")
    chosen = options.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, tokenizer, _ = load(chosen)
    from harness.score.engine import FastLM, PlainLM
    from harness.score.likelihood import Likelihood

    engines: dict[str, Any] = {
        "hf": PlainLM(model, tokenizer),
        "fast": FastLM(model, tokenizer, Likelihood(model, 4096, Silence())),
    }
    if chosen.hf_batch:
        engines["hf_batched"] = PlainLM(model, tokenizer)
        engines["hf_batched"].batch_size_per_gpu = chosen.hf_batch
    found = {}
    print(f"{'':22}{'hf s':>9}{'fast s':>9}{'batch s':>9}{'wall x':>8}{'cpu x':>8}{'goal':>6}"
          f"{'hf MiB':>9}{'fast MiB':>9}{'max diff':>10}  same choice, greedy")  # fmt: skip
    for name in (*WORKLOADS, HELD_OUT):
        if chosen.only and not name.startswith(tuple(chosen.only)):
            continue
        if name == HELD_OUT:
            count = HELD_OUT_CONVERSATIONS * chosen.scale
            requests = held_out_requests(chosen.trees, tokenizer, count)
        else:
            task = WORKLOADS[name]
            task = task.model_copy(update={"limit": (task.limit or 1) * chosen.scale})
            requests = requests_of(task, chosen.data)
        for lm in engines.values():
            lm._max_length = PERPLEXITY_CONTEXT if name == "perplexity" else None
        row = found[name] = compare(engines, requests, chosen.repeats)
        batched = f"{row['hf_batched']['wall']:9.2f}" if chosen.hf_batch else " " * 9
        print(
            f"{name:22}{row['hf']['wall']:9.2f}{row['fast']['wall']:9.2f}{batched}"
            f"{row['wall_ratio']:8.2f}{row['cpu_ratio']:8.2f}{GOALS[name.split()[0]]:6.1f}"
            f"{row['hf']['peak'] / 2**20:9.0f}{row['fast']['peak'] / 2**20:9.0f}"
            f"{row['largest_difference']:10.1e}"
            f"  {row['same_choice']:.3f}, {row['same_greedy']:.3f}",
            flush=True,
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
