"""Scoring: the fast engine beside lm-eval's HF backend in batches of 16, on one GPU.

Run from the repository root: ``PYTHONPATH=. python reports/h100/scoring.py --data TREES
--lm-eval FOLDER --tokenizer FOLDER [--parts answers,generate,choices,pages,steps] [--tiny]``.
Prints one line of JSON a measurement: the first turn apart, then the median of the others. Random
weights of the models' shapes (or ``--model FOLDER``), real prompts, no network.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from bench import BF16, NF4, PHI, SMOL, Case, make_plan_of, random_model

from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.records.events import SILENCE
from harness.score.engine import FastLM, PlainLM
from harness.score.generations import choose_prompts, generate
from harness.score.likelihood import Likelihood
from harness.spec.suite import CorpusSpec, Task
from tests.score.bench_engine import held_out_requests, requests_of

BATCH = 16
MODELS = {"smol_bf16": (SMOL, BF16), "smol_nf4": (SMOL, NF4), "phi_bf16": (PHI, BF16)}


def wait() -> None:
    """For the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one turn, and its answers."""
    wait()
    start = time.perf_counter()
    found = work()
    wait()
    return time.perf_counter() - start, found


def turns(work: Callable[[], Any], count: int) -> dict[str, Any]:
    """The first turn apart; the median of the others; the most memory beside what was there."""
    before = 0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    found = [timed(work) for _ in range(count)]
    seconds = [one for one, _ in found]
    peak = torch.cuda.max_memory_allocated() - before if torch.cuda.is_available() else 0
    return {
        "cold": round(seconds[0], 3),
        "warm": round(statistics.median(seconds[1:] or seconds), 3),
        "peak_gib": round(peak / 2**30, 3),
        "found": found[-1][1],
    }


def compared(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Both sides, and by how much ours is faster once warm."""
    fast, peer = turns(ours, repeats), turns(theirs, 2)
    pairs = zip(fast.pop("found"), peer.pop("found"), strict=True)
    same = [math.isclose(a, b, rel_tol=0.01) if isinstance(a, float) else a == b for a, b in pairs]
    return {
        "fast": fast,
        "hf16": peer,
        "ratio": round(peer["warm"] / fast["warm"], 2),
        "same": f"{sum(same)}/{len(same)}",
    }


