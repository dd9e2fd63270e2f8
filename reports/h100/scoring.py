"""Scoring: the fast engine beside lm-eval's HF backend in batches of 16, on one GPU.

Run from the repository root: ``PYTHONPATH=. python reports/h100/scoring.py --data TREES
--lm-eval FOLDER --tokenizer FOLDER [--parts choices,pages,generate,answers,ready,steps] [--tiny]``.
Prints one line of JSON a measurement, ours before HF's turns begin: the first turn apart, then the
median of the others. Random weights of the models' shapes (or ``--model FOLDER``), real prompts, no
network.
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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from bench import BF16, NF4, PHI, SMOL, Case, make_plan_of, random_model
from stopwatch import Stopwatch, kernels

from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.records.events import SILENCE
from harness.score.answers import Answers
from harness.score.body import RowsBody, TreeBody
from harness.score.engine import FastLM, PlainLM
from harness.score.generations import choose_prompts, generate
from harness.score.likelihood import Likelihood
from harness.score.rows import Rows
from harness.score.steps import Steps
from harness.spec.suite import CorpusSpec, Task
from tests.score.bench_engine import held_out_requests, requests_of

BATCH = 16
MODELS = {
    "smol_bf16": (SMOL, BF16),
    "smol_nf4": (SMOL, NF4),
    "smol_base": (SMOL, "base"),
    "phi_bf16": (PHI, BF16),
}
FEW = frozenset(("smol_nf4", "smol_base"))  # models of these parts alone
OF_FEW = ("answers", "ready")
PASSES = Stopwatch(
    {
        "rows": (RowsBody, "run_rows"),
        "trees": (TreeBody, "run_tree"),
        "prefixes": (TreeBody, "extend"),
        "alone": (RowsBody, "run_alone"),
        "words": (RowsBody, "log_probs"),
        "tokenised": (PlainLM, "_in_batches"),
    }
)
OURS, HFS = 5, 3  # turns, the cold one included
Found = dict[str, Any]


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


def turns(work: Callable[[], Any], count: int, patience: float = math.inf) -> Found:
    """The first turn apart; the median of the others; the most memory beside what was there.

    No turn begins after ``patience`` seconds of turns.
    """
    before = 0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    seconds: list[float] = []
    found: Any = None
    while len(seconds) < count and sum(seconds) < patience:
        one, found = timed(work)
        seconds.append(one)
    peak = torch.cuda.max_memory_allocated() - before if torch.cuda.is_available() else 0
    return {
        "cold": round(seconds[0], 3),
        "warm": round(statistics.median(seconds[1:]), 3) if seconds[1:] else None,
        "turns": len(seconds),
        "peak_gib": round(peak / 2**30, 3),
        "found": found,
    }


def compared(
    ours: Callable[[], Any], theirs: Callable[[], Any], patience: float
) -> Iterator[Found]:
    """Ours alone as soon as it is known; then both, and by how much ours is faster once warm."""
    fast = turns(ours, OURS)
    answers = fast.pop("found")
    yield {"fast": fast}
    peer = turns(theirs, HFS, patience)
    pairs = zip(answers, peer.pop("found"), strict=True)
    same = [math.isclose(a, b, rel_tol=0.01) if isinstance(a, float) else a == b for a, b in pairs]
    warm = peer["warm"]  # None where one turn took all of the time
    yield {
        "fast": fast,
        "hf16": peer,
        "ratio": round((warm or peer["cold"]) / fast["warm"], 2),
        "ratio_of": "warm turns" if warm else "HF's cold turn to ours once warm",
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

    def answers(self) -> Iterator[Found]:
        """Two answers of 48 tokens, as every run of the suite quick asks for, and their parts."""
        renderer = Renderer(self.tokenizer)
        corpus = build_corpus(CorpusSpec(source=str(self.options.data), held_out_fraction=0.05))
        prompts = choose_prompts(corpus.held_out, 2)
        sizes = [len(renderer.prompt_ids(prompt.messages)) for prompt in prompts]

        def ours() -> Any:
            return generate(self.model, renderer, prompts, 48, self.likelihood)

        found = turns(ours, OURS)
        answers = found.pop("found")
        about = {"prompts": sizes, "tokens": [len(tokens) for tokens, _ in answers]}
        yield {**about, **found}
        watch = Stopwatch(
            {
                "prefix": (TreeBody, "extend"),
                "prompts": (TreeBody, "run_tree"),
                "logits": (TreeBody, "logits"),
                "rows begin": (Rows, "enter"),
                "steps": (Steps, "take"),
                "launched step": (Rows, "step"),
                "compared with the model's own": (Answers, "_compare"),
            }
        )
        yield {"parts": [watch.account(ours) for _ in range(3)][-1], **kernels(ours)}

    def ready(self) -> Iterator[Found]:
        """Looking the model over, which comes before all scores of a phase."""
        found = turns(lambda: Likelihood(self.model, 4096, SILENCE), OURS)
        yield {key: found[key] for key in ("cold", "warm", "peak_gib")}

    def generate(self) -> Iterator[Found]:
        """Answers to the prompts of two tasks, eight shots before each."""
        limit = 8 if self.options.tiny else self.options.new_tokens
        for task in ("gsm8k_cot", "gsm8k"):
            asked = self.requests(task, 8, self.options.prompts)
            for request in asked:
                request.args[1]["max_gen_toks"] = limit
            about = {"of": task, "prompts": len(asked), "new_tokens": limit}
            for found in compared(
                lambda asked=asked: self.fast.generate_until(asked, True),  # type: ignore[misc]
                lambda asked=asked: self.plain.generate_until(asked, True),  # type: ignore[misc]
                self.options.patience,
            ):
                yield {**about, **found, **self.fast.answer_details}

    def choices(self) -> Iterator[Found]:
        """MMLU, five shots: questions of one subject."""
        asked = self.requests("mmlu_anatomy", 5, self.options.questions)

        def picked(lm: Any) -> list[int]:
            values = [value for value, _ in lm.loglikelihood(asked, True)]
            groups = [values[at : at + 4] for at in range(0, len(values), 4)]
            return [group.index(max(group)) for group in groups]

        text = [a + b for a, b in (request.args for request in asked)]
        text += [a.rstrip() for a, _ in (request.args for request in asked)]
        tokenised = statistics.median(
            timed(lambda: self.fast._encode_all(list(dict.fromkeys(text))))[0] for _ in range(5)
        )
        about = {"of": "mmlu", "requests": len(asked), "tokenised_in": round(tokenised, 4)}
        patience = self.options.patience
        for found in compared(lambda: picked(self.fast), lambda: picked(self.plain), patience):
            yield {**about, **found}

    def pages(self) -> Iterator[Found]:
        """Perplexity of Wikipedia pages in windows of 1,024, and of held-out replies."""
        few = self.options.tiny
        replies = held_out_requests(self.options.data, self.tokenizer, 4 if few else 60)
        rolled = self.requests("wikitext", 0, 8)[: 1 if few else None]
        for lm in (self.fast, self.plain):
            lm._max_length = 1024

        def bits(lm: Any) -> list[float]:
            return list(lm.loglikelihood_rolling(rolled, True))

        def losses(lm: Any) -> list[float]:
            return [value for value, _ in lm.loglikelihood(replies, True)]

        works = {"replies": (losses, len(replies)), "pages": (bits, len(rolled))}
        for name, (work, count) in works.items():
            ours, theirs = partial(work, self.fast), partial(work, self.plain)
            for found in compared(ours, theirs, self.options.patience):
                yield {"of": name, "requests": count, **found}
            yield {"of": name, "parts": PASSES.account(ours), **kernels(ours)}
        for lm in (self.fast, self.plain):
            lm._max_length = None

    def steps(self) -> Iterator[Found]:
        """Where the GPU's time of 64 rows goes: kernels by share."""
        asked = self.requests("gsm8k_cot", 8, 64)
        for request in asked:
            request.args[1]["max_gen_toks"] = 24
        self.fast.generate_until(asked, True)
        yield kernels(lambda: self.fast.generate_until(asked, True))


