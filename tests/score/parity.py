"""For one adapter on the real model: the lm_eval command line beside the harness, task by task.

Run with ``nox -s parity`` or ``python tests/score/parity.py --help``. Both columns are printed;
the exit code is 1 if any accuracy differs by an item or a log-likelihood by more than 1e-4.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from harness.records.events import Silence
from harness.spec.suite import Task
from tests.score.real_model import load, parser

TASKS = (
    Task(name="arc_easy", num_fewshot=0, limit=8),
    Task(name="openbookqa", num_fewshot=0, limit=8),
    Task(name="mmlu_anatomy", num_fewshot=2, limit=8),
    Task(name="lambada_openai", num_fewshot=0, limit=8),
    Task(name="commonsense_qa", num_fewshot=2, limit=8),
    Task(name="truthfulqa_mc1", limit=2),
)
TOLERANCE = 1e-4


def command_line(model: Path, adapter: Path, data: Path, task: Task, out: Path) -> dict[str, Any]:
    """Results and samples that ``lm_eval`` writes for one task."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={model.resolve()},peft={adapter},dtype=float32"]
    command += ["--tasks", task.name, "--limit", str(task.limit), "--batch_size", "1"]
    if task.num_fewshot is not None:
        command += ["--num_fewshot", str(task.num_fewshot)]
    command += ["--output_path", str(out), "--log_samples"]
    # Stock names find their data in the working directory.
    done = subprocess.run(
        command, cwd=data, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    found = json.loads(results.read_text(encoding="utf-8"))["results"][task.name]
    return {"results": found, "rows": rows}


def harness_scores(lm: Any, data: Path, task: Task, folder: Path) -> list[Any]:
    """The harness's scores of one task."""
    from harness.score.catalogue import load_task
    from harness.score.evaluation import evaluate
    from harness.score.items import Place
    from harness.score.samples import write_scores

    with load_task(task, data, folder) as loaded:
        place = Place(folder, "after", "training")
        return write_scores(evaluate(task, loaded, lm, {}), place)


def compare(theirs: dict[str, Any], scores: list[Any], folder: Path) -> list[tuple[Any, ...]]:
    """Rows of (metric, theirs, ours, items that differ, largest log-likelihood difference)."""
    found = []
    for score in scores:
        rows = pq.read_table(folder / score.items).to_pydict()
        differing, apart = 0, 0.0
        for index, row in enumerate(theirs["rows"]):
            value = row[score.metric]
            if score.metric != "perplexity":
                differing += rows["numerator"][index] != value
            pairs = zip(rows["log_likelihoods"][index], row["resps"], strict=True)
            apart = max(apart, *(abs(ours - float(r[0][0])) for ours, r in pairs))
        reference = theirs["results"][f"{score.metric},none"]
        found.append((score.metric, reference, score.value, differing, apart))
    return found


def adapted(model: Any) -> Any:
    """The model with a LoRA adapter whose weights are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        init_lora_weights=False,
        lora_alpha=1,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config).eval()


def main() -> None:
    options = parser("Scores of the lm_eval command line beside the harness's.")
    options.add_argument("--only", nargs="*", help="names of tasks")
    chosen = options.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    base, tokenizer, folder = load(chosen)
    from harness.score.engine import FastLM
    from harness.score.likelihood import Likelihood

    model = adapted(base)
    failed = False
    print(f"{'task':18}{'metric':12}{'lm_eval':>12}{'harness':>12}{'items':>7}{'max diff':>10}")
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(Path(scratch) / "adapter")
        lm = FastLM(model, tokenizer, Likelihood(model, 4096, Silence()))
        for task in TASKS:
            if chosen.only and task.name not in chosen.only:
                continue
            place = Path(scratch) / task.name
            scores = harness_scores(lm, chosen.data, task, place)
            theirs = command_line(
                folder, Path(scratch) / "adapter", chosen.data, task, place / "lm_eval"
            )
            for metric, reference, ours, differing, apart in compare(theirs, scores, place):
                failed = failed or differing > 0 or apart > TOLERANCE
                print(
                    f"{task.name:18}{metric:12}{reference:12.6f}{ours:12.6f}{differing:7}"
                    f"{apart:10.1e}",
                    flush=True,
                )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