class Bench:
    """One model with both engines."""

    def __init__(self, options: argparse.Namespace, name: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.options, self.name = options, name
        self.tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        if options.model and name == "smol_bf16":
            dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
            self.model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
            self.model = self.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        else:
            shape, variant = MODELS[name]
            self.model = random_model(make_plan_of(Case(shape, variant, 1, 512), options.tiny))
            self.model.eval()
        self.likelihood = Likelihood(self.model, 4096, SILENCE)
        self.fast = FastLM(self.model, self.tokenizer, self.likelihood)
        self.plain = PlainLM(self.model, self.tokenizer)
        self.plain.batch_size_per_gpu = BATCH

    def requests(self, task: str, shots: int, limit: int) -> list[Any]:
        """The requests of a task; fewer where the trial is tiny."""
        limit = min(limit, 4) if self.options.tiny else limit
        return requests_of(Task(name=task, num_fewshot=shots, limit=limit), self.options.lm_eval)

    def answers(self) -> dict[str, Any]:
        """Two answers of 48 tokens, as every run of the suite quick asks for."""
        renderer = Renderer(self.tokenizer)
        corpus = build_corpus(CorpusSpec(source=str(self.options.data), held_out_fraction=0.05))
        prompts = choose_prompts(corpus.held_out, 2)

        def ours() -> Any:
            return generate(self.model, renderer, prompts, 48, self.likelihood)

        found = turns(ours, 4)
        return {key: found[key] for key in ("cold", "warm", "peak_gib")}

    def generate(self, task: str, prompts: int, limit: int) -> dict[str, Any]:
        """Answers of at most ``limit`` tokens to the prompts of a task, eight shots before each."""
        asked = self.requests(task, 8, prompts)
        limit = 8 if self.options.tiny else limit
        for request in asked:
            request.args[1]["max_gen_toks"] = limit
        found = compared(
            lambda: self.fast.generate_until(asked, True),
            lambda: self.plain.generate_until(asked, True),
            2,
        )
        return {"task": task, "prompts": len(asked), **found, **self.fast.answer_details}

    def choices(self) -> dict[str, Any]:
        """MMLU, five shots: 40 questions of one subject."""
        asked = self.requests("mmlu_anatomy", 5, 40)

        def picked(lm: Any) -> list[int]:
            values = [value for value, _ in lm.loglikelihood(asked, True)]
            groups = [values[at : at + 4] for at in range(0, len(values), 4)]
            return [group.index(max(group)) for group in groups]

        found = compared(lambda: picked(self.fast), lambda: picked(self.plain), 7)
        text = [a + b for a, b in (request.args for request in asked)]
        text += [a.rstrip() for a, _ in (request.args for request in asked)]
        tokenised = statistics.median(
            timed(lambda: self.fast._encode_all(list(dict.fromkeys(text))))[0] for _ in range(5)
        )
        return {"requests": len(asked), **found, "tokenised_in": round(tokenised, 4)}

    def pages(self) -> list[dict[str, Any]]:
        """Perplexity of Wikipedia pages in windows of 1,024, and of held-out replies."""
        rolled = self.requests("wikitext", 0, 8)
        replies = held_out_requests(self.options.data, self.tokenizer, 60)
        for lm in (self.fast, self.plain):
            lm._max_length = 1024

        def bits(lm: Any) -> list[float]:
            return list(lm.loglikelihood_rolling(rolled, True))

        def losses(lm: Any) -> list[float]:
            return [value for value, _ in lm.loglikelihood(replies, True)]

        found = [
            {"of": "pages", **compared(lambda: bits(self.fast), lambda: bits(self.plain), 5)},
            {"of": "replies", **compared(lambda: losses(self.fast), lambda: losses(self.plain), 5)},
        ]
        for lm in (self.fast, self.plain):
            lm._max_length = None
        return found

    def steps(self) -> dict[str, Any]:
        """Where the GPU's time of 64 rows goes: kernels by share."""
        from torch.profiler import ProfilerActivity, profile

        asked = self.requests("gsm8k_cot", 8, 64)
        for request in asked:
            request.args[1]["max_gen_toks"] = 24
        self.fast.generate_until(asked, True)
        kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        with profile(activities=kinds) as seen:
            seconds, _ = timed(lambda: self.fast.generate_until(asked, True))
        events = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)[:14]
        busy = sum(e.self_device_time_total for e in seen.key_averages()) / 1e6
        return {
            "seconds": round(seconds, 3),
            "gpu_seconds": round(busy, 3),
            "kernels": [
                [e.key[:70], e.count, round(e.self_device_time_total / 1e3, 1)] for e in events
            ],
        }


def parts_of(bench: Bench) -> dict[str, Callable[[], Any]]:
    """What can be measured."""
    return {
        "answers": bench.answers,
        "generate": lambda: [
            bench.generate("gsm8k_cot", 64, 128),
            bench.generate("gsm8k", 32, 128),
        ],
        "choices": bench.choices,
        "pages": bench.pages,
        "steps": bench.steps,
    }


def main() -> None:
    """Measure part by part, all models of each, until the time is over."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="OASST trees")
    options.add_argument(
        "--lm-eval", type=Path, required=True, help="folder that mirrors data sets"
    )
    options.add_argument("--tokenizer", required=True)
    options.add_argument("--model", help="a folder with SmolLM2's weights")
    options.add_argument("--parts", default="answers,generate,choices,pages,steps")
    options.add_argument("--models", default=",".join(MODELS))
    options.add_argument("--seconds", type=float, default=180)
    options.add_argument("--tiny", action="store_true")
    chosen = options.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    started = time.monotonic()
    benches: dict[str, Bench] = {}
    for part in chosen.parts.split(","):
        for name in chosen.models.split(","):
            if time.monotonic() - started > chosen.seconds:
                return
            if name == "smol_nf4" and part not in ("answers", "choices"):
                continue
            try:
                bench = benches.get(name) or benches.setdefault(name, Bench(chosen, name))
                row = {"part": part, "model": name, "result": parts_of(bench)[part]()}
            except Exception as problem:
                traceback.print_exc(limit=-4)
                row = {
                    "part": part,
                    "model": name,
                    "failed": f"{type(problem).__name__}: {problem}",
                }
            row["at"] = round(time.monotonic() - started)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