def measure(chosen: argparse.Namespace, benches: dict[str, Bench], part: str, name: str) -> None:
    """The rows of one part of one model, printed as they come."""
    begun = time.monotonic()

    def tell(row: Found) -> None:
        row = {"part": part, "model": name, **row, "at": round(time.monotonic() - begun, 1)}
        print(json.dumps(row), flush=True)

    try:
        if name not in benches:
            benches[name] = Bench(chosen, name)
            tell({"made": round(time.monotonic() - begun, 1)})
        for row in getattr(benches[name], part)():
            tell(row)
    except Exception as problem:
        traceback.print_exc(limit=-4)
        tell({"failed": f"{type(problem).__name__}: {problem}"})


def main() -> None:
    """Measure part by part, all models of each, until the time is over."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="OASST trees")
    options.add_argument(
        "--lm-eval", type=Path, required=True, help="folder that mirrors data sets"
    )
    options.add_argument("--tokenizer", required=True)
    options.add_argument("--model", help="a folder with SmolLM2's weights")
    options.add_argument("--parts", default="choices,pages,generate,answers,ready,steps")
    options.add_argument("--models", default=",".join(MODELS))
    options.add_argument("--questions", type=int, default=40, help="of MMLU, four requests each")
    options.add_argument("--prompts", type=int, default=16, help="of each task that is generated")
    options.add_argument("--new-tokens", type=int, default=64, help="of an answer, both sides")
    options.add_argument("--patience", type=float, default=30, help="seconds of HF turns a case")
    options.add_argument("--seconds", type=float, default=180, help="begin nothing after that")
    options.add_argument("--tiny", action="store_true")
    chosen = options.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    started = time.monotonic()
    benches: dict[str, Bench] = {}
    for part in chosen.parts.split(","):
        for name in chosen.models.split(","):
            if time.monotonic() - started > chosen.seconds:
                print(json.dumps({"part": part, "model": name, "failed": "no time is left"}))
            elif name not in FEW or part in OF_FEW:
                measure(chosen, benches, part, name)


if __name__ == "__main__":
    main()
